"""Birds as datamodules: drawn where they are missing, then read like Waterbirds, or like COCO without objects."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from datamodules.coco import CocoDataModule
from datamodules.scenes.birds.config import BirdCaptionsConfig, BirdScenesConfig
from datamodules.scenes.birds.writer import write_bird_captions, write_bird_scenes
from datamodules.waterbirds import WaterbirdsDataModule

_SCENES, _CAPTIONS = BirdScenesConfig(), BirdCaptionsConfig()


class BirdScenesDataModule(WaterbirdsDataModule):
    """Drawn counterpart of Waterbirds: small birds before large places, nearly always those of their kind.

    Args:
        root: folder of the data set; it is drawn there where it is missing, masks and all.
        birds: size, seed and imbalance of the data set.
        **base: arguments of `GroupedDataModule`.
    """

    def __init__(self, root: str | os.PathLike[str], birds: BirdScenesConfig = _SCENES, **base: Any) -> None:
        super().__init__(root, masks=Path(root) / "segmentations", **base)
        self.birds = birds

    def prepare_data(self) -> None:
        """Draw the data set where it is missing.

        Raises:
            ConfigError: `root` holds a data set of another config, or something else.
        """
        write_bird_scenes(self.birds, self.image_root)


class BirdCaptionsDataModule(CocoDataModule):
    """Captioned pictures of birds, from which a small CLIP learns the words that its fine-tuning on birds needs.

    Args:
        root: folder of the pictures; they are drawn there where they are missing.
        birds: size, seed and correlation of the pictures.
        **base: arguments of `RetrievalDataModule`.
    """

    def __init__(self, root: str | os.PathLike[str], birds: BirdCaptionsConfig = _CAPTIONS, **base: Any) -> None:
        self.root, self.birds = Path(root), birds
        images, karpathy = self.root / "images", self.root / "annotations" / "dataset.json"
        super().__init__(image_root=images, karpathy=karpathy, instances=[], **base)

    def prepare_data(self) -> None:
        """Draw the pictures where they are missing, and do what every datamodule does.

        Raises:
            ConfigError: `root` holds something else, or pictures of another config.
        """
        write_bird_captions(self.birds, self.root)
        super().prepare_data()

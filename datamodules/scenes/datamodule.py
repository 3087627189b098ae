"""Scenes as a datamodule: drawn where it is missing, then read like COCO."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from datamodules.coco import CocoDataModule
from datamodules.scenes.config import ScenesConfig
from datamodules.scenes.writer import write_scenes

_DEFAULT = ScenesConfig()


class ScenesDataModule(CocoDataModule):
    """The embedded data set: drawn pictures and captions with a planted correlation between partner classes.

    Args:
        root: folder of the data set; it is drawn there where it is missing.
        scenes: size, seed and correlation of the data set.
        **base: arguments of `RetrievalDataModule`.
    """

    def __init__(self, root: str | os.PathLike[str], scenes: ScenesConfig = _DEFAULT, **base: Any) -> None:
        self.root, self.scenes = Path(root), scenes
        annotations = self.root / "annotations"
        super().__init__(
            image_root=self.root / "images",
            karpathy=annotations / "dataset.json",
            instances=[annotations / "instances.json"],
            **base,
        )

    def prepare_data(self) -> None:
        """Draw the data set where it is missing, and do what every datamodule does.

        Raises:
            ConfigError: `root` holds a data set of another config, or something else.
        """
        write_scenes(self.scenes, self.root)
        super().prepare_data()

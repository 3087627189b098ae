"""COCO's layout: Karpathy's json, instances json files and a folder of images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datamodules.base import RetrievalDataModule
from datamodules.tables import Tables


class CocoDataModule(RetrievalDataModule):
    """COCO, or any data set in its layout.

    Args:
        image_root: folder of the images; the json files name them relative to it.
        karpathy: json file with captions and splits in Karpathy's layout (`dataset_coco.json`).
        instances: json files with boxes and masks in COCO's layout (`instances_train2014.json`, ...).
        **base: arguments of `RetrievalDataModule`.
    """

    def __init__(
        self,
        image_root: str | os.PathLike[str],
        karpathy: str | os.PathLike[str],
        instances: Sequence[str | os.PathLike[str]],
        **base: Any,
    ) -> None:
        super().__init__(**base)
        self.image_root, self.karpathy = Path(image_root), Path(karpathy)
        self.instances = [Path(path) for path in instances]

    def read(self) -> Tables:
        """Return the tables of the data set, parsed once and cached in `cache_dir`."""
        from datamodules.coco_reader import read_coco

        return read_coco(self.karpathy, self.instances, self.image_root, self.matcher.class_names, self.cache_dir)

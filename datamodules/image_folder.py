"""Your own data: a plain folder of images, captions and, perhaps, boxes."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from datamodules.base import RetrievalDataModule
from datamodules.errors import ConfigError
from datamodules.tables import Tables

SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}
"""Splits and their shares of the images where nothing says otherwise."""


class FolderDataModule(RetrievalDataModule):
    """A folder of images with a `metadata.jsonl` beside them, the `imagefolder` convention of Hugging Face.

    Each line is an image: `file_name`, `text` (a caption or a list of them), and what may be left out: `split`,
    `image_id`, and `objects` as `{"bbox": [[x, y, width, height], ...], "categories": ["dog", ...]}` in pixels. The
    file may also lie in each folder of the root, whose name is then the split. Images stay where they are.

    Args:
        root: folder of the images.
        instances: COCO instances json with the boxes, such as a detector writes (`python -m synth detect`); its
            `file_name` are those of the images below `root`. None where the lines have the boxes.
        shares: splits and their shares of the images, where the lines name no splits; None for 0.8 train, 0.1 val and
            0.1 test.
        split_seed: draws these splits, by the names of the images; other seeds leave them alone.
        **base: arguments of `RetrievalDataModule`; `matcher` has the classes, COCO's 80 by default.

    Raises:
        ConfigError: `shares` are no shares.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        instances: str | os.PathLike[str] | None = None,
        shares: dict[str, float] | None = None,
        split_seed: int = 0,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        self.image_root = Path(root)
        self.instances = None if instances is None else Path(instances)
        self.shares = dict(SHARES if shares is None else shares)
        self.split_seed = split_seed
        values = self.shares.values()
        if not all(math.isfinite(share) and share >= 0 for share in values) or not sum(values) > 0:
            raise ConfigError(
                f"`shares` is {self.shares}: give each split its share of the images, 0 or more, as in {SHARES}."
            )

    def read(self) -> Tables:
        """Return the tables of the data set, parsed once and cached in `cache_dir`."""
        from datamodules.folder_reader import read_folder

        classes = self.matcher.class_names
        return read_folder(self.image_root, classes, self.shares, self.split_seed, self.instances, self.cache_dir)

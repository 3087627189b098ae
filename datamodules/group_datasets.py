"""Map-style datasets over the images of a grouped data set, for training and for evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.datasets import RetrievalDataset, Sample
from datamodules.group_table import GroupTable
from datamodules.images import Reader
from datamodules.processor import Processor
from datamodules.seeding import seeded


@dataclass
class GroupImages(RetrievalDataset):
    """Images of a split, with their labels and attributes and no captions.

    Attributes:
        table: the data set.
        image_root: folder of its images.
        rows: `[N]` rows of the split.
        processor: preprocessing of the backbone.
        reader: reads the pictures.
    """

    table: GroupTable
    image_root: Path
    rows: NDArray[np.int64]
    processor: Processor
    reader: Reader

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def image_ids(self) -> NDArray[np.int64]:
        """`[N]` ids of the pictures."""
        return self.table.image_ids[self.rows]

    def read(self, row: int) -> Any:
        """Return the picture in RGB, or None where it cannot be read."""
        place = self.rows[row]
        return self.reader.read(self.image_root / str(self.table.files[place]), int(self.table.image_ids[place]))

    def columns(self, rows: NDArray[np.int64]) -> dict[str, Any]:
        """Return ids, labels and attributes of these images."""
        places = self.rows[rows]
        ids = torch.from_numpy(self.table.image_ids[places])
        absent = torch.full_like(ids, -1)
        return {
            "image_ids": ids,
            "caption_ids": absent,
            "source_ids": ids,
            "source_caption_ids": absent,
            "synthetic": torch.zeros(len(ids), dtype=torch.bool),
            "labels": torch.from_numpy(self.table.labels[places]),
            "attributes": torch.from_numpy(self.table.attributes[places]),
        }


class EvaluationGroupImages(GroupImages):
    """Images of an evaluated split; those that cannot be read are left out."""

    def __getitem__(self, row: int) -> Sample:
        image = self.read(row)
        return row, None if image is None else self.processor.eval_image(image)


@dataclass
class TrainGroupImages(GroupImages):
    """Images of the training split; an item is a number that seeds the augmentation, together with `seed`, and a row.

    Where an image cannot be read, the next readable one of its group takes its place, so that groups keep their shares;
    one of the others where the group has none, so that batches keep their size and processes keep in step.

    Attributes:
        seed: seeds the augmentation.
    """

    seed: int

    def __getitem__(self, item: tuple[int, int]) -> Sample:
        number, wanted = item
        for row in self._substitutes(wanted):
            image = self.read(row)
            if image is not None:
                return row, self._augmented(image, number, wanted)
            if self.reader.exceeded:
                break
        return wanted, None

    def _augmented(self, image: Any, number: int, wanted: int) -> Tensor:
        with seeded(self.seed, number, wanted):
            return self.processor.train_image(image)

    def _substitutes(self, wanted: int) -> Iterator[int]:
        """Yield the row, then those after it, round to it again, in its group and then in the others."""
        yield wanted
        groups = self.table.groups[self.rows]
        after = np.roll(np.arange(len(groups)), -wanted)[1:]
        same = groups[after] == groups[wanted]
        yield from after[same].tolist()
        yield from after[~same].tolist()

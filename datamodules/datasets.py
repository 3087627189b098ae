"""Map-style datasets over columns: training pairs, evaluation images, queries and captions.

A sample is its row and its picture; everything else of a batch is looked up in the columns at once by `collate`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.batch import RetrievalBatch
from datamodules.images import Reader
from datamodules.processor import Processor
from datamodules.seeding import seeded
from datamodules.synthetic_set import SyntheticSet
from datamodules.tables import Tables

Sample = tuple[int, Tensor | None]


class RetrievalDataset(Dataset[Sample]):
    """Rows that `collate` makes a `RetrievalBatch` of; a sample whose picture cannot be read has None in its place.

    Attributes:
        reader: reads the pictures and counts the unreadable ones; None where there are no pictures.
    """

    reader: Reader | None

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    def image_ids(self) -> NDArray[np.int64]:
        """`[N]` ids of the pictures, none where there are no pictures."""
        return np.empty(0, np.int64)

    @abstractmethod
    def columns(self, rows: NDArray[np.int64]) -> dict[str, Any]:
        """Return the fields of the batch of these rows, without the pictures."""

    def collate(self, samples: Sequence[Sample]) -> RetrievalBatch | None:
        """Return the samples as one batch, those without a picture dropped, or None where nothing is left."""
        readable = [(row, pixels) for row, pixels in samples if pixels is not None]
        if not readable:
            return None
        rows = np.array([row for row, _ in readable], dtype=np.int64)
        return RetrievalBatch(**self.columns(rows), pixel_values=torch.stack([pixels for _, pixels in readable]))


@dataclass
class TrainPairs(RetrievalDataset):
    """P original pairs (rows 0..P-1), then S synthetic pairs (rows P..P+S-1).

    An item is `(batch, row)`: augmentation is seeded by both and the seed, whichever worker or process draws it. Where
    the picture of a pair cannot be read, the next readable pair of the same kind takes its place, so that batches keep
    their size and processes that gather each other's embeddings keep in step.

    Attributes:
        tables: the original data set.
        image_root: folder of its images.
        captions: `[P]` caption rows of the original pairs.
        synthetic: the synthetic set, None where S is 0.
        chosen: `[S]` its rows.
        processor: preprocessing of the backbone.
        reader: reads the pictures.
        seed: seeds the augmentation.
    """

    tables: Tables
    image_root: Path
    captions: NDArray[np.int64]
    synthetic: SyntheticSet | None
    chosen: NDArray[np.int64]
    processor: Processor
    reader: Reader
    seed: int

    def __len__(self) -> int:
        return len(self.captions) + len(self.chosen)

    @property
    def image_ids(self) -> NDArray[np.int64]:
        """`[P + S]` ids of the pictures."""
        originals = self.tables.image_ids[self.tables.caption_images[self.captions]]
        return originals if self.synthetic is None else np.append(originals, self.synthetic.image_ids[self.chosen])

    def __getitem__(self, item: tuple[int, int]) -> Sample:
        batch, wanted = item
        for row in self._substitutes(wanted):
            image = self.reader.read(*self._image(row))
            if image is not None:
                with seeded(self.seed, batch, wanted):
                    return row, self.processor.train_image(image)
            if self.reader.exceeded:
                break
        return wanted, None

    def _substitutes(self, wanted: int) -> Iterator[int]:
        """Yield the row, then those after it, round to it again, among the pairs of its kind."""
        originals = len(self.captions)
        first, count = (0, originals) if wanted < originals else (originals, len(self.chosen))
        yield from (first + (wanted - first + step) % count for step in range(count))

    def _image(self, row: int) -> tuple[Path, int]:
        if row < len(self.captions):
            image = int(self.tables.caption_images[self.captions[row]])
            return self.image_root / self.tables.files[image], int(self.tables.image_ids[image])
        if self.synthetic is None:
            raise IndexError(row)
        chosen = self.chosen[row - len(self.captions)]
        return self.synthetic.path(chosen), int(self.synthetic.image_ids[chosen])

    def columns(self, rows: NDArray[np.int64]) -> dict[str, Any]:
        """Return ids and tokens of these pairs; the captions are tokenized together."""
        original = rows < len(self.captions)
        captions = self.captions[rows[original]]
        images = self.tables.image_ids[self.tables.caption_images[captions]]
        caption_ids = self.tables.caption_ids[captions]
        ids = np.stack([images, caption_ids, images, caption_ids])
        texts = self.tables.texts.take(captions)
        if self.synthetic is not None:
            chosen, own = self.chosen[rows[~original] - len(self.captions)], self.synthetic
            sources = own.source_image_ids[chosen], own.source_caption_ids[chosen]
            ids = np.hstack([ids, [own.image_ids[chosen], own.caption_ids[chosen], *sources]])
            texts += own.texts.take(chosen)
        order = np.argsort(np.argsort(~original, kind="stable"))
        tokens = self.processor.tokenize([texts[place] for place in order])
        return _ids(ids[:, order], ~original) | {"tokens": tokens}


@dataclass
class OriginalImages(RetrievalDataset):
    """Original images of an evaluated split.

    Attributes:
        tables: the data set.
        image_root: folder of its images.
        images: `[N]` image rows.
        processor: preprocessing of the backbone.
        reader: reads the pictures.
        folds: `[N]` fold of each image, -1 for none; None where no folds are asked for.
    """

    tables: Tables
    image_root: Path
    images: NDArray[np.int64]
    processor: Processor
    reader: Reader
    folds: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_ids(self) -> NDArray[np.int64]:
        """`[N]` ids of the pictures."""
        return self.tables.image_ids[self.images]

    def __getitem__(self, row: int) -> Sample:
        place = self.images[row]
        image = self.reader.read(self.image_root / self.tables.files[place], int(self.tables.image_ids[place]))
        return row, None if image is None else self.processor.eval_image(image)

    def columns(self, rows: NDArray[np.int64]) -> dict[str, Any]:
        """Return the ids and folds of these images."""
        ids = self.tables.image_ids[self.images[rows]]
        absent = np.full_like(ids, -1)
        folds = {} if self.folds is None else {"folds": torch.from_numpy(self.folds[rows])}
        return _ids(np.stack([ids, absent, ids, absent]), np.zeros(len(ids), dtype=bool)) | folds


@dataclass
class QueryImages(RetrievalDataset):
    """Counterfactual images of an evaluated split, with their removed and kept classes.

    Attributes:
        queries: the synthetic set of the split.
        processor: preprocessing of the backbone.
        reader: reads the pictures.
    """

    queries: SyntheticSet
    processor: Processor
    reader: Reader

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def image_ids(self) -> NDArray[np.int64]:
        """`[N]` ids of the pictures."""
        return self.queries.image_ids

    def __getitem__(self, row: int) -> Sample:
        image = self.reader.read(self.queries.path(row), int(self.queries.image_ids[row]))
        return row, None if image is None else self.processor.eval_image(image)

    def columns(self, rows: NDArray[np.int64]) -> dict[str, Any]:
        """Return the ids and classes of these queries."""
        own = self.queries
        sources = own.source_image_ids[rows], own.source_caption_ids[rows]
        ids = np.stack([own.image_ids[rows], own.caption_ids[rows], *sources])
        return _ids(ids, np.ones(len(rows), dtype=bool)) | {
            "removed": torch.from_numpy(own.removed[rows]),
            "kept": torch.from_numpy(own.kept[rows]),
        }


@dataclass
class Captions(RetrievalDataset):
    """Captions of a gallery.

    Attributes:
        tables: the data set, M captions.
        captions: `[G]` caption rows of the gallery.
        in_split: `[G]` bool, True where the caption belongs to the evaluated split.
        mentions: `[M, C]` bool, classes that each caption names, or None where no query asks for them. A matrix that
            is mapped from a file pickles as the name of the file.
        processor: preprocessing of the backbone.
    """

    tables: Tables
    captions: NDArray[np.int64]
    in_split: NDArray[np.bool_]
    mentions: NDArray[np.bool_] | None
    processor: Processor
    reader = None

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, row: int) -> Sample:
        return row, None

    def __getstate__(self) -> dict[str, Any]:
        mapped = isinstance(self.mentions, np.memmap) and self.mentions.filename
        return vars(self) | ({"mentions": Path(mapped)} if mapped else {})

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if isinstance(state["mentions"], Path):
            self.mentions = np.load(state["mentions"], mmap_mode="r")

    def collate(self, samples: Sequence[Sample]) -> RetrievalBatch:
        """Return the captions as one batch."""
        return RetrievalBatch(**self.columns(np.array([row for row, _ in samples], dtype=np.int64)))

    def columns(self, rows: NDArray[np.int64]) -> dict[str, Any]:
        """Return ids, tokens and classes of these captions."""
        captions = self.captions[rows]
        images = self.tables.image_ids[self.tables.caption_images[captions]]
        caption_ids = self.tables.caption_ids[captions]
        ids = np.stack([images, caption_ids, images, caption_ids])
        fields = _ids(ids, np.zeros(len(rows), dtype=bool))
        fields |= {"tokens": self.processor.tokenize(self.tables.texts.take(captions))}
        fields |= {"in_split": torch.from_numpy(self.in_split[rows])}
        if self.mentions is not None:
            fields |= {"mentions": torch.from_numpy(np.array(self.mentions[captions]))}
        return fields


def _ids(ids: NDArray[np.int64], synthetic: NDArray[np.bool_]) -> dict[str, Any]:
    """Return the fields that every batch has, from `[4, B]` ids of images, captions and their sources."""
    image_ids, caption_ids, source_ids, source_caption_ids = torch.from_numpy(ids)
    return {
        "image_ids": image_ids,
        "caption_ids": caption_ids,
        "source_ids": source_ids,
        "source_caption_ids": source_caption_ids,
        "synthetic": torch.from_numpy(synthetic),
    }

"""What single queries retrieved, as a table with pictures for Weights & Biases."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import UnreadableImageError

_SIDE = 256  # pixels; what is larger is made smaller


class Shown(Protocol):
    """The part of a data module that knows captions and images by their ids."""

    def texts_of(self, caption_ids: NDArray[np.int64]) -> list[str]:
        """Return captions."""

    def files_of(self, image_ids: NDArray[np.int64]) -> list[Path]:
        """Return files of images."""


class Retrieved(NamedTuple):
    """Counterfactual queries and the captions they retrieved, best first.

    Attributes:
        query_ids: `[Q]` int64, ids of the edited images.
        source_ids: `[Q]` int64, ids of the images that they were made from.
        removed: `[Q]` names of the classes that were taken out.
        caption_ids: `[Q, K]` int64, -1 where the gallery has no more.
        right: `[Q, K]` bool, whether the caption is relevant.
    """

    query_ids: NDArray[np.int64]
    source_ids: NDArray[np.int64]
    removed: Sequence[Sequence[str]]
    caption_ids: NDArray[np.int64]
    right: NDArray[np.bool_]

    def some(self, queries: int, captions: int) -> Retrieved:
        """Return so many queries, evenly spread, and so many of their captions; all where there are fewer.

        Example:
            >>> ids = np.arange(6)
            >>> found = Retrieved(ids, ids, [["dog"]] * 6, ids[:, None], ids[:, None] > 2)
            >>> found.some(3, 5).query_ids
            array([0, 2, 5])
        """
        count = len(self.query_ids)
        rows = np.linspace(0, count - 1, min(queries, count)).astype(np.int64)
        columns = slice(captions)
        return Retrieved(
            self.query_ids[rows],
            self.source_ids[rows],
            [self.removed[row] for row in rows],
            self.caption_ids[rows, columns],
            self.right[rows, columns],
        )

    def columns(self) -> list[str]:
        """Return the names of the columns of `rows`."""
        ranks = range(1, self.caption_ids.shape[1] + 1)
        marks = (name for rank in ranks for name in (f"caption {rank}", f"right {rank}"))
        return ["query id", "query image", "source image", "removed", *marks]

    def rows(self, data: Shown) -> list[list[Any]]:
        """Return a row per query: its id, both images as `wandb.Image`, what was removed, and each caption's verdict.

        An image that cannot be read is None, and so is a caption that is not there.

        Args:
            data: knows the captions and images.
        """
        pictures = [[_picture(file) for file in data.files_of(ids)] for ids in (self.query_ids, self.source_ids)]
        held = np.unique(self.caption_ids[self.caption_ids >= 0])
        texts = dict(zip(held.tolist(), data.texts_of(held), strict=True))
        named = map(", ".join, self.removed)
        fixed = zip(self.query_ids.tolist(), *pictures, named, strict=True)
        ranked = zip(self.caption_ids.tolist(), self.right.tolist(), strict=True)
        return [
            [*cells, *(cell for one, right in zip(*ranks, strict=True) for cell in _verdict(texts.get(one), right))]
            for cells, ranks in zip(fixed, ranked, strict=True)
        ]


def _verdict(text: str | None, right: bool) -> tuple[str | None, bool | None]:
    return text, None if text is None else right


def _picture(path: Path) -> Any:
    import wandb

    from datamodules.images import open_rgb

    with suppress(UnreadableImageError):
        image = open_rgb(path)
        image.thumbnail((_SIDE, _SIDE))
        return wandb.Image(image)
    return None

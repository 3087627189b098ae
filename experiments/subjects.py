"""What maps are asked for: images, a text for each, and the region where what the text names is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from datamodules import RetrievalDataModule
from datamodules.errors import AnnotationError, ConfigError
from datamodules.group_table import SPLITS
from datamodules.grouped import GroupedDataModule
from datamodules.images import open_rgb
from datamodules.loaders import rows_of_splits
from lightning_modules.messages import a_few, near

if TYPE_CHECKING:
    from PIL import Image

    from experiments.options import Data


@dataclass(frozen=True)
class Subject:
    """One image and what is asked of it.

    Attributes:
        row: image row of the data set.
        image_id: its id.
        name: what it is counted under: the class that is asked for, or the group of the image.
        text: caption or name of the class.
        is_caption: whether the text is a caption, not to be put into a prompt.
        boxes: `[M, 4]` x, y, width, height in pixels of what the text names; None where a mask says it.
        mask: file of that mask; None where there is none.
    """

    row: int
    image_id: int
    name: str
    text: str
    is_caption: bool = False
    boxes: NDArray[np.float64] | None = None
    mask: Path | None = None

    def region(self, size: tuple[int, int]) -> Image.Image:
        """Return the region, white on black, black throughout where it is not known.

        Args:
            size: width and height of the image in pixels.

        Raises:
            UnreadableImageError: the mask cannot be read.
            AnnotationError: the mask is not of this size.
        """
        from PIL import Image, ImageDraw

        if self.mask is not None:
            mask = open_rgb(self.mask).convert("L")
            if mask.size != size:
                raise AnnotationError(f"Mask {self.mask} is {mask.size} pixels and its image {size}: replace the mask.")
            return mask.point(lambda level: 255 * level) if mask.getextrema() == (0, 1) else mask  # some save 0 and 1
        region = Image.new("L", size)
        pen = ImageDraw.Draw(region)
        for x, y, width, height in [] if self.boxes is None else self.boxes.tolist():
            pen.rectangle((x, y, x + max(width - 1, 0), y + max(height - 1, 0)), fill=255)
        return region


def choose(
    data: Data, split: str, classes: Sequence[str] | None, count: int, seed: int, captions: bool = False
) -> list[Subject]:
    """Draw subjects of a split, as evenly over classes or groups as there are images of them.

    Args:
        data: prepared.
        split: name of the split.
        classes: classes to ask for; None for all.
        count: how many subjects; all if there are fewer.
        seed: draws them.
        captions: whether to ask for the first caption of the image that names the class, in place of the class.

    Returns:
        Subjects in the order that they were drawn in, a class or group after the other in turn.

    Raises:
        ConfigError: the data have no such split or class, or no captions, or nothing to draw.
    """
    known = data.label_names if isinstance(data, GroupedDataModule) else data.tables.class_names
    wanted = class_indices(known, classes)
    if isinstance(data, RetrievalDataModule):
        found: _Boxes | _Groups = _Boxes(data, split, wanted, captions)
    elif captions:
        raise ConfigError("`--captions` asks for captions, but the images of `--data` have none; leave it out.")
    else:
        found = _Groups(data, split, wanted)
    if not len(found.kinds):
        named = ", with a caption that names it" if captions else ""
        raise ConfigError(
            f"No image of `--split` {split} shows what `--classes` asks for{named}; name another of either."
        )
    return [found.subject(int(place)) for place in _in_turn(found.kinds, seed)[:count]]


def class_indices(known: Sequence[str], wanted: Sequence[str] | None) -> NDArray[np.int64]:
    """Return the indices of classes among those that are known; all where none is named.

    Raises:
        ConfigError: one is unknown.

    Example:
        >>> class_indices(("dog", "frisbee"), ["frisbee"])
        array([1])
    """
    for name in wanted or ():
        if name not in known:
            hint = near(name, known, f"; the data have {a_few(known, 10)}.")
            raise ConfigError(f"`--classes` names {name!r}, which is no class of the data{hint}")
    return np.arange(len(known)) if wanted is None else np.array([known.index(name) for name in dict.fromkeys(wanted)])


def grouped_rows(data: GroupedDataModule, split: str) -> NDArray[np.int64]:
    """Return the image rows of a split.

    Raises:
        ConfigError: there is no such split, or it is empty.
    """
    if split not in SPLITS:
        raise ConfigError(f"`--split` is {split}; the splits of the data are {', '.join(SPLITS)}.")
    return data.table.rows(split)


class _Boxes:
    """Pairs of an image and a class that it shows, of data with boxes."""

    def __init__(self, data: RetrievalDataModule, split: str, classes: NDArray[np.int64], captions: bool) -> None:
        self.data, tables = data, data.tables
        inside = np.isin(tables.object_images, rows_of_splits(tables, "--split", split))
        inside &= np.isin(tables.categories, classes)
        places = np.stack([tables.object_images[inside], tables.categories[inside]], axis=1)
        pairs = np.unique(places, axis=0).reshape(-1, 2)
        self.mentions = data.mentions() if captions else None
        if captions:
            pairs = np.array([pair for pair in pairs.tolist() if len(self._captions(*pair))]).reshape(-1, 2)
        self.rows, self.kinds = pairs.T

    def _captions(self, row: int, kind: int) -> NDArray[np.int64]:
        """Return the captions of an image that name a class."""
        start, end = self.data.tables.caption_offsets[row : row + 2]
        return np.arange(start, end)[self.mentions[start:end, kind]] if self.mentions is not None else np.arange(0)

    def subject(self, place: int) -> Subject:
        tables, row, kind = self.data.tables, int(self.rows[place]), int(self.kinds[place])
        objects = slice(*tables.object_offsets[row : row + 2].tolist())
        boxes = tables.boxes[objects][tables.categories[objects] == kind]
        name = tables.class_names[kind]
        text = name if self.mentions is None else tables.texts[int(self._captions(row, kind)[0])]
        return Subject(row, int(tables.image_ids[row]), name, text, self.mentions is not None, boxes)


class _Groups:
    """Images of a grouped data set, each with its own class."""

    def __init__(self, data: GroupedDataModule, split: str, classes: NDArray[np.int64]) -> None:
        rows = grouped_rows(data, split)
        self.data, self.rows = data, rows[np.isin(data.table.labels[rows], classes)]
        self.kinds = data.table.groups[self.rows]

    def subject(self, place: int) -> Subject:
        data, row = self.data, int(self.rows[place])
        label, attribute = data.table.labels[row], data.table.attributes[row]
        name = f"{data.label_names[label]}-{data.attribute_names[attribute]}"
        return Subject(row, int(data.table.image_ids[row]), name, data.label_names[label], mask=data.mask_path(row))


def _in_turn(kinds: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return a random order of places in which the kinds take turns as long as each lasts."""
    order = np.random.default_rng(seed).permutation(len(kinds))
    shuffled = kinds[order]
    by_kind = np.argsort(shuffled, kind="stable")
    starts = np.searchsorted(shuffled[by_kind], shuffled[by_kind])
    turns = np.empty_like(order)
    turns[by_kind] = np.arange(len(order)) - starts
    return order[np.lexsort((shuffled, turns))]

"""Where the image files of a data set lie below its image root."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import MissingPathError

_TRIED = "filepath/filename, filename, train2017/ID.jpg, val2017/ID.jpg and ID.jpg with ID of 12 digits"


class Listing:
    """Answers whether files exist below a folder, from one listing of each subfolder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names: dict[str, frozenset[str]] = {}

    def __contains__(self, file: str) -> bool:
        folder, name = posixpath.split(file)
        if folder not in self._names:
            path = self._root / folder
            self._names[folder] = frozenset(os.listdir(path) if path.is_dir() else ())
        return name in self._names[folder]


def all_present(root: Path, files: Iterable[str]) -> bool:
    """Return whether all files, relative to `root`, exist."""
    listing = Listing(root)
    return all(file in listing for file in files)


def locate(root: Path, folders: Sequence[str], names: Sequence[str], image_ids: NDArray[np.int64]) -> list[str]:
    """Return the file of each image relative to `root`, in whichever of COCO's layouts is there.

    Karpathy's file speaks of the releases of 2014 (`val2014/COCO_val2014_000000000042.jpg`); those of 2017 have the
    same images under other names (`train2017/000000000042.jpg`), and people put either into one flat folder.

    Args:
        root: the image root.
        folders: N folders from the annotation file, "" where it has none.
        names: N file names from the annotation file.
        image_ids: `[N]` COCO ids.

    Raises:
        MissingPathError: images have no file; the text has their count, the first of them and what was tried.
    """
    listing = Listing(root)
    candidates = map(_candidates, folders, names, image_ids.tolist())
    files = [next((file for file in options if file in listing), None) for options in candidates]
    lost = [row for row, file in enumerate(files) if file is None]
    if lost:
        first = ", ".join(posixpath.join(folders[row], names[row]) for row in lost[:3])
        raise MissingPathError(
            f"{len(lost)} of {len(files)} images are not below {root.absolute()} (config key `image_root`), first "
            f"{first} (tried {_TRIED}): fetch them or set `image_root` to the folder that holds them."
        )
    return [file for file in files if file is not None]


def _candidates(folder: str, name: str, image_id: int) -> Iterator[str]:
    yield posixpath.join(folder, name)
    yield name
    for layout in ("train2017", "val2017", ""):
        yield posixpath.join(layout, f"{image_id:012d}.jpg")


def header_sizes(root: Path, files: Sequence[str]) -> NDArray[np.int32]:
    """Return `[N, 2]` width and height from the headers of the files, 0 where a header cannot be read.

    A file that is broken is not judged here: whoever loads its pixels counts and names it.
    """
    with ThreadPoolExecutor() as pool:
        sizes = list(pool.map(lambda file: _header_size(root / file), files))
    return np.array(sizes, np.int32).reshape(len(sizes), 2)


def _header_size(path: Path) -> tuple[int, int]:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, SyntaxError, Image.DecompressionBombError):
        return (0, 0)

"""From a folder of images with metadata.jsonl to tables, parsed once and then mapped."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.cache import cache_root, content_hash, hash_of
from datamodules.errors import AnnotationError
from datamodules.folder_lines import Line, metadata_files, read_lines
from datamodules.image_files import header_sizes
from datamodules.instances import fit_boxes, object_columns, read_instances
from datamodules.parsed_once import Columns, parsed_once
from datamodules.sources import existing_file, existing_folder, rows_of
from datamodules.tables import Tables

VERSION = 1
"""Changes whenever the same files would give other tables."""


def read_folder(
    root: Path,
    class_names: Sequence[str],
    shares: Mapping[str, float],
    split_seed: int = 0,
    instances: Path | None = None,
    cache_dir: Path | None = None,
) -> Tables:
    """Return the tables of a folder of images and captions.

    Images have the ids of their lines, or else count from 0; captions count from 0.

    Args:
        root: folder of the images, with metadata.jsonl in it or in the folders in it, see `folder_lines.read_lines`.
        class_names: names of the C classes; position = class index.
        shares: splits and their shares of the images, where the lines name no splits.
        split_seed: draws these.
        instances: COCO instances json with the boxes, whose `file_name` are those of the images below `root`; None
            where the lines have them, or nobody has.
        cache_dir: cache folder, see `cache.cache_root`.

    Raises:
        MissingPathError: a file, folder or image is not there.
        AnnotationError: a file is broken or contradicts itself, the class names or the other files.
        ConfigError: the cache folder cannot be written.
    """
    root, cache = existing_folder(root, "root").resolve(), cache_root(cache_dir)
    described = metadata_files(root)
    contents = [[str(path.relative_to(root)), content_hash(path, cache)] for path in described]
    boxes = None if instances is None else content_hash(existing_file(instances, "instances"), cache)
    fingerprint = hash_of("folder", VERSION, list(class_names), contents, boxes, dict(shares), split_seed)

    def parse() -> Columns:
        lines = read_lines(root, class_names)
        splits = [line.split or "" for line in lines]
        if not splits[0]:
            splits = drawn_splits([line.file for line in lines], shares, split_seed)
        return _columns(lines, splits, root, class_names, instances)

    return parsed_once(parse, cache, fingerprint, root, class_names)


def drawn_splits(files: Sequence[str], shares: Mapping[str, float], seed: int) -> list[str]:
    """Return the split of each image, drawn by its name and the seed alone: the order of the files does not matter.

    Args:
        files: N names.
        shares: splits and how many images each gets in proportion to the others.
        seed: draws them.

    Example:
        >>> drawn_splits(["a.jpg", "b.jpg", "c.jpg", "d.jpg"], {"train": 3, "test": 1}, seed=0)
        ['train', 'train', 'test', 'train']
    """
    order = np.argsort([hash_of(seed, file) for file in files])
    ends = np.cumsum(list(shares.values()))
    ends = np.round(ends * (len(files) / ends[-1]))
    codes = np.empty(len(files), np.int64)
    codes[order] = np.searchsorted(ends, np.arange(len(files)), side="right")
    names = list(shares)
    return [names[code] for code in codes]


def _columns(
    lines: Sequence[Line], splits: Sequence[str], root: Path, class_names: Sequence[str], instances: Path | None
) -> Columns:
    codes = {name: code for code, name in enumerate(dict.fromkeys(splits))}
    files = [line.file for line in lines]
    sizes = header_sizes(root, files)
    images = {
        "image_id": [row if line.image_id is None else line.image_id for row, line in enumerate(lines)],
        "file": files,
        "split": [codes[name] for name in splits],
        "width": sizes[:, 0],
        "height": sizes[:, 1],
    }
    texts = [text for line in lines for text in line.texts]
    captions = {
        "caption_id": np.arange(len(texts)),
        "image": np.repeat(np.arange(len(lines)), [len(line.texts) for line in lines]),
        "text": texts,
    }
    objects = _own_objects(lines, sizes) if instances is None else _given(lines, sizes, instances, class_names)
    return Columns(images, captions, objects, tuple(codes))


def _own_objects(lines: Sequence[Line], sizes: NDArray[np.int32]) -> Mapping[str, Any]:
    """Return the columns of the objects that the lines have."""
    rows = np.repeat(np.arange(len(lines)), [len(line.boxes) for line in lines])
    boxes = np.array([box for line in lines for box in line.boxes], np.float64).reshape(-1, 4)

    def bad(box: int, fault: str, count: int) -> AnnotationError:
        line, (width, height) = lines[rows[box]], sizes[rows[box]]
        return AnnotationError(
            f"{line.where}: the `bbox` {boxes[box].tolist()} of {line.file} ({width} x {height}) {fault} ({count} such "
            "boxes): boxes are x, y, width, height in pixels, mend or remove it."
        )

    return {
        "image": rows,
        "category": [category for line in lines for category in line.categories],
        "box": fit_boxes(boxes, sizes[rows], bad),
        "crowd": np.zeros(len(rows), np.uint8),
        "segmentation": [""] * len(rows),
    }


def _given(
    lines: Sequence[Line], sizes: NDArray[np.int32], path: Path, class_names: Sequence[str]
) -> Mapping[str, Any]:
    """Return the columns of the objects of an instances file, whose images are found by their names."""
    if twice := next((line for line in lines if line.annotated), None):
        raise AnnotationError(
            f"{twice.where} has `objects`, but `instances` gives the boxes: remove them there, or leave that key out."
        )
    found = read_instances([path], class_names)
    row_of = {line.file: row for row, line in enumerate(lines)}
    rows = np.array([row_of.get(posixpath.normpath(file), -1) for file in found.files], np.int64)
    if not (rows >= 0).any():
        named = f"whose first is {found.files[0]!r}" if len(found.files) else "of which there are none"
        raise AnnotationError(
            f"{path.absolute()} (config key `instances`) names none of the images of metadata.jsonl, such as "
            f"{lines[0].file}, by its `file_name`, {named}: name them below the folder `root`."
        )
    return object_columns(found, rows[rows_of(found.image_ids, found.object_image_ids)], sizes)

"""From a Karpathy json, COCO instances files and a folder of images to tables, parsed once and then mapped."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.cache import cache_root, content_hash, hash_of
from datamodules.errors import AnnotationError
from datamodules.image_files import header_sizes, locate
from datamodules.instances import InstanceColumns, object_columns, read_instances
from datamodules.karpathy import KarpathyColumns, read_karpathy
from datamodules.parsed_once import Columns, parsed_once
from datamodules.sources import existing_file, existing_folder, rows_of
from datamodules.tables import Tables

VERSION = 1
"""Changes whenever the same files would give other tables."""


def read_coco(
    karpathy: Path,
    instances: Sequence[Path],
    image_root: Path,
    class_names: Sequence[str],
    cache_dir: Path | None = None,
    *,
    check_files: bool = True,
) -> Tables:
    """Return the tables of a data set in COCO and Karpathy format.

    The first call parses (minutes for all of COCO) and writes the tables below the cache folder, under a name that is
    the hash of the files' content, the class names and `VERSION`; later calls map them.

    Args:
        karpathy: json in the layout of `dataset_coco.json`: images, splits and captions.
        instances: COCO instances jsons, all of whose images may be more or fewer than Karpathy's; none for a set of
            captions without objects.
        image_root: folder of the images in one of the layouts of `image_files.locate`.
        class_names: names of the C classes; position = class index.
        cache_dir: cache folder, see `cache.cache_root`.
        check_files: find each image on disk. Without it `files` is what the json says, and sizes that the jsons do
            not give are 0.

    Raises:
        MissingPathError: a file, folder or image is not there.
        AnnotationError: a file is broken or contradicts itself, the class names or the other files.
        ConfigError: the cache folder cannot be written.
    """
    sources = [existing_file(karpathy, "karpathy"), *(existing_file(path, "instances") for path in instances)]
    root = existing_folder(image_root, "image_root").resolve() if check_files else None
    cache = cache_root(cache_dir)
    fingerprint = hash_of(VERSION, list(class_names), [content_hash(path, cache) for path in sources])
    return parsed_once(lambda: _parse(karpathy, instances, root, class_names), cache, fingerprint, root, class_names)


def _parse(karpathy: Path, instances: Sequence[Path], root: Path | None, class_names: Sequence[str]) -> Columns:
    read = read_karpathy(karpathy, coco_ids=bool(instances))
    files = list(map(posixpath.join, read.folders, read.names))
    if root is not None:
        files = locate(root, read.folders, read.names, read.image_ids)
    sizes, objects = np.zeros((len(files), 2), np.int32), _NO_OBJECTS
    if instances:
        boxes = read_instances(instances, class_names)
        sizes = _sizes(read, boxes)
    unknown = np.flatnonzero(sizes[:, 0] == 0)
    if root is not None and len(unknown):
        sizes[unknown] = header_sizes(root, [files[row] for row in unknown])
    if instances:
        objects = object_columns(boxes, rows_of(read.image_ids, boxes.object_image_ids), sizes)
    images = {"image_id": read.image_ids, "file": files, "split": read.split_codes}
    captions = {"caption_id": read.caption_ids, "image": read.caption_images, "text": read.texts}
    return Columns(images | {"width": sizes[:, 0], "height": sizes[:, 1]}, captions, objects, read.splits)


_NO_OBJECTS: Mapping[str, Any] = {"image": [], "category": [], "box": [], "crowd": [], "segmentation": []}


def _sizes(read: KarpathyColumns, instances: InstanceColumns) -> NDArray[np.int32]:
    """Return `[N, 2]` width and height of Karpathy's images, 0 where the instances files give none."""
    rows = rows_of(instances.image_ids, read.image_ids)
    for code, split in enumerate(read.splits):
        members = read.split_codes == code
        if not (rows[members] >= 0).any():
            files = ", ".join(str(path.absolute()) for path in instances.paths)
            raise AnnotationError(
                f"None of the {members.sum()} images of split {split!r} (first id {read.image_ids[members][0]}) is in "
                f"the instances files {files}: add the file that holds them to the config key `instances`."
            )
    return np.where(rows[:, None] >= 0, instances.sizes[rows], 0)

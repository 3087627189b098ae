"""Boxes and classes from COCO instances files."""

from __future__ import annotations

import contextlib
import difflib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import AnnotationError
from datamodules.sources import column, integers, parsing, require_unique, rows_of

TOLERANCE = 1.0
"""Pixels by which a box may stick out of its image; it is cut at the border."""


@dataclass(frozen=True)
class InstanceColumns:
    """I images and O objects of one or several files.

    Attributes:
        paths: the files.
        image_ids: `[I]` ids.
        sizes: `[I, 2]` width and height in pixels, 0 where the file gives none.
        files: I file names, "" where the file gives none.
        annotation_ids: `[O]` ids, unique.
        object_image_ids: `[O]` id of the image.
        categories: `[O]` class index.
        boxes: `[O, 4]` float64, x, y, width, height in pixels as in the file.
        crowds: `[O]` 1 for a crowd region, else 0.
        segmentations: O polygons or run lengths as JSON, "" where there is none.
        origins: `[O]` index into `paths`.
    """

    paths: tuple[Path, ...]
    image_ids: NDArray[np.int64]
    sizes: NDArray[np.int32]
    files: NDArray[np.object_]
    annotation_ids: NDArray[np.int64]
    object_image_ids: NDArray[np.int64]
    categories: NDArray[np.int16]
    boxes: NDArray[np.float64]
    crowds: NDArray[np.uint8]
    segmentations: NDArray[np.object_]
    origins: NDArray[np.int16]


def read_instances(paths: Sequence[Path], class_names: Sequence[str]) -> InstanceColumns:
    """Read and merge instances files; COCO's category ids become class indices by name.

    Args:
        paths: one or several jsons, such as those of train2014 and val2014.
        class_names: names of the C classes.

    Raises:
        AnnotationError: a json is broken, of another layout, names an unknown class, refers to what it does not
            hold, or repeats an annotation of another file.
    """
    parts = [_read_file(path, class_names, origin) for origin, path in enumerate(paths)]
    merged = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    files = " and ".join(str(path.absolute()) for path in paths)
    require_unique(merged["annotation_ids"], f"{files}: annotation id")
    return InstanceColumns(paths=tuple(paths), **merged)


def _read_file(path: Path, class_names: Sequence[str], origin: int) -> dict[str, NDArray[Any]]:
    data = _load(path)
    annotations, images = data["annotations"], data["images"]
    annotation, image = f"{path.absolute()}: annotation", f"{path.absolute()}: image"
    ids = integers(column(annotations, "id", annotation), f"{annotation} ids")
    image_ids = integers(column(images, "id", image), f"{image} ids")
    object_image_ids = integers(column(annotations, "image_id", annotation), f"{annotation} image ids")
    _require_images(ids, object_image_ids, image_ids, path)
    return {
        "image_ids": image_ids,
        "sizes": _sizes(images, path),
        "files": np.array([str(entry.get("file_name") or "") for entry in images], object),
        "annotation_ids": ids,
        "object_image_ids": object_image_ids,
        "categories": _classes(annotations, _class_of_category(data["categories"], class_names, path), path),
        "boxes": _boxes(annotations, path),
        "crowds": np.array([bool(entry.get("iscrowd", 0)) for entry in annotations], np.uint8),
        "segmentations": np.array([_segmentation(entry) for entry in annotations], object),
        "origins": np.full(len(ids), origin, np.int16),
    }


def _load(path: Path) -> dict[str, Any]:
    from pycocotools.coco import COCO

    with parsing(path, "instances"), contextlib.redirect_stdout(io.StringIO()):
        try:
            data: dict[str, Any] = COCO(str(path)).dataset
        except (AssertionError, KeyError, TypeError, AttributeError) as error:
            raise _not_instances(path, f"its content does not fit ({type(error).__name__}: {error})") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(data.get(key), list):
            raise _not_instances(path, f"it has no list under the key `{key}`")
    return data


def _not_instances(path: Path, why: str) -> AnnotationError:
    return AnnotationError(
        f"{path.absolute()} (config key `instances`) is not a COCO instances file, {why}: expected is "
        '{"images": [{"id", "width", "height"}], "annotations": [{"id", "image_id", "category_id", "bbox", '
        '"iscrowd"}], "categories": [{"id", "name"}]}.'
    )


def _require_images(
    ids: NDArray[np.int64], object_image_ids: NDArray[np.int64], image_ids: NDArray[np.int64], path: Path
) -> None:
    lost = np.flatnonzero(rows_of(image_ids, object_image_ids) < 0)
    if len(lost):
        raise AnnotationError(
            f"{path.absolute()}: annotation {ids[lost[0]]} belongs to image {object_image_ids[lost[0]]}, which "
            f"the list `images` does not hold ({len(lost)} such annotations): add the image or remove them."
        )


def _sizes(images: Sequence[Mapping[str, Any]], path: Path) -> NDArray[np.int32]:
    """Return `[I, 2]` width and height, 0 where one is not given."""
    sides = [integers([e.get(k) or 0 for e in images], f"{path.absolute()}: {k}s") for k in ("width", "height")]
    sizes = np.stack(sides, axis=1).clip(min=0).astype(np.int32)
    return np.where(sizes.all(axis=1, keepdims=True), sizes, 0)


def _class_of_category(
    categories: Sequence[Mapping[str, Any]], class_names: Sequence[str], path: Path
) -> dict[int, int]:
    index = {name: number for number, name in enumerate(class_names)}
    what = f"{path.absolute()}: category"
    names, ids = column(categories, "name", what), column(categories, "id", what)
    for name in names:
        if name not in index:
            raise unknown_class(what, name, class_names)
    return {number: index[name] for number, name in zip(ids, names, strict=True)}


def unknown_class(what: str, name: object, class_names: Sequence[str]) -> AnnotationError:
    """Return the error of a category that is no class.

    Args:
        what: file and place of the category.
        name: what it is called there.
        class_names: names of the C classes.
    """
    near = difflib.get_close_matches(str(name), class_names) or list(class_names)[:3]
    return AnnotationError(
        f"{what} {name!r} is none of the {len(class_names)} known classes (nearest: {', '.join(near)}): rename "
        "it in the file or use a phrase matcher that knows it."
    )


def _classes(annotations: Sequence[Mapping[str, Any]], class_of: Mapping[int, int], path: Path) -> NDArray[np.int16]:
    ids = column(annotations, "category_id", f"{path.absolute()}: annotation")
    classes = np.array([class_of.get(number, -1) for number in ids], np.int16)
    lost = np.flatnonzero(classes < 0)
    if len(lost):
        raise AnnotationError(
            f"{path.absolute()}: annotation {annotations[lost[0]]['id']} has the category id {ids[lost[0]]}, which the "
            f"list `categories` does not hold ({len(lost)} such annotations): add the category or remove them."
        )
    return classes


def _boxes(annotations: Sequence[Mapping[str, Any]], path: Path) -> NDArray[np.float64]:
    boxes = column(annotations, "bbox", f"{path.absolute()}: annotation")
    try:
        return np.array(boxes, np.float64).reshape(len(boxes), 4)
    except (TypeError, ValueError):
        odd = next(rank for rank, box in enumerate(boxes) if not is_box(box))
        raise AnnotationError(
            f"{path.absolute()}: annotation {annotations[odd]['id']} of image {annotations[odd]['image_id']} has the "
            f"`bbox` {boxes[odd]!r}, expected are four numbers (x, y, width, height): mend or remove it."
        ) from None


def is_box(box: Any) -> bool:
    """Return whether a value is a list of four numbers."""
    return isinstance(box, list) and len(box) == 4 and all(isinstance(side, int | float) for side in box)


def _segmentation(annotation: Mapping[str, Any]) -> str:
    outline = annotation.get("segmentation")
    return _COMPACT.encode(outline) if outline else ""


_COMPACT = json.JSONEncoder(separators=(",", ":"))


def object_columns(
    instances: InstanceColumns, image_rows: NDArray[np.int64], sizes: NDArray[np.int32]
) -> Mapping[str, Any]:
    """Return the columns of the objects as `Tables.write` takes them: grouped by image, else in the order of the files.

    Args:
        instances: O objects.
        image_rows: `[O]` row of the image of each, -1 for an object that is left out.
        sizes: `[N, 2]` width and height of the images, 0 where unknown (such a box is not cut).

    Raises:
        AnnotationError: a box cannot be one, see `fit_boxes`.
    """
    order = np.argsort(image_rows, kind="stable")
    order = order[np.searchsorted(image_rows[order], 0) :]
    rows = image_rows[order]

    def bad(box: int, fault: str, count: int) -> AnnotationError:
        return _bad_box(instances, int(order[box]), fault, sizes[rows[box]], count)

    return {
        "image": rows,
        "category": instances.categories[order],
        "box": fit_boxes(instances.boxes[order], sizes[rows], bad),
        "crowd": instances.crowds[order],
        "segmentation": instances.segmentations[order],
    }


def fit_boxes(
    boxes: NDArray[np.float64], sizes: NDArray[np.int32], bad: Callable[[int, str, int], AnnotationError]
) -> NDArray[np.float64]:
    """Return boxes cut at the border of their images.

    Args:
        boxes: `[P, 4]` float64, x, y, width, height in pixels.
        sizes: `[P, 2]` width and height of their images, 0 where unknown (such a box is not cut).
        bad: makes the error from the first row with a fault, the fault, and how many boxes have it.

    Returns:
        `[P, 4]` float64; boxes that lie inside are as they were to the last bit.

    Raises:
        AnnotationError: a box is not finite, has a negative side or sticks out by more than `TOLERANCE`.
    """
    limits = np.where(sizes > 0, sizes, np.inf)
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    faults = {
        "is not finite": ~np.isfinite(boxes),
        "has a negative side": boxes[:, 2:] < 0,
        "lies outside the image": (low < -TOLERANCE) | (high > limits + TOLERANCE),
    }
    for fault, found in faults.items():
        rows = np.flatnonzero(found.any(axis=1))
        if len(rows):
            raise bad(int(rows[0]), fault, len(rows))
    outside = ((low < 0) | (high > limits)).any(axis=1, keepdims=True)
    start, end = np.clip(low, 0, limits), np.clip(high, 0, limits)
    return np.where(outside, np.concatenate([start, end - start], axis=1), boxes)


def _bad_box(instances: InstanceColumns, row: int, fault: str, size: NDArray[np.int32], count: int) -> AnnotationError:
    return AnnotationError(
        f"{instances.paths[instances.origins[row]].absolute()}: the box {instances.boxes[row].tolist()} of annotation "
        f"{instances.annotation_ids[row]}, image {instances.object_image_ids[row]} ({size[0]} x {size[1]}), {fault} "
        f"({count} such boxes): boxes are x, y, width, height in pixels, mend or remove it."
    )

"""From what a detector found in images to the content of a COCO instances file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import UnreadableImageError
from synth.detection.photos import Photo, Read
from synth.detectors import Detections, Detector
from synth.fills import Pixels

Record: TypeAlias = dict[str, Any]
_COLUMNS = ("boxes", "classes", "scores")


def record(detector: Detector, batch: Sequence[Photo], read: Sequence[Read], class_of: NDArray[np.int64]) -> Record:
    """Return what is found in a batch.

    Args:
        detector: finds it.
        batch: the images.
        read: their pixels, or why they cannot be read.
        class_of: `[L]` class index of each label of the detector, -1 for a label that is no class.

    Returns:
        As JSON: `images` with their boxes as x1, y1, x2, y2, classes and scores, best first; `unknown`, how many boxes
        each label without a class had; `unreadable`, errors by file.
    """
    seen = [(photo, image) for photo, image in zip(batch, read, strict=True) if isinstance(image, np.ndarray)]
    found = detector.detect([image for _, image in seen]) if seen else []
    labels, unknown = detector.labels, Counter[str]()
    for each in found:
        unknown.update(labels[number] for number in each.classes[class_of[each.classes] < 0])
    return {
        "images": [_image(*pair, each, class_of) for pair, each in zip(seen, found, strict=True)],
        "unknown": unknown,
        "unreadable": {p.file: str(e) for p, e in zip(batch, read, strict=True) if isinstance(e, UnreadableImageError)},
    }


def _image(photo: Photo, image: Pixels, found: Detections, class_of: NDArray[np.int64]) -> Record:
    """Return an image with its boxes, cut at the border and rounded; those of no area or of no class are left out."""
    height, width = image.shape[:2]
    boxes = np.clip(found.boxes.astype(np.float64), 0, [width, height, width, height]).round(2)
    classes = class_of[found.classes]
    good = np.flatnonzero((classes >= 0) & (boxes[:, 2:] > boxes[:, :2]).all(1))
    order = good[np.argsort(-found.scores[good], kind="stable")]
    return {
        "id": photo.image_id,
        "file_name": photo.file,
        "width": width,
        "height": height,
        "boxes": boxes[order].tolist(),
        "classes": classes[order].tolist(),
        "scores": found.scores[order].astype(np.float64).round(4).tolist(),
    }


def instances(class_names: Sequence[str], made_with: dict[str, Any], records: Sequence[Record]) -> dict[str, Any]:
    """Return the content of the instances file.

    Args:
        class_names: names of the classes; position + 1 = category id.
        made_with: what the boxes depend on.
        records: what `record` gave for each batch, in order.
    """
    images = [image for record in records for image in record["images"]]
    found = [(image["id"], *each) for image in images for each in zip(*map(image.get, _COLUMNS), strict=True)]
    unknown = sum((Counter(record["unknown"]) for record in records), Counter[str]())
    return {
        "info": {
            "description": "Boxes that a detector found",
            "made_with": made_with,
            "unreadable": [file for record in records for file in record["unreadable"]],
            "unknown_labels": dict(unknown.most_common()),
        },
        "images": [{key: value for key, value in image.items() if key not in _COLUMNS} for image in images],
        "categories": [{"id": number, "name": name} for number, name in enumerate(class_names, 1)],
        "annotations": [_annotation(number, *each) for number, each in enumerate(found, 1)],
    }


def _annotation(number: int, image: int, box: Sequence[float], category: int, score: float) -> dict[str, Any]:
    left, top, right, bottom = box
    width, height = round(right - left, 2), round(bottom - top, 2)
    return {
        "id": number,
        "image_id": image,
        "category_id": category + 1,
        "bbox": [left, top, width, height],
        "area": round(width * height, 2),
        "iscrowd": 0,
        "segmentation": [],
        "score": score,
    }

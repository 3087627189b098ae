"""YOLOX (Ge et al. 2021, arXiv 2107.08430) from an ONNX file, run by OpenCV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import ConfigError, MissingPathError
from synth.detectors.base import Detections, Detector, check_share
from synth.weights import content

if TYPE_CHECKING:
    from synth.fills import Pixels

_STRIDES = (8, 16, 32)
_MARGIN = 114
"""Grey value of the canvas beside the image, as in training."""


def _coco() -> list[str]:
    from datamodules.phrases import CocoMatcher

    return list(CocoMatcher().class_names)


@dataclass
class YoloxDetector(Detector):
    """YOLOX of any size, as its authors' `tools/export_onnx.py` writes it without `--decode_in_inference`.

    The file must take `[1, 3, size, size]` float32 in BGR from 0 to 255 and return `[1, cells, 5 + L]`: the cells of
    strides 8, 16 and 32 row by row, and for each the offset of its box's centre, the logarithm of its sides, its
    objectness and its L class scores after the sigmoid. It runs on the CPU, one image at a time, on all of OpenCV's
    threads; what it finds does not depend on their number.

    Attributes:
        path: the ONNX file.
        size: side in pixels of the square canvas that an image is scaled to, a multiple of 32.
        score_threshold: boxes are dropped whose score, objectness times class score, is not above it.
        nms_threshold: of two boxes of one class that overlap by more than this IoU, the better one stays.
        classes: names of the L classes; the 80 of COCO by default.

    Raises:
        MissingPathError: if there is no such file.
        ConfigError: if a number cannot work.
    """

    path: Path
    size: int = 416
    score_threshold: float = 0.3
    nms_threshold: float = 0.45
    classes: list[str] = field(default_factory=_coco)

    def __post_init__(self) -> None:
        check_share(self, "score_threshold", "nms_threshold")
        if self.size < 32 or self.size % 32:
            raise ConfigError(f"`size` of YoloxDetector is {self.size}; give a positive multiple of 32.")
        if not Path(self.path).is_file():
            raise MissingPathError(f"`path` of YoloxDetector is {self.path}, which is no file; mend the path.")
        self._network: Any = None

    @property
    def labels(self) -> Sequence[str]:
        """Names of the L classes."""
        return self.classes

    def identity(self) -> dict[str, Any]:
        """Return the options, with the content of the file in place of its path."""
        return {**super().identity(), "path": content(self.path), "classes": ", ".join(self.labels)}

    def load(self) -> None:
        """Load the network, if that is still to be done.

        Raises:
            ConfigError: if the file is no ONNX model, or none of YOLOX with these classes.
        """
        import cv2

        if self._network is not None:
            return
        try:
            self._network = cv2.dnn.readNetFromONNX(str(self.path))
            shape = self._forward(np.zeros((self.size, self.size, 3), np.uint8)).shape
        except cv2.error as error:
            reason = str(error).strip().splitlines()[0]
            raise ConfigError(
                f"`path` of YoloxDetector, {self.path}, is no ONNX file that OpenCV runs on {self.size} x {self.size} "
                f"pixels ({reason}); name another file, or the `size` that it was exported with."
            ) from error
        cells = sum((self.size // stride) ** 2 for stride in _STRIDES)
        if shape != (cells, 5 + len(self.labels)):
            raise ConfigError(
                f"`path` of YoloxDetector, {self.path}, gives {list(shape)} values for `size` {self.size}, but YOLOX "
                f"with {len(self.labels)} classes gives {[cells, 5 + len(self.labels)]}; mend `classes` or `size`, or "
                "name another file."
            )

    def detect(self, images: Sequence[Pixels]) -> list[Detections]:
        """Return the objects of each image, best first."""
        self.load()
        return [self._one(image) for image in images]

    def _one(self, image: Pixels) -> Detections:
        canvas, scale = letterboxed(image, self.size)
        boxes, scores = decoded(self._forward(canvas), self.size)
        classes = scores.argmax(1)
        best = np.take_along_axis(scores, classes[:, None], 1)[:, 0]
        found = best > self.score_threshold
        boxes, classes, best = boxes[found] / scale, classes[found], best[found]
        kept = suppressed(boxes, classes, best, self.nms_threshold)
        return Detections(boxes[kept], classes[kept], best[kept])

    def _forward(self, canvas: Pixels) -> NDArray[np.float32]:
        """Return the network's answer `[cells, 5 + L]` to a canvas."""
        blob = np.ascontiguousarray(canvas[..., ::-1].transpose(2, 0, 1)[None], np.float32)
        self._network.setInput(blob)
        answer: NDArray[np.float32] = self._network.forward()[0]
        return answer


def letterboxed(image: Pixels, size: int) -> tuple[Pixels, np.float32]:
    """Return the image in the upper left corner of a grey square, and by what it was scaled to fit.

    Example:
        >>> canvas, scale = letterboxed(np.zeros((50, 100, 3), np.uint8), 64)
        >>> canvas.shape, round(float(scale), 2), canvas[:, 0, 0].tolist().count(0)
        ((64, 64, 3), 0.64, 32)
    """
    import cv2

    scale = min(size / side for side in image.shape[:2])
    height, width = (max(int(side * scale), 1) for side in image.shape[:2])
    canvas = np.full((size, size, 3), _MARGIN, np.uint8)
    canvas[:height, :width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return canvas, np.float32(scale)


def decoded(answer: NDArray[np.float32], size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return boxes `[cells, 4]`, x1, y1, x2, y2 on the canvas, and scores `[cells, L]` of a network's answer.

    Args:
        answer: `[cells, 5 + L]`, see `YoloxDetector`.
        size: side of the canvas.
    """
    sides = [size // stride for stride in _STRIDES]
    cells = np.concatenate([np.indices((side, side))[::-1].reshape(2, -1).T for side in sides])
    strides = np.repeat(_STRIDES, np.square(sides))[:, None].astype(np.float32)
    centres = (answer[:, :2] + cells.astype(np.float32)) * strides
    halves = np.exp(answer[:, 2:4]) * strides / 2
    return np.concatenate([centres - halves, centres + halves], 1), answer[:, 4:5] * answer[:, 5:]


def suppressed(
    boxes: NDArray[np.float32], classes: NDArray[np.int64], scores: NDArray[np.float32], threshold: float
) -> NDArray[np.int64]:
    """Return the rows of the boxes that no better one of their class covers by an IoU above a threshold, best first.

    Example:
        >>> boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 9]], np.float32)
        >>> suppressed(boxes, np.array([7, 7, 5]), np.array([0.8, 0.9, 0.3], np.float32), 0.5)
        array([1, 2])
    """
    import cv2

    corners_and_sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
    kept = cv2.dnn.NMSBoxesBatched(corners_and_sides.tolist(), scores.tolist(), classes.tolist(), 0.0, threshold)
    return np.asarray(kept, np.int64).reshape(-1)

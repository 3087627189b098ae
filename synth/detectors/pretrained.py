"""Object detectors of `transformers`: DETR, RT-DETR, YOLOS, ..."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from datamodules.errors import ConfigError
from synth.detectors.base import Detections, Detector, check_share
from synth.weights import check_model, check_trained, content, pretrained

if TYPE_CHECKING:
    import torch

    from synth.fills import Pixels

_WANTED = (
    "a folder with the model and its image processor, or the id of an object detection model on the Hugging Face hub"
)


@dataclass
class TransformersDetector(Detector):
    """Any object detection model of `transformers`.

    The model is loaded when it is first needed; files that are here are used without a look at the network. Images
    that its processor brings to one size go through it at once and are never padded, so that what is found in an image
    does not depend on its neighbours but for rounding.

    Attributes:
        model: a folder that `save_pretrained` wrote (model and image processor), or an id on the Hugging Face hub, such
            as `PekingU/rtdetr_r50vd`.
        threshold: boxes are dropped whose score is not above it.
        revision: branch, tag or commit of a model of the hub.
        device: where the model computes; `auto` is a GPU if there is one.

    Raises:
        MissingPathError: if `model` is a path, and nothing is there.
        ConfigError: if the threshold is not from 0 to 1.
    """

    model: str
    threshold: float = 0.5
    revision: str | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        check_share(self, "threshold")
        check_model(self.model, "TransformersDetector")
        self._parts: tuple[Any, Any] | None = None

    @property
    def labels(self) -> Sequence[str]:
        """Names of the model's classes, "" for a number without one."""
        names = self._loaded()[0].config.id2label
        return [names.get(number, "") for number in range(max(names) + 1)]

    def identity(self) -> dict[str, Any]:
        """Return the options but for `device`, with the content of the files of a folder in place of its path."""
        options = {key: value for key, value in super().identity().items() if key != "device"}
        return {**options, "model": content(self.model)}

    def load(self) -> None:
        """Load the model, if that is still to be done, and move it to its device.

        Raises:
            ConfigError: it cannot be loaded, or there is no such device.
        """
        self._loaded()

    def detect(self, images: Sequence[Pixels]) -> list[Detections]:
        """Return the objects of each image, in the order in which the model gives them."""
        from PIL import Image

        _, processor = self._loaded()
        alike: dict[tuple[int, ...], list[tuple[int, torch.Tensor]]] = defaultdict(list)
        for index, image in enumerate(images):
            pixels = processor(images=Image.fromarray(image), return_tensors="pt")["pixel_values"]
            alike[pixels.shape].append((index, pixels))
        found: dict[int, Detections] = {}
        for group in alike.values():
            indices = [index for index, _ in group]
            sizes = [images[index].shape[:2] for index in indices]
            found |= zip(indices, self._forward([pixels for _, pixels in group], sizes), strict=True)
        return [found[index] for index in range(len(images))]

    def _forward(self, pixels: Sequence[torch.Tensor], sizes: Sequence[tuple[int, ...]]) -> list[Detections]:
        import torch

        model, processor = self._loaded()
        try:
            with torch.inference_mode():
                answer = model(pixel_values=torch.cat(list(pixels)).to(model.device, model.dtype))
        except torch.OutOfMemoryError as error:
            raise ConfigError(f"The GPU has no memory for {len(pixels)} images at once; lower `batch_size`.") from error
        results = processor.post_process_object_detection(answer, self.threshold, target_sizes=list(sizes))
        return [_detections(result) for result in results]

    def _loaded(self) -> tuple[Any, Any]:
        """Return the model, on its device, and its image processor."""
        if self._parts is None:
            loaded = pretrained(self._load, self.model, "TransformersDetector", _WANTED)
            loaded[0].eval().to(_device(self.device))
            self._parts = loaded
        return self._parts

    def _load(self, local_files_only: bool) -> tuple[Any, Any]:
        from transformers import AutoImageProcessor, AutoModelForObjectDetection

        where: dict[str, Any] = {"local_files_only": local_files_only, "revision": self.revision}
        processor = AutoImageProcessor.from_pretrained(self.model, **where)  # type: ignore[no-untyped-call]
        model = AutoModelForObjectDetection.from_pretrained(self.model, **where)
        check_trained(model, self.model, "TransformersDetector", "detect objects")
        return model, processor


def _device(name: str) -> torch.device:
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        said = str(error).splitlines()[0].rstrip(".")
        raise ConfigError(
            f"`device` {name} of TransformersDetector cannot be used ({said}); give auto, cpu or a GPU that is there."
        ) from error


def _detections(result: dict[str, torch.Tensor]) -> Detections:
    boxes, classes, scores = (result[key].cpu().numpy() for key in ("boxes", "labels", "scores"))
    return Detections(boxes.astype(np.float32), classes.astype(np.int64), scores.astype(np.float32))

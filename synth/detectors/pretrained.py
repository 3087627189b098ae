"""Object detectors of `transformers`: DETR, RT-DETR, YOLOS, ..."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datamodules.errors import ConfigError, MissingPathError
from synth.detectors.base import Detections, Detector, check_share, digest

if TYPE_CHECKING:
    import torch

    from synth.fills import Pixels


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
        path_like = os.path.isabs(self.model) or self.model.startswith((".", "~")) or self.model.count("/") > 1
        if path_like and not Path(self.model).exists():
            raise MissingPathError(f"`model` of TransformersDetector is {self.model}, but nothing is there; mend it.")
        self._parts: tuple[Any, Any] | None = None

    @property
    def labels(self) -> Sequence[str]:
        """Names of the model's classes, "" for a number without one."""
        names = self._loaded()[0].config.id2label
        return [names.get(number, "") for number in range(max(names) + 1)]

    def identity(self) -> dict[str, Any]:
        """Return the options but for `device`, with the content of the files of a folder in place of its path."""
        options = {key: value for key, value in super().identity().items() if key != "device"}
        if not Path(self.model).is_dir():
            return options
        files = sorted(path for path in Path(self.model).iterdir() if path.suffix in (".json", ".safetensors", ".bin"))
        return {**options, "model": {path.name: digest(path) for path in files}}

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
        """Return the model and its image processor; the hub is asked only for what is not whole here."""
        if self._parts is None:
            try:
                self._parts = self._load(local_files_only=True)
            except ConfigError:
                if Path(self.model).exists():
                    raise
                self._parts = self._load(local_files_only=False)
            self._parts[0].eval().to(_device(self.device))
        return self._parts

    def _load(self, local_files_only: bool) -> tuple[Any, Any]:
        from safetensors import SafetensorError
        from transformers import AutoImageProcessor, AutoModelForObjectDetection

        where: dict[str, Any] = {"local_files_only": local_files_only, "revision": self.revision}
        try:
            processor = AutoImageProcessor.from_pretrained(self.model, **where)  # type: ignore[no-untyped-call]
            model = AutoModelForObjectDetection.from_pretrained(self.model, **where)
        except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            raise ConfigError(
                f"`model` {self.model} of TransformersDetector cannot be loaded ({reason}); give a folder with the "
                "model and its image processor, or the id of an object detection model on the Hugging Face hub."
            ) from error
        kinds, needed = model.config.architectures or [], type(model).__name__
        if kinds and needed not in kinds:
            raise ConfigError(
                f"`model` {self.model} of TransformersDetector holds a {kinds[0]}, which has no trained {needed}; give "
                "a model that was trained to detect objects."
            )
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

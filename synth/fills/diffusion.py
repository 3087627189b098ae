"""Any inpainting pipeline of the library `diffusers`, an optional extra."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np

from datamodules.errors import ConfigError
from synth.fills.masks import Mask, Pixels
from synth.fills.network import NetworkFill
from synth.weights import check_model, content, pretrained


@dataclass
class DiffusersFill(NetworkFill):
    """Inpainting by a diffusion model (package `diffusers`); slow, and apt to draw a new object into the hole.

    Every image starts from the same noise, so that it does not depend on the images before it.

    Attributes:
        model: id on the Hugging Face hub, or path of a local folder, of an inpainting pipeline; files that are here
            are used without a look at the network.
        prompt: what to draw into the hole; empty lets the surroundings decide.
        negative_prompt: what not to draw there; empty leaves it out.
        steps: number of denoising steps.
        guidance: weight of the prompt.
        seed: of the noise.
        dtype: precision of the computation.
        options: further arguments of the pipeline's call, such as `strength`.
        max_side: longest side in pixels that the network gets to see; near the size that it was trained at.
    """

    name: ClassVar[str] = "diffusers"
    multiple: ClassVar[int] = 64
    model: str
    prompt: str = ""
    negative_prompt: str = ""
    steps: int = 50
    guidance: float = 7.5
    seed: int = 0
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    options: dict[str, Any] = field(default_factory=dict)
    max_side: int = field(default=512, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise ConfigError(f"`steps` of DiffusersFill is {self.steps}; give 1 or more.")
        check_model(self.model, "DiffusersFill")

    def identity(self) -> dict[str, Any]:
        """Return the options that decide what is painted; of a folder, what its files and those of its parts hold."""
        return {**super().identity(), "model": content(self.model, "*", "*/*")}

    def load(self) -> Any:
        """Return the pipeline.

        Raises:
            ConfigError: if the package is missing, or the model cannot be had.
        """
        import torch

        try:
            from diffusers import AutoPipelineForInpainting
        except ImportError as error:
            raise ConfigError(
                f"`fill` is DiffusersFill, which needs the extra `diffusers` ({error}); "
                "run `pip install 'odmap[diffusers]'` or choose another fill."
            ) from error
        load = partial(AutoPipelineForInpainting.from_pretrained, self.model)
        pipeline = pretrained(load, self.model, "DiffusersFill", "the id or the folder of an inpainting pipeline")
        pipeline.set_progress_bar_config(disable=True)
        return pipeline.to(getattr(torch, self.dtype))

    def paint_batch(self, images: Pixels, masks: Mask) -> Pixels:
        """Return what the pipeline paints; an image that its safety checker blackens keeps the mean colour."""
        import torch
        from PIL import Image

        number, height, width = masks.shape
        negative = {"negative_prompt": [self.negative_prompt] * number} if self.negative_prompt else {}
        found = self.network(
            prompt=[self.prompt] * number,
            image=[Image.fromarray(image) for image in images],
            mask_image=[Image.fromarray(mask.astype(np.uint8) * 255) for mask in masks],
            height=height,
            width=width,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance,
            generator=[torch.Generator().manual_seed(self.seed) for _ in range(number)],
            output_type="np",
            **negative,
            **self.options,
        )
        painted: Pixels = np.rint(np.clip(found.images, 0, 1) * 255).astype(np.uint8)
        black = np.array(getattr(found, "nsfw_content_detected", None) or [False] * number, dtype=bool)
        if black.any():
            warnings.warn(f"The safety checker of {self.model} blackened {black.sum()} images.", stacklevel=2)
        return np.where(black[:, None, None, None], images, painted)

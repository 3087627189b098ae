"""Grad-CAM of the similarity between an image and a text, for convolutional networks and transformers alike.

The libraries at hand do not fit: captum's `LayerGradCam` takes the second axis for channels, which of a transformer are
its tokens, and the package `grad-cam` wants one layer named per architecture, moves every map through numpy, and brings
OpenCV, matplotlib and scikit-learn along. What is left of Grad-CAM once the layer is found is one line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from datamodules.errors import ConfigError
from lightning_modules.maps.grids import as_grid, as_maps
from lightning_modules.messages import near

_LOOKED_AT = 4  # images: the gradients of all layers at once take memory, and a single image may have none


class ImageEncoder(Protocol):
    """What maps ask of a model: an `nn.Module` with image embeddings, as every `RetrievalModule` is."""

    training: bool

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """Map images `[B, 3, H, W]` to unit rows `[B, D]`."""

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield all modules with their paths."""

    def train(self, mode: bool = True) -> Any:
        """Set the mode of the modules."""


def grad_cam(model: ImageEncoder, pixel_values: Tensor, texts: Tensor, layer: str | None = None) -> Tensor:
    """Return where each image speaks for its text: Grad-CAM of their cosine.

    Each channel of a layer is weighted by the mean of the cosine's gradient over all places; the weighted sum, as far
    as it is positive, is stretched to [0, 1] and resized to the image. It works whether or not weights are frozen.

    Source: Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
    equations 1 and 2, with the cosine as the score.

    Args:
        model: Encodes the images; it is put into evaluation mode for the time.
        pixel_values: `[B, 3, H, W]` as the model's processor makes them.
        texts: `[B, D]` embeddings of captions or class prompts, or `[D]` for one that belongs to all images.
        layer: Path of a module as `named_modules` has it, such as `model.visual.layer4`; None for the one that
            `find_layer` finds.

    Returns:
        `[B, H, W]` float32 from 0 to 1; 0 everywhere where no place speaks for the text.

    Raises:
        ConfigError: There is no such layer, or what it puts out is no grid over the image.

    Example:
        >>> class Mean(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.features = nn.Conv2d(3, 3, 1)
        ...     def encode_images(self, pixel_values):
        ...         return nn.functional.normalize(self.features(pixel_values).mean(dim=(2, 3)), dim=1)
        >>> maps = grad_cam(Mean(), torch.rand(2, 3, 8, 8), torch.eye(3)[:2])
        >>> maps.shape, maps.dtype
        (torch.Size([2, 8, 8]), torch.float32)
    """
    layer = find_layer(model, pixel_values, texts) if layer is None else layer
    activations, gradients = _at_layer(model, pixel_values, texts, layer)
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    height, width = pixel_values.shape[2:]
    return as_maps((weights * activations).sum(dim=1).relu(), height, width)


def find_layer(model: ImageEncoder, pixel_values: Tensor, texts: Tensor) -> str:
    """Return the path of the last layer whose places still speak for the text, each for itself.

    For a convolutional network that is its last feature map, `model.visual.layer4` of CLIP's ResNets. For a transformer
    that reads out its class token it is the first norm of the last block: later layers have patches, too, but those no
    longer reach the embedding. Layers are told by what they do, not by names: maps `[B, C, h, w]` or `[B, h, w, C]`
    with the proportions of the image, and tokens `[B, T, C]` of layers that keep the shape of what comes in.

    Args:
        model: Encodes the images; it is put into evaluation mode for the time.
        pixel_values: `[B, 3, H, W]`, of which the first 4 are looked at.
        texts: `[B, D]` or `[D]` embeddings.

    Raises:
        ConfigError: No layer puts out a grid over the image that the embedding depends on.
    """
    height, width = pixel_values.shape[2:] if pixel_values.ndim == 4 else (1, 1)
    few = pixel_values[:_LOOKED_AT], texts[:_LOOKED_AT] if texts.ndim == 2 else texts
    seen = _differentiate(model, *few, dict(model.named_modules()), _may_be_grid)
    for name, (_, gradients) in reversed(seen.items()):
        grid = as_grid(gradients, height, width)
        if grid is not None and grid.any():
            return name
    raise ConfigError(
        f"{type(model).__name__} has no layer whose output is a grid over the image, so there is nothing to map: "
        "it may take features in place of images; otherwise name a layer."
    )


def _at_layer(model: ImageEncoder, pixel_values: Tensor, texts: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    """Return what a layer puts out and the gradients there, `[B, C, h, w]` each."""
    modules = dict(model.named_modules())
    if layer not in modules:
        raise ConfigError(f"{type(model).__name__} has no layer {layer!r}{near(layer, list(modules), '.')}")
    seen = _differentiate(model, pixel_values, texts, {layer: modules[layer]})
    if layer not in seen:
        raise ConfigError(f"Layer {layer} is not called for images, or puts out no tensor: name another one.")
    height, width = pixel_values.shape[2:]
    activations, gradients = (as_grid(values.float(), height, width) for values in seen[layer])
    if activations is None or gradients is None:
        shape = list(seen[layer][0].shape)
        raise ConfigError(
            f"Layer {layer} puts out {shape}, which is no grid over images of {height} x {width}: name another one."
        )
    return activations, gradients


def _may_be_grid(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> bool:
    """Whether an output of the shape of a grid is one: attention weights, queries and keys can have that shape, too."""
    if output.ndim == 4:
        sums = output.sum(dim=-1)
        return not torch.allclose(sums, torch.ones_like(sums), atol=1e-2)
    is_leaf = next(module.children(), None) is None
    return is_leaf and bool(inputs) and isinstance(inputs[0], Tensor) and inputs[0].shape == output.shape


def _differentiate(
    model: ImageEncoder,
    pixel_values: Tensor,
    texts: Tensor,
    layers: dict[str, nn.Module],
    wanted: Callable[[nn.Module, tuple[Any, ...], Tensor], bool] = lambda *_: True,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return what layers put out and the gradient of the summed cosines there, by name, in the order of their calls."""
    seen: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor) and output.requires_grad and wanted(module, inputs, output):
                seen.pop(name, None)
                seen[name] = output

        return note

    hooks = [module.register_forward_hook(watch(name)) for name, module in layers.items()]
    try:
        with torch.enable_grad(), evaluating(model):
            images = model.encode_images(pixel_values.detach().requires_grad_())  # weights may be frozen
            score = (images * texts.detach().to(images)).sum()
    finally:
        for hook in hooks:
            hook.remove()
    outputs = list(seen.values())
    found = torch.autograd.grad(score, outputs, allow_unused=True, materialize_grads=True) if outputs else ()
    return {name: (output.detach(), grad) for (name, output), grad in zip(seen.items(), found, strict=True)}


@contextmanager
def evaluating(model: ImageEncoder) -> Iterator[None]:
    """Put a model into evaluation mode for the time."""
    mode = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(mode)

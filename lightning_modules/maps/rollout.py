"""Attention rollout: through which tokens of a vision transformer the picture reaches the embedding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from datamodules.errors import ConfigError
from lightning_modules.maps.grad_cam import ImageEncoder, evaluating
from lightning_modules.maps.grids import as_maps, grid_of

_SOFTMAX = (F.softmax, torch.softmax, Tensor.softmax)


def attention_rollout(model: ImageEncoder, pixel_values: Tensor) -> Tensor:
    """Return how much attention reaches the embedding from each place of an image, whatever the text.

    The attention of each block is averaged over its heads and mixed half and half with the identity, which stands for
    the residual connection; the product over all blocks is read at the class token. Where there is none, it is read at
    the query of the pooling attention that follows the blocks, or at the mean of all tokens.

    Rollout knows no text: it says where the image encoder looks for any caption. Compare `grad_cam`.

    Source: Abnar and Zuidema 2020, "Quantifying Attention Flow in Transformers", equation 1.

    Args:
        model: Encodes the images with self-attention, by `nn.MultiheadAttention`, `scaled_dot_product_attention` or a
            softmax over `[B, heads, T, T]`, as those of open_clip, timm and transformers do; it is put into evaluation
            mode for the time.
        pixel_values: `[B, 3, H, W]` as the model's processor makes them.

    Returns:
        `[B, H, W]` float32 from 0 to 1.

    Raises:
        ConfigError: The image encoder has no self-attention over a grid of patches, as a convolutional network.
    """
    height, width = pixel_values.shape[2:] if pixel_values.ndim == 4 else (1, 1)
    with torch.no_grad(), evaluating(model), _AttentionWatch() as watch:
        model.encode_images(pixel_values)
    flow, readout = _roll([one for one in watch.weights if len(one) == len(pixel_values)])
    grid = None if flow is None else grid_of(flow.shape[2], height, width)
    if flow is None or grid is None:
        raise ConfigError(
            f"The image encoder of {type(model).__name__} has no self-attention over patches, so there is no attention "
            "to roll out: take Grad-CAM."
        )
    patches = grid[0] * grid[1]
    if readout is None:
        readout = flow[:, :1] if patches < flow.shape[2] else flow.mean(dim=1, keepdim=True)
    return as_maps(readout[:, 0, -patches:].reshape(-1, *grid), height, width)


def _roll(attentions: list[Tensor]) -> tuple[Tensor | None, Tensor | None]:
    """Return the flow `[B, T, T]` through all blocks, and `[B, 1, T]` into a pooling query where one follows them."""
    flow: Tensor | None = None
    readout: Tensor | None = None
    for weights in attentions:
        queries, tokens = weights.shape[1:]
        if queries == tokens and (flow is None or flow.shape[1] == tokens):
            mixed = 0.5 * weights + 0.5 * torch.eye(tokens, device=weights.device)
            flow, readout = (mixed if flow is None else mixed @ flow), None
        elif queries == 1 and flow is not None and flow.shape[1] == tokens:
            readout = weights @ flow
    return flow, readout


class _AttentionWatch(TorchFunctionMode):
    """Collects the attention weights `[B, Q, T]` of every attention that runs meanwhile, averaged over its heads."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward:
            output, weights = func(*args, **{**kwargs, "need_weights": True, "average_attn_weights": True})
            self.weights.append(weights.float())
            return output, weights
        if func is F.scaled_dot_product_attention:
            self.weights.append(_attention_weights(*args, **kwargs))
        output = func(*args, **kwargs)
        if func in _SOFTMAX and output.ndim == 4:
            self.weights.append(output.float().mean(dim=1))
        return output


def _attention_weights(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Attend to the rows of the identity: what comes out are the weights, whatever masks and scales there are."""
    identity = torch.eye(key.shape[-2], dtype=value.dtype, device=value.device).expand(*value.shape[:-1], -1)
    weights = F.scaled_dot_product_attention(query, key, identity, *args, **kwargs)
    return weights.float().mean(dim=-3)

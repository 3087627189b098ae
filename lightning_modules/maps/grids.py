"""From what a layer puts out to a picture: tokens and channels as grids, grids as maps of the input's size."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def grid_of(count: int, height: int, width: int) -> tuple[int, int] | None:
    """Return rows and columns of the largest grid with the proportions of an image that a number of tokens can hold.

    What is left over are prefix tokens: the class token, and registers where there are any.

    Args:
        count: Number of tokens.
        height: Of the image, in pixels.
        width: Of the image, in pixels.

    Returns:
        Rows and columns, more than one position in all; None where there is no such grid.

    Example:
        >>> grid_of(50, 224, 224), grid_of(201, 224, 224), grid_of(9, 32, 64), grid_of(1, 224, 224)
        ((7, 7), (14, 14), (2, 4), None)
    """
    rows = next((rows for rows in range(count, 0, -1) if rows * _columns(rows, height, width) <= count), 0)
    columns = _columns(rows, height, width)
    return (rows, columns) if rows * columns > 1 else None


def as_grid(activations: Tensor, height: int, width: int) -> Tensor | None:
    """View what a layer puts out as a grid of channels over an image.

    Args:
        activations: `[B, C, h, w]` or `[B, h, w, C]` with the proportions of the image, or tokens `[B, T, C]`.
        height: Of the image, in pixels.
        width: Of the image, in pixels.

    Returns:
        `[B, C, h, w]`, without the prefix tokens, or None where the shape is that of no grid.

    Example:
        >>> import torch
        >>> as_grid(torch.ones(2, 17, 8), 64, 64).shape
        torch.Size([2, 8, 4, 4])
    """
    if activations.ndim == 4:
        for channels_first in (activations, activations.permute(0, 3, 1, 2)):
            rows, columns = channels_first.shape[2:]
            if rows * columns > 1 and columns == _columns(rows, height, width):
                return channels_first
    if activations.ndim == 3 and (grid := grid_of(activations.shape[1], height, width)):
        patches = activations[:, -grid[0] * grid[1] :]
        return patches.transpose(1, 2).reshape(len(patches), -1, *grid)
    return None


def as_maps(grids: Tensor, height: int, width: int) -> Tensor:
    """Stretch every grid to [0, 1] and resize it bilinearly to its image.

    Args:
        grids: `[B, h, w]` floating point.
        height: Of the image, in pixels.
        width: Of the image, in pixels.

    Returns:
        `[B, height, width]` float32; 0 everywhere where a grid is the same everywhere.

    Example:
        >>> import torch
        >>> as_maps(torch.tensor([[[1.0, 3.0]], [[2.0, 2.0]]]), 1, 4)
        tensor([[[0.0000, 0.2500, 0.7500, 1.0000]],
                [[0.0000, 0.0000, 0.0000, 0.0000]]])
    """
    grids = grids.float()
    above = grids - grids.amin(dim=(1, 2), keepdim=True)
    highest = above.amax(dim=(1, 2), keepdim=True)
    stretched = above / highest.where(highest > 0, 1)
    return F.interpolate(stretched[:, None], (height, width), mode="bilinear", align_corners=False)[:, 0]


def _columns(rows: int, height: int, width: int) -> int:
    return round(rows * width / height)

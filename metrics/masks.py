"""Class masks as bits: packed into words, so that equal rows are found by comparing a few integers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad


def pack_bits(mask: Tensor) -> Tensor:
    """Pack the columns of a class mask into 64-bit words; rows are equal where their words are.

    Args:
        mask: `[N, C]` bool.

    Returns:
        `[N, ceil(C / 64)]` int64.

    Example:
        >>> import torch
        >>> pack_bits(torch.tensor([[True, False, True], [False, True, False]]))
        tensor([[5],
                [2]])
    """
    rows, classes = mask.shape
    columns = pad(mask, (0, -classes % 64)).view(torch.uint8)
    octets = torch.zeros(rows, columns.shape[1] // 8, dtype=torch.uint8, device=mask.device)
    for bit in range(8):
        octets |= columns[:, bit::8] << bit
    return octets.view(torch.int64)

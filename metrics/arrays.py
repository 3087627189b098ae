"""Turns what callers hold into numpy arrays, without importing torch for those who hold no tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from torch import Tensor

Values: TypeAlias = "ArrayLike | Tensor"


def as_array(values: Values) -> NDArray[Any]:
    """Return an array of any array-like, or of a tensor on any device.

    Args:
        values: Any shape; bfloat16 and float16 tensors become float32, since numpy has no bfloat16.

    Returns:
        The same shape, and the same dtype otherwise.

    Example:
        >>> import torch
        >>> as_array(torch.ones(2, dtype=torch.bfloat16, requires_grad=True))
        array([1., 1.], dtype=float32)
    """
    if hasattr(values, "detach"):
        tensor: Any = values.detach().cpu()
        values = tensor.float() if tensor.is_floating_point() and tensor.element_size() < 4 else tensor
    return np.asarray(values)

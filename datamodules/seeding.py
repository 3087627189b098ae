"""Random numbers of a sample that depend on nothing but its key."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Seed torch's CPU, numpy's and Python's global generators from the key, and restore them afterwards.

    Example:
        >>> with seeded(0, 3, 17):
        ...     first = torch.rand(1)
        >>> with seeded(0, 3, 17):
        ...     second = torch.rand(1)
        >>> bool(first == second)
        True
    """
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    seed = int(np.random.SeedSequence(key).generate_state(1)[0])
    torch.default_generator.manual_seed(seed)  # `torch.manual_seed` would reseed the accelerators as well
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])

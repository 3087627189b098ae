"""Which queries are shown with their pictures, and those pictures."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datamodules.images import open_rgb
from experiments.report.tested import Asked

_SIDE = 144  # pixels of the longer side of a picture


def draw(kinds: Sequence[str], count: int, seed: int) -> list[int]:
    """Draw places, as evenly over their kinds as there are places of them.

    Args:
        kinds: `Q` of them, what each place is.
        count: how many to draw; all where there are fewer.
        seed: of the order within a kind.

    Returns:
        The places, ascending.

    Example:
        >>> draw(["fixed", "unchanged", "unchanged", "unchanged"], 2, seed=0)[0]
        0
    """
    order = np.random.default_rng(seed).permutation(len(kinds))
    turns = np.empty(len(kinds), dtype=np.int64)
    named = np.asarray(kinds)[order]
    for kind in np.unique(named):
        mine = np.flatnonzero(named == kind)
        turns[mine] = np.arange(len(mine))
    chosen: NDArray[np.int64] = order[np.argsort(turns, kind="stable")[:count]]
    return sorted(chosen.tolist())


def pictures(asked: Asked, query: int) -> tuple[Path, Path]:
    """Return the files of a query's image and of the image that it was made from."""
    return asked.made.path(int(asked.rows[query])), asked.data.image_path(int(asked.sources[query]))


def embedded(path: Path) -> str:
    """Return a small version of a picture as a data URI.

    Raises:
        UnreadableImageError: the file cannot be read.
    """
    image, file = open_rgb(path), BytesIO()
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    image.save(file, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"

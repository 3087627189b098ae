"""Paints the places of Scenes: simple and varied."""

from __future__ import annotations

from random import Random

from PIL import Image

from datamodules.scenes.brush import Brush, Ground
from datamodules.scenes.indoors import INDOORS
from datamodules.scenes.outdoors import OUTDOORS

PAINTERS = {**OUTDOORS, **INDOORS}


def paint_place(name: str, side: int, rng: Random) -> tuple[Image.Image, Ground]:
    """Paint a place.

    Args:
        name: a place of the vocabulary.
        side: side of the picture in pixels.
        rng: varies colours and decorations.

    Returns:
        The RGB picture, and where things can stand in it.

    Example:
        >>> picture, ground = paint_place("beach", 64, Random(0))
        >>> picture.size, ground.horizon < ground.land
        ((64, 64), True)
    """
    brush = Brush(side, rng)
    ground = PAINTERS[name](brush)
    return brush.picture(), ground

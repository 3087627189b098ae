"""Paints simple shapes in unit coordinates: (0, 0) is the upper left corner of the picture, (1, 1) the lower right."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from PIL import Image, ImageColor, ImageDraw

Colour = str | tuple[int, int, int]


class Ground(NamedTuple):
    """Where things can stand, as heights from 0 (top) to 1 (bottom): water, if any, lies from horizon to land."""

    horizon: float
    land: float


class Brush:
    """A square RGB canvas that is painted at twice its final size and then reduced, so that edges are smooth.

    Args:
        side: final side in pixels.
        rng: varies colours.
    """

    def __init__(self, side: int, rng: Random) -> None:
        self.rng = rng
        self._side = side
        self._canvas = Image.new("RGB", (2 * side, 2 * side))
        self._draw = ImageDraw.Draw(self._canvas)

    def shade(self, colour: str, spread: int = 14) -> tuple[int, int, int]:
        """Return a colour near this one."""
        light = self.rng.randint(-spread, spread)
        red, green, blue = (
            min(255, max(0, value + light + self.rng.randint(-spread // 2, spread // 2)))
            for value in ImageColor.getrgb(colour)[:3]
        )
        return red, green, blue

    def band(self, top: float, bottom: float, upper: Colour, lower: Colour) -> None:
        """Fill the picture's whole width from `top` to `bottom` with a gradient."""
        first, last = self._pixels(top), self._pixels(bottom)
        size = (1, max(1, last - first))
        mask = Image.linear_gradient("L").resize(size)
        column = Image.composite(Image.new("RGB", size, lower), Image.new("RGB", size, upper), mask)
        self._canvas.paste(column.resize((2 * self._side, size[1]), Image.Resampling.NEAREST), (0, first))

    def box(self, left: float, top: float, right: float, bottom: float, fill: Colour) -> None:
        """Fill a rectangle."""
        self._draw.rectangle([self._pixels(v) for v in (left, top, right, bottom)], fill=fill)

    def oval(self, x: float, y: float, width: float, height: float, fill: Colour) -> None:
        """Fill an ellipse with this centre and these half axes."""
        corners = (x - width, y - height, x + width, y + height)
        self._draw.ellipse([self._pixels(v) for v in corners], fill=fill)

    def shape(self, points: Sequence[tuple[float, float]], fill: Colour) -> None:
        """Fill a polygon."""
        self._draw.polygon([(self._pixels(x), self._pixels(y)) for x, y in points], fill=fill)

    def line(self, points: Sequence[tuple[float, float]], fill: Colour, width: float = 0.01) -> None:
        """Draw a line of this width."""
        corners = [(self._pixels(x), self._pixels(y)) for x, y in points]
        self._draw.line(corners, fill=fill, width=max(1, self._pixels(width)))

    def picture(self) -> Image.Image:
        """Return the picture at its final size."""
        return self._canvas.reduce(2)

    def _pixels(self, value: float) -> int:
        return round(value * 2 * self._side)

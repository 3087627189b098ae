"""Places the objects of a cast so that each can be seen: apart, whole, and where things of its kind belong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datamodules.scenes.brush import Ground
from datamodules.scenes.cutouts import Cutout, CutoutSource
from datamodules.scenes.scene import Cast
from datamodules.scenes.vocabulary import SceneClass

SMALLEST = 0.17  # longer side of an object as a share of the picture's: below that it cannot be named
FAINT = 13  # alpha below which a pixel counts as empty: 5 %

_WITHOUT_FAINT = [alpha if alpha >= FAINT else 0 for alpha in range(256)]
_TURN = {"thing": 25, "food": 20, "sky": 14, "air": 14}  # degrees either way, by kind
_USUAL_TURN = 5
_SHARE_TURNED = 0.6
_APART, _OVERLAPPING = 0.03, 0.4  # most that two boxes may share, as a part of the smaller
_SHARE_OF_OVERLAPPING = 0.08
_SCALES = (1.0, 0.9, 0.8, 0.7, 0.6)
_ROOMY = 3  # more objects than these are drawn smaller
_TRIES = 25
_FAR, _CLOSE = 0.88, 1.12  # size of an object at the back and at the front


@dataclass(frozen=True)
class Placed:
    """An object in its place; `picture` is RGBA at its final size, its upper left corner at (left, top) in pixels."""

    name: str
    cutout: Cutout
    picture: Image.Image
    left: int
    top: int

    @property
    def bottom(self) -> int:
        """The row below the object."""
        return self.top + self.picture.height

    def solid(self) -> NDArray[np.bool_]:
        """Return `[height, width]` bool: where the object covers what is behind it."""
        return np.asarray(self.picture.getchannel("A")) > 0

    def shared(self, other: Placed) -> float:
        """Return the area that two boxes share, as a part of the smaller box."""
        width = min(self.left + self.picture.width, other.left + other.picture.width) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        smaller = min(box.picture.width * box.picture.height for box in (self, other))
        return max(0, width) * max(0, height) / smaller


def arrange(
    cast: Cast, classes: Mapping[str, SceneClass], source: CutoutSource, ground: Ground, side: int, rng: Random
) -> list[Placed]:
    """Place the objects of a cast, in the order in which to draw them: far ones first.

    Args:
        cast: which classes to show, and how many of each.
        classes: how the classes look.
        source: gives the objects.
        ground: where things can stand.
        side: side of the picture in pixels.
        rng: chooses objects, sizes and positions.
    """
    names = [name for name, count in cast.counts.items() for _ in range(count)]
    names.sort(key=lambda name: -classes[name].size)
    objects = [(classes[name], source.pick(name, rng)) for name in names]
    limit = _OVERLAPPING if rng.random() < _SHARE_OF_OVERLAPPING else _APART
    crowding = min(1.0, _ROOMY / len(objects)) ** 0.35
    placed = None
    for scale in chain(_SCALES, repeat(_SCALES[-1])):
        placed = _place_all(objects, scale * crowding, limit, ground, side, rng)
        if placed is not None:
            break
        if scale == _SCALES[-1]:
            limit = _OVERLAPPING
    return sorted(placed or [], key=lambda one: (one.cutout.zone != "sky", one.bottom))


def _place_all(
    objects: Sequence[tuple[SceneClass, Cutout]], scale: float, limit: float, ground: Ground, side: int, rng: Random
) -> list[Placed] | None:
    """Place every object, or return None where one finds no room."""
    placed: list[Placed] = []
    for entry, cutout in objects:
        nearness = rng.random()
        share = max(SMALLEST, entry.size * scale * (_FAR + (_CLOSE - _FAR) * nearness))
        picture = _pose(cutout.picture, share * side, entry, rng)
        for _ in range(_TRIES):
            left, top = _position(picture, cutout.zone, nearness, ground, side, rng)
            one = Placed(entry.name, cutout, picture, left, top)
            if all(one.shared(other) <= limit for other in placed):
                placed.append(one)
                break
        else:
            return None
    return placed


def _pose(picture: Image.Image, longer: float, entry: SceneClass, rng: Random) -> Image.Image:
    """Turn, flip and reduce a cut-out, and crop it to what is visible."""
    if entry.flip and rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    turn = _TURN.get(entry.kind, _USUAL_TURN) if entry.flip else 0
    angle = rng.uniform(-turn, turn) if rng.random() < _SHARE_TURNED else 0
    turned = picture.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    turned = turned.crop(turned.getbbox())
    factor = longer / max(turned.size)
    small = turned.resize((max(1, round(turned.width * factor)), max(1, round(turned.height * factor))))
    small.putalpha(small.getchannel("A").point(_WITHOUT_FAINT))
    return small.crop(small.getbbox())


def _position(
    picture: Image.Image, zone: str, nearness: float, ground: Ground, side: int, rng: Random
) -> tuple[int, int]:
    """Return the upper left corner of an object that lies wholly inside the picture."""
    highest, lowest = _feet(zone, ground)
    depth = min(1.0, max(0.0, nearness + rng.uniform(-0.5, 0.5)))
    feet = (highest + (lowest - highest) * depth) * side
    top = min(side - 1 - picture.height, max(1, round(feet - picture.height)))
    return rng.randint(1, max(1, side - 1 - picture.width)), top


def _feet(zone: str, ground: Ground) -> tuple[float, float]:
    """Return the heights between which the lower edge of an object of this zone lies."""
    if zone in ("sky", "wall"):
        return 0.0, ground.horizon + 0.02
    if zone == "air":
        return 0.4, 0.85
    if zone == "water" and ground.land > ground.horizon:
        return ground.horizon + 0.08, ground.land - 0.02
    return ground.land + 0.1, 0.98

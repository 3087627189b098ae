"""Draws a scene: its place, its objects, and the pixels that each object shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datamodules.scenes.cutouts import CutoutSource
from datamodules.scenes.layout import Placed, arrange
from datamodules.scenes.places import paint_place
from datamodules.scenes.scene import Cast
from datamodules.scenes.vocabulary import Noun, Place, Vocabulary

_LEAST_SEEN = 0.6  # part of an object that others must leave visible


@dataclass(frozen=True)
class SceneObject:
    """An object as it is seen.

    Attributes:
        name: COCO's class name.
        nouns: what people call it.
        colour: what people may call its colour, or None.
        zone: where it is.
        mask: bool `[H, W]`, True where it is visible.
        box: x, y, width, height in pixels, tight around `mask`.
    """

    name: str
    nouns: tuple[Noun, ...]
    colour: str | None
    zone: str
    mask: NDArray[np.bool_]
    box: tuple[int, int, int, int]

    def run_lengths(self) -> list[int]:
        """Return the mask as COCO's uncompressed run lengths: columns first, empty pixels first."""
        flat = np.concatenate([[False], self.mask.ravel(order="F"), [True]])
        flat[-1] = not flat[-2]
        changes = [0, *np.flatnonzero(flat[1:] != flat[:-1]).tolist()]
        return [after - before for before, after in pairwise(changes)]


@dataclass(frozen=True)
class Scene:
    """A picture and all that is true of it.

    Attributes:
        place: where it is.
        objects: what it shows.
        picture: RGB.
    """

    place: Place
    objects: tuple[SceneObject, ...]
    picture: Image.Image


def draw_scene(cast: Cast, vocabulary: Vocabulary, source: CutoutSource, side: int, rng: Random) -> Scene:
    """Draw a cast.

    Args:
        cast: which classes to show, where, and how many of each.
        vocabulary: how the classes look.
        source: gives the objects.
        side: side of the picture in pixels.
        rng: chooses everything that the cast leaves open.
    """
    picture, ground = paint_place(cast.place.name, side, rng)
    placed = arrange(cast, vocabulary.classes, source, ground, side, rng)
    owner = _owners(placed, side)
    while any(one.solid().sum() * _LEAST_SEEN > (owner == index).sum() for index, one in enumerate(placed)):
        placed = arrange(cast, vocabulary.classes, source, ground, side, rng)
        owner = _owners(placed, side)
    for one in placed:
        picture.paste(one.picture, (one.left, one.top), one.picture)
    return Scene(cast.place, tuple(_seen(one, owner == index) for index, one in enumerate(placed)), picture)


def _owners(placed: Sequence[Placed], side: int) -> NDArray[np.int16]:
    """Return `[side, side]`: which object each pixel shows, -1 for none."""
    owner = np.full((side, side), -1, dtype=np.int16)
    for index, one in enumerate(placed):
        owner[one.top : one.bottom, one.left : one.left + one.picture.width][one.solid()] = index
    return owner


def _seen(one: Placed, mask: NDArray[np.bool_]) -> SceneObject:
    rows, columns = (np.flatnonzero(mask.any(axis=axis)).tolist() for axis in (1, 0))
    box = (columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0])
    return SceneObject(one.name, one.cutout.nouns, one.cutout.colour, one.cutout.zone, mask, box)

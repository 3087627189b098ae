"""Draws a bird at a place: the place is large, the bird small and varied, and anywhere in the picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from datamodules.scenes.birds.config import BirdScenesConfig
from datamodules.scenes.birds.sources import (
    BirdGlyphs,
    BirdSource,
    BirdStamps,
    PaintedPlaces,
    PhotographedPlaces,
    PlaceSource,
)
from datamodules.scenes.birds.vocabulary import Species, bird_vocabulary

_TURN = 20  # degrees either way
_BRIGHTNESS, _COLOUR = (0.7, 1.2), (0.5, 1.2)
_SOLIDITY = 0.75, 1.0  # what is left of the bird where the air is hazy
_HIDDEN = 0.2  # part of either side that may lie beyond the edge of the picture


@dataclass(frozen=True)
class BirdPicture:
    """A bird at a place.

    Attributes:
        species: which bird.
        place: name of the place.
        place_kind: 0 land, 1 water.
        picture: RGB.
        mask: bool `[H, W]`, True where the bird is visible.
    """

    species: Species
    place: str
    place_kind: int
    picture: Image.Image
    mask: NDArray[np.bool_]


class BirdDrawer:
    """Draws any picture of a data set by its key alone.

    Args:
        config: what the data set is made of.

    Example:
        >>> drawer = BirdDrawer(BirdScenesConfig())
        >>> bird = drawer.draw(label=1, place=0, rng=Random(0))
        >>> bird.picture.size, bool(bird.mask.any()), bird.species.kind
        ((64, 64), True, 1)
    """

    def __init__(self, config: BirdScenesConfig) -> None:
        words, self._side, self._sizes = bird_vocabulary(), config.resolution, config.bird_size
        self._birds: BirdSource = (
            BirdGlyphs(words, self._side)
            if config.stamps is None
            else BirdStamps(Path(config.stamps), words, self._side)
        )
        self._places: PlaceSource = (
            PaintedPlaces(words) if config.backgrounds is None else PhotographedPlaces(Path(config.backgrounds))
        )

    @property
    def species(self) -> tuple[Species, ...]:
        """Species that it can show."""
        return self._birds.species

    @property
    def fingerprint(self) -> list[str]:
        """Changes whenever pictures could look different."""
        return [self._birds.fingerprint, self._places.fingerprint]

    def draw(self, label: int, place: int, rng: Random) -> BirdPicture:
        """Return a bird of this kind at a place of this kind; all of a kind are equally likely."""
        picture, name = self._places.paint(place, self._side, rng)
        species = rng.choice([one for one in self.species if one.kind == label])
        bird = _posed(self._birds.pick(species, rng), rng.uniform(*self._sizes) * self._side, rng)
        left, top = (_start(length, self._side, rng) for length in bird.size)
        picture.paste(bird, (left, top), bird)
        cover = Image.new("L", picture.size)
        cover.paste(bird.getchannel("A"), (left, top))
        return BirdPicture(species, name, place, picture, np.asarray(cover) > 127)


def _posed(bird: Image.Image, length: float, rng: Random) -> Image.Image:
    """Flip, turn and tint a bird, and make its longer side so many pixels long."""
    if rng.random() < 0.5:
        bird = bird.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    turned = bird.rotate(rng.uniform(-_TURN, _TURN), Image.Resampling.BICUBIC, expand=True)
    turned = turned.crop(turned.getbbox())
    factor = length / max(turned.size)
    small = turned.resize((max(1, round(turned.width * factor)), max(1, round(turned.height * factor))))
    alpha, solidity = small.getchannel("A"), rng.uniform(*_SOLIDITY)
    small = ImageEnhance.Brightness(small).enhance(rng.uniform(*_BRIGHTNESS))
    small = ImageEnhance.Color(small).enhance(rng.uniform(*_COLOUR))
    small.putalpha(alpha.point([round(value * solidity) for value in range(256)]))
    return small


def _start(length: int, side: int, rng: Random) -> int:
    """Return where a bird of this length begins along one side of the picture."""
    hidden = round(_HIDDEN * length)
    return rng.randint(-hidden, side - length + hidden)

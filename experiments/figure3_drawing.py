"""Pictures beside the captions that two models retrieve for them, as a page and as a sheet."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont

from datamodules.images import open_rgb
from experiments.report.drawn import embedded
from experiments.report.page import read

_INKS = {"": "#1d1d1b", "right": "#14692b", "wrong": "#b3161d"}
_SIDE, _COLUMN, _GAP, _LINE = 160, 420, 12, 19  # pixels: a picture, a column of captions, between them, a line of text
ON_SHEET = 60
"""Pictures on a sheet: viewers refuse those that are much higher."""


class Line(NamedTuple):
    """A caption as parts of text, each "wrong", "right" or ""."""

    parts: tuple[tuple[str, str], ...]

    @staticmethod
    def of(caption: dict[str, Any], wrong: set[int], right: set[int]) -> Line:
        """Mark the phrases of a caption that name a class which is wrong or, naming none of these, one that is right.

        Args:
            caption: `text`, and `phrases` as lists of start, end and class indices, in order.
            wrong: classes.
            right: classes.

        Example:
            >>> Line.of({"text": "a dog runs", "phrases": [[0, 5, [7]]]}, {7}, set()).parts
            (('a dog', 'wrong'), (' runs', ''))
        """
        parts, at, text = [], 0, caption["text"]
        for start, end, classes in caption["phrases"]:
            mark = "wrong" if wrong.intersection(classes) else "right" if right.intersection(classes) else ""
            if mark and start >= at:
                parts += [(text[at:start], ""), (text[start:end], mark)]
                at = end
        return Line(tuple(part for part in (*parts, (text[at:], "")) if part[0]))


class Picture(NamedTuple):
    """One picture.

    Attributes:
        path: its file.
        heading: what it is.
        lines: the captions that each model retrieves for it, best first.
    """

    path: Path
    heading: str
    lines: Sequence[Sequence[Line]]


def page(names: Sequence[str], pictures: Sequence[Picture]) -> str:
    """Return the HTML of a page that needs nothing else and has no script.

    Args:
        names: of the models.
        pictures: what to show.

    Raises:
        UnreadableImageError: a picture cannot be read.
    """
    title = escape(" and ".join(names))
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>Captions: {title}</title><style>{read('page.css')}</style></head>"
    )
    intro = (
        '<p><span class="wrong">Red</span> words name what the picture does not show, '
        '<span class="right">green</span> ones what it shows.</p>'
    )
    cards = "\n".join(_card(names, picture) for picture in pictures)
    return f'{head}\n<body><header><h1>{title}</h1>{intro}</header><main id="cards">\n{cards}\n</main></body></html>\n'


def _card(names: Sequence[str], picture: Picture) -> str:
    heading = escape(picture.heading)
    image = f'<figure><img alt="{heading}" src="{embedded(picture.path)}"><figcaption>{heading}</figcaption></figure>'
    columns = "".join(
        f'<div class="list"><h3>{escape(name)}</h3><ol>{"".join(map(_item, lines))}</ol></div>'
        for name, lines in zip(names, picture.lines, strict=True)
    )
    return f'<article><div class="body"><div class="images">{image}</div>{columns}</div></article>'


def _item(line: Line) -> str:
    spans = (f'<span class="{mark}">{escape(text)}</span>' if mark else escape(text) for text, mark in line.parts)
    return f"<li>{''.join(spans)}</li>"


def sheet(names: Sequence[str], pictures: Sequence[Picture]) -> Image.Image:
    """Draw the first 60 pictures below each other, the captions of each model in a column beside them.

    Args:
        names: of the models.
        pictures: what to show.

    Raises:
        UnreadableImageError: a picture cannot be read.
    """
    font: Any = ImageFont.load_default(size=14)
    shown = pictures[:ON_SHEET]
    set_ = [[_set(lines, font) for lines in picture.lines] for picture in shown]
    heights = [max(_SIDE + 2 * _LINE, *(_LINE * (1 + rows) for _, rows in columns)) + _GAP for columns in set_]
    width = 2 * _GAP + _SIDE + len(names) * (_COLUMN + _GAP)
    drawn = Image.new("RGB", (width, sum(heights) + _GAP), "white")
    pen, top = ImageDraw.Draw(drawn), _GAP
    for picture, columns, height in zip(shown, set_, heights, strict=True):
        drawn.paste(_fitted(picture.path), (_GAP, top))
        pen.text((_GAP, top + _SIDE + 2), picture.heading, fill=_INKS[""], font=font)
        for number, (name, (words, _)) in enumerate(zip(names, columns, strict=True)):
            left = 2 * _GAP + _SIDE + number * (_COLUMN + _GAP)
            pen.text((left, top), name, fill="#777", font=font)
            for x, row, text, mark in words:
                pen.text((left + x, top + _LINE * (1 + row)), text, fill=_INKS[mark], font=font)
        top += height
    return drawn


def _fitted(path: Path) -> Image.Image:
    image = open_rgb(path)
    scale = _SIDE / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS)


def _set(lines: Sequence[Line], font: Any) -> tuple[list[tuple[float, int, str, str]], int]:
    """Set captions in a column: each word with its place and mark, and how many rows there are."""
    words: list[tuple[float, int, str, str]] = []
    row = 0
    for number, line in enumerate(lines, start=1):
        x = 24.0
        words.append((0.0, row, f"{number}.", ""))
        for text, mark in _words(line):
            length = font.getlength(text)
            if x + length > _COLUMN and x > 24:
                row, x, text = row + 1, 24.0, text.lstrip()
                length = font.getlength(text)
            words.append((x, row, text, mark))
            x += length
        row += 1
    return words, row


def _words(line: Line) -> Iterator[tuple[str, str]]:
    for text, mark in line.parts:
        for word in re.findall(r"\s*\S+\s*", text):
            yield word, mark

"""A sheet for people: counterfactuals beside their sources, as one HTML file that needs nothing else."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from html import escape
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from datamodules.errors import AnnotationError, ConfigError, MissingPathError
from datamodules.images import open_rgb
from synth.config import SynthesisConfig

if TYPE_CHECKING:
    from PIL import Image

_SIDE = 480  # pixels of the longer side of a thumbnail: sharp on a phone, 40 KB as JPEG
_OUTLINE = ((7, "#000000"), (4, "#ff3b30"))  # width and colour of a box's outline: red on black shows on any picture
_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*|[^\w\s]")


class Example(NamedTuple):
    """One counterfactual of a finished set.

    Attributes:
        row: its metadata.
        source: the image that it was made from.
        synthetic: the image itself.
    """

    row: Mapping[str, Any]
    source: Image.Image
    synthetic: Image.Image


def choose(config: SynthesisConfig, split: str, count: int, seed: int) -> list[Example]:
    """Draw counterfactuals of a split of a finished set, in the order in which the set has them.

    Args:
        config: the synthesis that made the set; its data must be prepared.
        split: a split that was written.
        count: how many to draw; all if there are fewer.
        seed: draws them.

    Raises:
        MissingPathError: the set has no such split.
        AnnotationError: a line of its metadata is malformed, or names a source image that the data set lacks.
        UnreadableImageError: an image cannot be read.
    """
    path = config.output / split / "metadata.jsonl"
    if not path.is_file():
        known = ", ".join(sorted(found.parent.name for found in config.output.glob("*/metadata.jsonl")))
        raise MissingPathError(f"`--split` is {split}, but the set in `output` {config.output} has {known or 'none'}.")
    with path.open("rb") as file:
        lines = [(number, line) for number, line in enumerate(file, start=1) if not line.isspace()]
    drawn = np.random.default_rng(seed).choice(len(lines), min(count, len(lines)), replace=False)
    return [_example(config, f"{path}:{lines[n][0]}", path.parent, lines[n][1]) for n in sorted(drawn.tolist())]


def _example(config: SynthesisConfig, where: str, folder: Path, line: bytes) -> Example:
    try:
        row = json.loads(line)
        synthetic = folder / row["file_name"]
        inside = synthetic.resolve().is_relative_to(folder.resolve())
        found = np.flatnonzero(config.data.tables.image_ids == row["source_image_id"])
        np.asarray(row["removed_boxes"], dtype=np.float64).reshape(-1, 4)
    except (ValueError, TypeError, KeyError) as error:
        raise AnnotationError(f"{where} (in `output`) is malformed ({error!r}); make the set anew.") from error
    if not inside or not len(found):
        problem = "a file outside its folder" if not inside else f"the unknown source image {row['source_image_id']}"
        raise AnnotationError(f"{where} (in `output`) names {problem}; make the set anew.")
    return Example(row, config.data.read_image(int(found[0])), open_rgb(synthetic))


def sheet(title: str, examples: Sequence[Example], summary: str = "") -> str:
    """Return the HTML of a sheet, with the images inside.

    Args:
        title: heading and title of the page.
        examples: what to show, in this order.
        summary: a line below the heading.

    Raises:
        ConfigError: there is no example.
    """
    if not examples:
        raise ConfigError("The split has no counterfactual to show; name another with `--split`.")
    page = Template(files("synth").joinpath("contact_sheet.html").read_text(encoding="utf-8"))
    cards = "\n".join(map(_card, examples))
    return page.substitute(title=escape(title), summary=escape(summary), cards=cards)


def _card(example: Example) -> str:
    row = example.row
    outlined = outline(example.source, row["removed_boxes"])
    figures = _figure(outlined, "source") + _figure(thumbnail(example.synthetic), "synthetic")
    before, after = marked(row.get("source_text", ""), row.get("text", ""))
    captions = f"<p>{before}</p>\n<p>{after}</p>" if after else '<p class="note">a query, without a caption</p>'
    facts = {
        "removed": ", ".join(map(str, row.get("removed", ()))),
        "kept": ", ".join(map(str, row.get("kept", ()))),
        "fill": row.get("fill"),
        "caption": row.get("caption_strategy") if after else None,
        "source image": row["source_image_id"],
    }
    note = " · ".join(f"{name}: <b>{escape(str(value))}</b>" for name, value in facts.items() if value is not None)
    return f'<article>\n<div class="images">{figures}</div>\n{captions}\n<p class="note">{note}</p>\n</article>'


def _figure(image: Image.Image, name: str) -> str:
    file = BytesIO()
    image.save(file, "JPEG", quality=85, subsampling=0)  # thin red lines keep their red
    data = b64encode(file.getvalue()).decode()
    size = f'width="{image.width}" height="{image.height}"'
    return (
        f'<figure><img {size} alt="{name}" src="data:image/jpeg;base64,{data}"><figcaption>{name}</figcaption></figure>'
    )


def thumbnail(image: Image.Image) -> Image.Image:
    """Return a copy whose longer side has 480 pixels; drawn pictures of fewer pixels keep their hard edges."""
    from PIL import Image

    scale = _SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)


def outline(image: Image.Image, boxes: ArrayLike) -> Image.Image:
    """Return a thumbnail with boxes drawn around what was removed.

    Args:
        image: the source in full size.
        boxes: `[M, 4]` x, y, width, height in pixels of the source.
    """
    from PIL import ImageDraw

    small = thumbnail(image)
    scale = np.array([small.width / image.width, small.height / image.height] * 2)
    x, y, width, height = (np.asarray(boxes, dtype=np.float64).reshape(-1, 4) * scale).T
    corners = np.stack([x, y, x + width - 1, y + height - 1], axis=1)
    corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2])
    pen = ImageDraw.Draw(small)
    for thickness, shade in _OUTLINE:
        for box in corners.tolist():
            pen.rectangle(box, outline=shade, width=thickness)
    return small


def marked(before: str, after: str) -> tuple[str, str]:
    """Return two captions as HTML, words that left the first struck through, and words new in the second marked.

    Words are compared without regard to capitals, since an edited caption begins with one.

    Example:
        >>> marked("A dog and a cat, asleep", "A cat & asleep")
        ('<del>A dog and</del> a cat<del>,</del> asleep', 'A cat <ins>&amp;</ins> asleep')
    """
    old, new = list(_WORD.finditer(before)), list(_WORD.finditer(after))
    a, b = ([word.group().casefold() for word in found] for found in (old, new))
    changes = [code for code in SequenceMatcher(a=a, b=b, autojunk=False).get_opcodes() if code[0] != "equal"]
    gone = [(old[start].start(), old[end - 1].end()) for _, start, end, _, _ in changes if start < end]
    come = [(new[start].start(), new[end - 1].end()) for _, _, _, start, end in changes if start < end]
    return _tagged(before, gone, "del"), _tagged(after, come, "ins")


def _tagged(text: str, spans: Sequence[tuple[int, int]], tag: str) -> str:
    pieces, position = [], 0
    for start, end in spans:
        pieces += [escape(text[position:start]), f"<{tag}>{escape(text[start:end])}</{tag}>"]
        position = end
    return "".join([*pieces, escape(text[position:])])

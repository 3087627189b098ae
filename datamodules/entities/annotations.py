"""Boxes of an image in the xml of Flickr30k Entities: objects with the chains that they belong to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from xml.parsers import expat

from datamodules.errors import AnnotationError
from datamodules.instances import TOLERANCE

_SIDES = ("xmin", "ymin", "xmax", "ymax")


class Object(NamedTuple):
    """One object: its chains, its boxes (x, y, width, height in pixels; a scene has none), and its line in the file."""

    chains: tuple[int, ...]
    boxes: list[tuple[float, float, float, float]]
    line: int


class Annotation(NamedTuple):
    """The objects of an image of `width` x `height` pixels."""

    width: int
    height: int
    objects: list[Object]


@dataclass(slots=True)
class _Element:
    """An xml element and the line that it begins on."""

    tag: str
    line: int
    text: str = ""
    children: list[_Element] = field(default_factory=list)

    def all(self, tag: str) -> list[_Element]:
        return [child for child in self.children if child.tag == tag]


def read_annotation(path: Path) -> Annotation:
    """Read the objects of an image.

    Coordinates in the file are pixels counted from 1, the last one included: xmin 1 and xmax 10 are x 0 and width 10.
    What sticks out of the image by up to `TOLERANCE` is cut.

    Raises:
        AnnotationError: the xml is broken, is of another image, has no size, or an object has no chain, or neither a
            box nor a mark that it has none; the text has file and line.
    """
    root = _parse(path)
    for named in root.all("filename"):
        if Path(named.text.strip()).stem != path.stem:
            raise _fault(path, named, f"the annotation is that of image {named.text.strip()}")
    sizes = root.all("size")
    if not sizes:
        raise _fault(path, root, "`size` is missing")
    width, height = (_number(path, sizes[0], side) for side in ("width", "height"))
    if min(width, height) < 1:
        raise _fault(path, sizes[0], f"`size` is {width} x {height}")
    return Annotation(width, height, [_object(path, one, width, height) for one in root.all("object")])


def _object(path: Path, element: _Element, width: int, height: int) -> Object:
    names = element.all("name")
    if not names:
        raise _fault(path, element, "an object has no `name`, the number of its chain")
    boxes = [_box(path, box, width, height) for box in element.all("bndbox")]
    flags = [flag for tag in ("nobndbox", "scene") for flag in element.all(tag)]
    if not boxes and not any(flag.text.strip() == "1" for flag in flags):
        raise _fault(path, element, "an object has neither `bndbox` nor a mark that it has none (`nobndbox`, `scene`)")
    return Object(tuple(_integer(path, name) for name in names), boxes, element.line)


def _box(path: Path, element: _Element, width: int, height: int) -> tuple[float, float, float, float]:
    left, top, right, bottom = (_number(path, element, side) for side in _SIDES)
    low, over = min(left, top) - 1, max(right - width, bottom - height)
    if right < left or bottom < top:
        raise _fault(path, element, f"the box {left}, {top}, {right}, {bottom} ends before it begins")
    x, y = min(max(left - 1, 0), width), min(max(top - 1, 0), height)
    if low < -TOLERANCE or over > TOLERANCE or right < 1 or bottom < 1 or x == width or y == height:
        raise _fault(path, element, f"the box {left}, {top}, {right}, {bottom} lies outside {width} x {height} pixels")
    return x, y, min(right, width) - x, min(bottom, height) - y


def _number(path: Path, element: _Element, tag: str) -> int:
    found = element.all(tag)
    if len(found) != 1:
        raise _fault(path, element, f"`{element.tag}` needs one `{tag}`, it has {len(found)}")
    return _integer(path, found[0])


def _integer(path: Path, element: _Element) -> int:
    try:
        return int(element.text)
    except ValueError:
        raise _fault(path, element, f"`{element.tag}` is {element.text.strip()!r}, no whole number") from None


def _fault(path: Path, element: _Element, what: str) -> AnnotationError:
    return AnnotationError(f"{path.absolute()} (config key `entities`), line {element.line}: {what}: mend the file.")


def _parse(path: Path) -> _Element:
    """Return the root of an xml file; ElementTree would not say on which line an element stands."""
    parser = expat.ParserCreate()
    above = [_Element("", 0)]

    def start(tag: str, _: Any) -> None:
        element = _Element(tag, parser.CurrentLineNumber)
        above[-1].children.append(element)
        above.append(element)

    def text(found: str) -> None:
        above[-1].text += found

    parser.StartElementHandler, parser.CharacterDataHandler = start, text
    parser.EndElementHandler = lambda _: above.pop()
    parser.buffer_text = True
    try:
        parser.Parse(path.read_bytes(), True)
    except expat.ExpatError as error:
        raise AnnotationError(
            f"{path.absolute()} (config key `entities`) is no valid xml at line {error.lineno}, column "
            f"{error.offset + 1} ({expat.ErrorString(error.code)}): it may be cut off, unpack it again."
        ) from error
    return above[0].children[0]

"""The lines of metadata.jsonl, which say what the images of a folder are: read one by one, and checked."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from datamodules.errors import AnnotationError, MissingPathError
from datamodules.image_files import Listing
from datamodules.instances import is_box, unknown_class
from datamodules.sources import is_text

METADATA = "metadata.jsonl"
_LAYOUT = 'one object a line, as in {"file_name": "a.jpg", "text": ["A dog with a ball."]}'


class Line(NamedTuple):
    """What one line says of its image.

    Attributes:
        where: the file, the line and the config key, for errors.
        file: the image below the root, with slashes.
        image_id: id that is given, None where none is.
        split: name of the split that is given, None where none is.
        texts: captions, at least one.
        categories: class index of each box.
        boxes: x, y, width, height in pixels.
        annotated: whether the line has `objects`, be they none.
    """

    where: str
    file: str
    image_id: int | None
    split: str | None
    texts: list[str]
    categories: list[int]
    boxes: list[list[float]]
    annotated: bool


def metadata_files(root: Path) -> list[Path]:
    """Return the files that describe the images of a folder: its own, then those of the folders in it by name.

    Raises:
        MissingPathError: there is none.
    """
    found = [path for path in (root / METADATA, *sorted(root.glob(f"*/{METADATA}"))) if path.is_file()]
    if not found:
        raise MissingPathError(
            f"There is no {METADATA} in {root.absolute()} (config key `root`) or in a folder in it: write one beside "
            f"the images, {_LAYOUT}."
        )
    return found


def read_lines(root: Path, class_names: Sequence[str]) -> list[Line]:
    """Return what is said of the images, in the order of the files and of their lines.

    A file in a folder of the root speaks of the images in that folder, and gives the folder's name as their split
    where a line names none.

    Args:
        root: folder of the images.
        class_names: names of the C classes; position = class index.

    Raises:
        MissingPathError: there is no metadata.jsonl, or an image that it names is not there.
        AnnotationError: a line is malformed, or contradicts another.
    """
    index = {name: number for number, name in enumerate(class_names)}
    lines = [line for path in metadata_files(root) for line in _lines(path, root, index)]
    if not lines:
        raise AnnotationError(f"{root / METADATA} (config key `root`) describes no image: write {_LAYOUT}.")
    _check_unique(lines)
    _check_complete(lines)
    _check_present(lines, root)
    return lines


def _lines(path: Path, root: Path, index: Mapping[str, int]) -> Iterator[Line]:
    folder = path.parent.relative_to(root).as_posix()
    with path.open("rb") as file:
        for number, content in enumerate(file, start=1):
            if not content.isspace():
                where = f"{path.absolute()}, line {number} (config key `root`)"
                yield _line(content, where, "" if folder == "." else folder, index)


def _line(content: bytes, where: str, folder: str, index: Mapping[str, int]) -> Line:
    try:
        fields = json.loads(content)
    except ValueError as error:
        raise AnnotationError(f"{where} is no JSON ({error}): write {_LAYOUT}.") from error
    if not isinstance(fields, Mapping):
        raise AnnotationError(f"{where} is {type(fields).__name__} and no object: write {_LAYOUT}.")
    categories, boxes = _objects(fields.get("objects"), where, index)
    return Line(
        where,
        _file(fields.get("file_name"), where, folder),
        _image_id(fields.get("image_id"), where),
        _split(fields.get("split"), where, folder),
        _texts(fields.get("text"), where),
        categories,
        boxes,
        fields.get("objects") is not None,
    )


def _file(name: Any, where: str, folder: str) -> str:
    if not is_text(name):
        raise AnnotationError(f"{where} has the `file_name` {name!r}: name the image, {_LAYOUT}.")
    file = posixpath.normpath(name)
    if file.split("/")[0] in ("", ".", ".."):
        raise AnnotationError(f"{where} has the `file_name` {name}, which is not below its folder: name one that is.")
    return posixpath.join(folder, file)


def _image_id(number: Any, where: str) -> int | None:
    if number is not None and (type(number) is not int or not 0 <= number < 2**63):
        raise AnnotationError(f"{where} has the `image_id` {number!r}: give a whole number from 0, or leave all out.")
    return number


def _split(split: Any, where: str, folder: str) -> str | None:
    if split is not None and not is_text(split):
        raise AnnotationError(f"{where} has the `split` {split!r}: name it, such as train, or leave all out.")
    return split or folder or None


def _texts(text: Any, where: str) -> list[str]:
    texts = text if isinstance(text, list) else [text]
    if not texts:
        raise AnnotationError(f"{where} has no caption in its list `text`: write one or remove the line.")
    for one in texts:
        if not is_text(one):
            raise AnnotationError(
                f"{where} has the caption {one!r:.80} (key `text`), which is no text, empty, or has half a character: "
                "write a text or a list of texts, or remove the line."
            )
    return texts


def _objects(objects: Any, where: str, index: Mapping[str, int]) -> tuple[list[int], list[list[float]]]:
    if objects is None:
        return [], []
    boxes, names = (objects.get(key) if isinstance(objects, Mapping) else None for key in ("bbox", "categories"))
    if not isinstance(boxes, list) or not isinstance(names, list) or len(boxes) != len(names):
        raise AnnotationError(
            f"{where} has `objects` {json.dumps(objects)[:80]}: give two lists of one length, as in "
            '{"bbox": [[x, y, width, height]], "categories": ["dog"]}.'
        )
    for box, name in zip(boxes, names, strict=True):
        if not is_box(box):
            raise AnnotationError(f"{where} has the `bbox` {box!r:.80}: give four numbers, x, y, width, height.")
        if not isinstance(name, str) or name not in index:
            raise unknown_class(f"{where}: category", name, tuple(index))
    return [index[name] for name in names], boxes


def _check_unique(lines: Sequence[Line]) -> None:
    files: dict[str, str] = {}
    ids: dict[int, str] = {}
    for line in lines:
        if (other := files.setdefault(line.file, line.where)) != line.where:
            raise AnnotationError(
                f"{line.where} names the image {line.file}, as does {other}: keep one line, its captions as a list."
            )
        if line.image_id is not None and (other := ids.setdefault(line.image_id, line.where)) != line.where:
            raise AnnotationError(
                f"{line.where} has the `image_id` {line.image_id}, as has {other}: ids must be unique, change one."
            )


def _check_complete(lines: Sequence[Line]) -> None:
    for key in ("image_id", "split"):
        without = [line for line in lines if getattr(line, key) is None]
        if 0 < len(without) < len(lines):
            raise AnnotationError(
                f"{without[0].where} has no `{key}`, which other lines have ({len(without)} such lines): give it to "
                "all or to none."
            )


def _check_present(lines: Sequence[Line], root: Path) -> None:
    listing = Listing(root)
    lost = [line for line in lines if line.file not in listing]
    if lost:
        raise MissingPathError(
            f"{lost[0].where} names the image {lost[0].file}, which is not below {root.absolute()} ({len(lost)} of "
            f"{len(lines)} images are not): add the images or remove their lines."
        )

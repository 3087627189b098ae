"""Captions in a plain table, or in Karpathy's layout without COCO's ids, become a json that `CocoDataModule` reads."""

from __future__ import annotations

import csv
import json
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from datamodules.errors import AnnotationError, ConfigError
from datamodules.image_files import Listing
from datamodules.sources import is_text, parsing
from synth.config import SYNTHETIC_ID_BASE
from synth.workspace import write_whole

SPLIT = "train"
"""Split of images whose table names none."""


class _Row(NamedTuple):
    """A caption, and the line of the table that has it."""

    line: int
    file: str
    caption: str
    split: str


def karpathy_file(captions: Path, root: Path, output: Path) -> Path:
    """Return the captions in Karpathy's layout with COCO's ids: the file itself, or one that is written for it.

    Args:
        captions: a .json in Karpathy's layout, or a table as .csv (with a head) or .jsonl: `file` below `root`,
            `caption`, and `split`, which may be left out. An image with several captions has several rows.
        root: folder of the images.
        output: where the boxes are going to; captions that need another form go to `<name>_karpathy.json` beside it.

    Raises:
        AnnotationError: the file is broken, names an image that is not there, or contradicts itself.
        ConfigError: its ending is another, or something else lies where it is to be written.
    """
    if captions.suffix == ".json":
        layout = _with_ids(captions)
    elif captions.suffix in _READERS:
        layout = _layout(_checked(_READERS[captions.suffix](captions), captions, root), captions)
    else:
        raise ConfigError(f"`captions` is {captions}; give a .json in Karpathy's layout, or a table as .csv or .jsonl.")
    return captions if layout is None else _written(layout, output.with_name(f"{output.stem}_karpathy.json"))


def _with_ids(path: Path) -> dict[str, Any] | None:
    """Return a json with its `imgid` in the place of COCO's ids, None where it has those, or is none of Karpathy's."""
    with parsing(path, "captions"):
        data = json.loads(path.read_text(encoding="utf-8"))
    images = data.get("images") if isinstance(data, dict) else None
    if not isinstance(images, list) or not images or not all(isinstance(image, dict) for image in images):
        return None
    if not all("imgid" in image and "cocoid" not in image for image in images):
        return None
    return {**data, "images": [{**image, "cocoid": image["imgid"]} for image in images]}


def _from_csv(path: Path) -> Iterator[tuple[int, Any]]:
    with parsing(path, "captions"), path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            yield from ((reader.line_num, row) for row in reader)
        except csv.Error as error:
            raise AnnotationError(
                f"{path} (key `captions`) is no CSV after line {reader.line_num} ({error}); mend what follows."
            ) from error


def _from_jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    with parsing(path, "captions"), path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise AnnotationError(
                    f"{path} (key `captions`), line {number}, is no JSON ({error.msg}); mend the line."
                ) from error


_READERS: Mapping[str, Callable[[Path], Iterator[tuple[int, Any]]]] = {".csv": _from_csv, ".jsonl": _from_jsonl}


def _checked(lines: Iterator[tuple[int, Any]], path: Path, root: Path) -> list[_Row]:
    listing, splits, rows = Listing(root), dict[str, str](), []
    for line, entry in lines:
        row = _Row(line, *_fields(entry, f"{path} (key `captions`), line {line}"))
        if fault := _fault(row, splits.setdefault(row.file, row.split), listing):
            raise AnnotationError(f"{path} (key `captions`), line {line}, {fault}.")
        rows.append(row)
    if not rows:
        raise AnnotationError(f"{path} (key `captions`) has no captions; expected are rows of file and caption.")
    return rows


def _fields(entry: Any, where: str) -> tuple[str, str, str]:
    if not isinstance(entry, dict) or not {"file", "caption"} <= entry.keys():
        raise AnnotationError(f"{where}: the columns or keys `file` and `caption` are not there; add them.")
    if None in entry:
        raise AnnotationError(f"{where} has more cells than the head; put quotes around a text that has a comma.")
    values = (entry["file"], entry["caption"], entry.get("split", SPLIT))
    for key, value in zip(("file", "caption", "split"), values, strict=True):
        if not is_text(value):
            raise AnnotationError(f"{where}: `{key}` is {value!r}; write a text, or remove the line.")
    return values


def _fault(row: _Row, split: str, listing: Listing) -> str | None:
    """Return what is wrong with a row, None if nothing is."""
    path = PurePosixPath(row.file)
    if path.is_absolute() or ".." in path.parts:
        return f"names the file {row.file}, which leads out of the folder `images`; give a path below it"
    if row.file not in listing:
        return f"names the file {row.file}, which is not below the folder `images`; add it or remove the line"
    if row.split != split:
        return f"puts {row.file} into split {row.split}, but an earlier line into {split}; decide for one"
    return None


def _layout(rows: Sequence[_Row], path: Path) -> dict[str, Any]:
    """Return rows in the layout of Karpathy's `dataset_coco.json`, images in the order of their first rows."""
    grouped: dict[str, list[tuple[int, _Row]]] = {}
    for number, row in enumerate(rows):
        grouped.setdefault(row.file, []).append((number, row))
    ids = numbered(list(grouped))
    images = [
        {
            "filepath": posixpath.dirname(file),
            "filename": posixpath.basename(file),
            "imgid": rank,
            "cocoid": image_id,
            "split": said[0][1].split,
            "sentids": [number for number, _ in said],
            "sentences": [{"raw": row.caption, "imgid": rank, "sentid": number} for number, row in said],
        }
        for rank, ((file, said), image_id) in enumerate(zip(grouped.items(), ids, strict=True))
    ]
    return {"dataset": path.stem, "images": images}


def numbered(files: Sequence[str]) -> list[int]:
    """Return an id for each file: the numbers that their names end in, if all do and no two alike, or else their ranks.

    So images of COCO get the ids of COCO, whatever the release.

    Example:
        >>> numbered(["val2014/COCO_val2014_000000000042.jpg", "train2017/000000000009.jpg"])
        [42, 9]
        >>> numbered(["b.jpg", "a7.jpg"])
        [1, 0]
    """
    ends = [re.search(r"(\d+)\.\w+$", file) for file in files]
    ids = [int(end.group(1)) for end in ends if end]
    if len(set(ids)) == len(files) and max(ids) < SYNTHETIC_ID_BASE:
        return ids
    ranks = {file: rank for rank, file in enumerate(sorted(files))}
    return [ranks[file] for file in files]


def _written(layout: dict[str, Any], path: Path) -> Path:
    """Write a layout unless it is there already; what else is there may have been edited, and stays."""
    text = json.dumps(layout, ensure_ascii=False)
    try:
        content = text.encode()
    except UnicodeEncodeError as error:
        near = text[max(error.start - 40, 0) : error.end]
        raise AnnotationError(f"`captions` has half a character ({near!r}); write that text anew.") from error
    if not path.exists():
        write_whole(path, text)
    elif not path.is_file() or path.read_bytes() != content:
        raise ConfigError(
            f"`captions` would be written to {path} in Karpathy's layout, but that holds something else; give that "
            "file as `captions`, delete it or name another `output`."
        )
    return path

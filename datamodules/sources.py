"""Source files of a data set: found and parsed, with errors that say which one is wrong and how to mend it."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import AnnotationError, MissingPathError

_HALF = re.compile("[\ud800-\udfff]")
"""A surrogate without its other half: json can spell it, UTF-8 and with it every file cannot hold it."""


def existing_file(path: Path, key: str) -> Path:
    """Return `path` if it is a file.

    Args:
        path: what the config says.
        key: the config key that says it.

    Raises:
        MissingPathError: it is missing or a folder; the text has the absolute path and the nearest names.
    """
    if not path.is_file():
        raise MissingPathError(_what_is_there(path, key, "file"))
    return path


def existing_folder(path: Path, key: str) -> Path:
    """Return `path` if it is a folder.

    Args:
        path: what the config says.
        key: the config key that says it.

    Raises:
        MissingPathError: it is missing or a file; the text has the absolute path and the nearest names.
    """
    if not path.is_dir():
        raise MissingPathError(_what_is_there(path, key, "folder"))
    return path


def _what_is_there(path: Path, key: str, kind: str) -> str:
    path = path.absolute()
    if path.exists():
        return f"{path} (config key `{key}`) is not a {kind}: set `{key}` to a {kind}."
    missing = path
    while not missing.parent.is_dir():
        missing = missing.parent
    near = difflib.get_close_matches(missing.name, os.listdir(missing.parent))
    where = "" if missing == path else f", not even {missing}"
    hint = f"did you mean {' or '.join(near)}?" if near else f"set `{key}` to the {kind}."
    return f"There is no {kind} {path}{where} (config key `{key}`): {hint}"


@contextlib.contextmanager
def parsing(path: Path, key: str) -> Iterator[None]:
    """Name the file, and the line, where the block meets broken JSON.

    Raises:
        AnnotationError: the block raised the ValueError of a JSON parser.
    """
    try:
        yield
    except json.JSONDecodeError as error:
        raise AnnotationError(
            f"{path.absolute()} (config key `{key}`) is not valid JSON at line {error.lineno}, column {error.colno} "
            f"({error.msg}): the file may be cut off or edited by hand, fetch it again."
        ) from error
    except UnicodeDecodeError as error:
        raise AnnotationError(
            f"{path.absolute()} (config key `{key}`) is not text but binary data: unpack it or point `{key}` to a json."
        ) from error


def column(entries: Sequence[Any], key: str, what: str) -> list[Any]:
    """Return `entry[key]` of all entries.

    Args:
        entries: objects of a JSON list.
        key: their key.
        what: what an entry is and in which file, for the error.

    Raises:
        AnnotationError: an entry has no such key; the text says which.
    """
    try:
        return [entry[key] for entry in entries]
    except (KeyError, TypeError):
        rank, entry = next((n, e) for n, e in enumerate(entries) if not isinstance(e, Mapping) or key not in e)
        raise AnnotationError(f"{what} number {rank} lacks the key `{key}`: {json.dumps(entry)[:100]}.") from None


def integers(values: Sequence[Any], what: str) -> NDArray[np.int64]:
    """Return ids as `[N]` int64.

    Raises:
        AnnotationError: one of them is no integer of 64 bits.
    """
    odd = [value for value in values if type(value) is not int or abs(value) >= 2**63]
    if odd:
        raise AnnotationError(f"{what} must be 64-bit integers, not {odd[0]!r}.")
    return np.array(values, np.int64)


def is_text(value: Any) -> bool:
    r"""Whether a value is a text that has something in it, and no half of a character.

    >>> [is_text(value) for value in ("Ein H\u00fcndchen", " ", None, "dog \ud83d")]
    [True, False, False, False]
    """
    return isinstance(value, str) and bool(value.strip()) and not _HALF.search(value)


def strings(values: Sequence[Any], what: str) -> list[str]:
    """Return values that are texts with something in them.

    Raises:
        AnnotationError: one of them is not.
    """
    odd = [value for value in values if not is_text(value)]
    if odd:
        raise AnnotationError(f"{what} must be texts, not {odd[0]!r}.")
    return list(values)


def require_unique(ids: NDArray[np.int64], what: str) -> None:
    """Check that no id occurs twice.

    Raises:
        AnnotationError: one does; the text names it.
    """
    values, counts = np.unique(ids, return_counts=True)
    if len(values) < len(ids):
        twice = values[counts > 1]
        more = f" (and {len(twice) - 1} more ids)" if len(twice) > 1 else ""
        raise AnnotationError(
            f"{what} {twice[0]} occurs {counts.max()} times{more}: ids must be unique, mend the file."
        )


def rows_of(ids: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the first position in `ids` of each wanted id, -1 where it is absent.

    >>> rows_of(np.array([30, 10, 20]), np.array([10, 40, 30]))
    array([ 1, -1,  0])
    """
    if not len(ids):
        return np.full(len(wanted), -1)
    order = np.argsort(ids, kind="stable")
    rows: NDArray[np.int64] = order[np.searchsorted(ids, wanted, sorter=order).clip(max=len(ids) - 1)]
    return np.where(ids[rows] == wanted, rows, -1)

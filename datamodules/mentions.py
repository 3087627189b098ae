"""Which classes each caption names, computed once for the same captions and word list, and then mapped."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.cache import cache_root, hash_of, replacing, require_writable
from datamodules.errors import ConfigError
from datamodules.phrases.protocol import PhraseMatcher
from datamodules.tables import StringColumn, Tables

_CHUNK = 4096
_LONG = 20_000  # captions from which on a person wonders whether anything is happening


def mentions(tables: Tables, matcher: PhraseMatcher, cache_dir: Path | None = None) -> NDArray[np.bool_]:
    """Return which classes each caption of a data set names.

    Args:
        tables: the data set, M captions.
        matcher: finds classes in captions; its C classes must be those of the tables, in the same order.
        cache_dir: cache folder, see `cache.cache_root`.

    Returns:
        `[M, C]` bool, read-only, memory-mapped: processes share its pages.

    Raises:
        ConfigError: the matcher has other classes than the tables, or the cache folder cannot be written.
    """
    if matcher.class_names != tables.class_names:
        raise ConfigError(
            f"The phrase matcher knows {len(matcher.class_names)} classes ({', '.join(matcher.class_names[:3])}, ...), "
            f"the data set has {len(tables.class_names)} ({', '.join(tables.class_names[:3])}, ...): read the data set "
            "with the class names of its matcher."
        )
    return mentions_of(tables.texts, matcher, cache_dir)


def mentions_of(texts: StringColumn, matcher: PhraseMatcher, cache_dir: Path | None = None) -> NDArray[np.bool_]:
    """Return which classes each of M captions names, wherever they come from.

    Args:
        texts: the captions.
        matcher: finds its C classes in captions.
        cache_dir: cache folder, see `cache.cache_root`.

    Returns:
        `[M, C]` bool, read-only, memory-mapped: processes share its pages.

    Raises:
        ConfigError: the cache folder cannot be written.
    """
    if not len(texts):
        return np.zeros((0, len(matcher.class_names)), np.bool_)
    key = hash_of(matcher.version, matcher.class_names, _hash_of_texts(texts))
    path = cache_root(cache_dir) / "mentions" / f"{key}.npy"
    if not path.is_file():
        require_writable(path.parent)
        found = _match(texts, matcher)
        with replacing(path) as file:
            np.save(file, found)
    mapped: NDArray[np.bool_] = np.load(path, mmap_mode="r")
    return mapped


def _hash_of_texts(texts: StringColumn) -> str:
    digest = hashlib.blake2b()
    for text in texts:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()


def _match(texts: StringColumn, matcher: PhraseMatcher) -> NDArray[np.bool_]:
    """Return `[M, C]`, asking the matcher once for captions that occur several times."""
    from rich.console import Console
    from rich.progress import Progress

    unique, positions = texts.unique()
    found = np.empty((len(unique), len(matcher.class_names)), np.bool_)
    with Progress(console=Console(stderr=True), disable=len(unique) < _LONG) as progress:
        task = progress.add_task("Classes that captions name", total=len(unique))
        for start in range(0, len(unique), _CHUNK):
            chunk = unique[start : start + _CHUNK]
            found[start : start + len(chunk)] = matcher.mentions(chunk)
            progress.advance(task, len(chunk))
    return found[positions]

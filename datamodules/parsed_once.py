"""Tables that are parsed once for the same source files, and then mapped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from datamodules.cache import hash_of, require_writable
from datamodules.image_files import all_present
from datamodules.tables import Tables


class Columns(NamedTuple):
    """What a parser finds: the columns of three tables as `Tables.write` takes them, and the names of the splits."""

    images: Mapping[str, Any]
    captions: Mapping[str, Any]
    objects: Mapping[str, Any]
    splits: Sequence[str]


def parsed_once(
    parse: Callable[[], Columns],
    cache: Path,
    fingerprint: str,
    root: Path | None,
    class_names: Sequence[str],
    beside: Sequence[Path] = (),
) -> Tables:
    """Return the tables of these source files and this image folder, parsed where they are not in the cache.

    Args:
        parse: reads the source files.
        cache: cache folder.
        fingerprint: hash of the source files and of all else that decides what `parse` finds.
        root: folder of the images, all of which must still be there; None where nobody asks for them.
        class_names: names of the C classes.
        beside: files that `parse` writes as well, without which the tables are no use.

    Raises:
        ConfigError: the cache folder cannot be written.
    """
    folder = cache / "tables" / hash_of(fingerprint, str(root))
    if folder.is_dir():
        tables = Tables(folder)
        if all(path.is_file() for path in beside) and (root is None or all_present(root, tables.files)):
            return tables
        tables.discard()
    require_writable(folder.parent)
    with _notice():
        images, captions, objects, splits = parse()
    return Tables.write(
        folder,
        images=images,
        captions=captions,
        objects=objects,
        class_names=class_names,
        splits=splits,
        fingerprint=fingerprint,
    )


def _notice() -> AbstractContextManager[Any]:
    """Say on a terminal why the first run takes longer than later ones."""
    from rich.console import Console

    return Console(stderr=True).status("Reading annotations, once; later runs map what is cached now")

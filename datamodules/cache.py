"""The cache folder: where it lies, how files get into it whole, and hashes of source files that are kept in it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from datamodules.errors import ConfigError

_SETTLED_NS = 2_000_000_000  # a younger file may change again within one tick of the file system's clock


def cache_root(folder: Path | None = None) -> Path:
    """Return the cache folder: the argument, else the environment variable ODMAP_CACHE, else `~/.cache/odmap`.

    >>> cache_root(Path("annotations/cache")).as_posix()
    'annotations/cache'
    """
    return Path(folder or os.environ.get("ODMAP_CACHE") or "~/.cache/odmap").expanduser()


@contextlib.contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Turn what the system says about a folder that cannot be written into a sentence about the config.

    Raises:
        ConfigError: the block met an OSError.
    """
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"The cache folder {folder.absolute()} cannot be written ({error.strerror or error}): set `cache_dir`, or "
            "the environment variable ODMAP_CACHE, to a folder that can."
        ) from error


def draft_beside(path: Path) -> Path:
    """Return an unused name in the folder of `path`, from where a finished file can be renamed to `path`."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}")


def require_writable(folder: Path) -> None:
    """Create `folder` and fail now, not after minutes of work, if it cannot hold files.

    Raises:
        ConfigError: it cannot.
    """
    probe = draft_beside(folder / "probe")
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that becomes `path` in one step when the block ends, or vanishes if the block fails.

    Several processes may do so at once: each writes its own draft, and readers see one whole file or another.

    Raises:
        ConfigError: the folder of `path` cannot be written.
    """
    draft = draft_beside(path)
    try:
        with writing_to(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("xb") as file:
                yield file
            draft.replace(path)
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def hash_of(*values: Any) -> str:
    """Return a hash of values that JSON can hold.

    >>> hash_of("reader", 1, ["cat", "dog"])
    'b30d4575d321bf4e2e7b4fe31f19d44b'
    """
    text = json.dumps(values, ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def content_hash(path: Path, cache: Path) -> str:
    """Return the hash of a file's content, without reading it where size and times are those of the last call.

    Args:
        path: the file.
        cache: folder that remembers the hash; a folder that cannot be written only costs the reading.
    """
    return contents_hash(path.parent, [path.name], cache)


def contents_hash(folder: Path, names: Sequence[str], cache: Path) -> str:
    """Return one hash of the contents of many files, read like `content_hash` only where one of them may have changed.

    Args:
        folder: the folder.
        names: the files, at least one, relative to it.
        cache: folder that remembers the hash.
    """
    stats = [os.stat(folder / name) for name in names]
    stamp = hash_of([[stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns] for stat in stats])
    note = cache / "hashes" / f"{hash_of(str(folder.resolve()), *names)}.json"
    known = _read_note(note)
    if known.get("stamp") == stamp:
        return str(known["hash"])
    digests = [_digest(folder / name) for name in names]
    digest = digests[0] if len(digests) == 1 else hash_of(*digests)
    if time.time_ns() - max(max(stat.st_mtime_ns, stat.st_ctime_ns) for stat in stats) > _SETTLED_NS:
        with contextlib.suppress(ConfigError), replacing(note) as draft:
            draft.write(json.dumps({"stamp": stamp, "hash": digest}).encode())
    return digest


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _read_note(note: Path) -> dict[str, Any]:
    try:
        known: dict[str, Any] = json.loads(note.read_bytes())
    except (OSError, ValueError):
        return {}
    return known

"""The output folder while a run works on it: whose it is, what is being made there, and how files get into it whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from datamodules.errors import ConfigError
from synth.config import RUN, writing_to

_TOLD = 3  # differing keys that a sentence names with their values


@contextmanager
def claimed(output: Path) -> Iterator[None]:
    """Lock an output folder, which is made where it is missing, until the block ends or the process dies.

    The lock is a record lock: worker processes do not inherit it, so that none of them holds it when their run is
    killed. A folder that holds nothing worth keeping at the end is removed again.

    Raises:
        ConfigError: another run has the lock, or the folder cannot be written.
    """
    with writing_to(output):
        (output / RUN).mkdir(parents=True, exist_ok=True)
        lock = (output / RUN / "lock").open("w")
    with lock:
        with writing_to(output):
            is_ours = _locked(lock)
        if not is_ours:
            raise ConfigError(
                f"`output` {output} is being written by another run; wait until that ends or name another folder."
            )
        try:
            yield
        finally:
            if not _config_file(output).exists():
                shutil.rmtree(output / RUN, ignore_errors=True)
                with suppress(OSError):
                    output.rmdir()


def _locked(lock: TextIO) -> bool:
    """Lock a file, and return whether that worked: it may be another's, who may also have removed it just now."""
    import fcntl

    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(lock.fileno()), os.stat(lock.name))
    except (BlockingIOError, PermissionError, FileNotFoundError):
        return False


def begin(output: Path, identity: dict[str, Any]) -> None:
    """Write down what is being made, before anything of it; or make sure that a run that goes on makes the same.

    Args:
        output: a claimed folder.
        identity: everything that decides what the set holds, as JSON.

    Raises:
        ConfigError: another config began here; the text names the first key that differs. Or what it wrote down is
            damaged.
    """
    path = _config_file(output)
    if not path.exists():
        write_whole(path, json.dumps(identity, indent=2))
        return
    try:
        told = difference(json.loads(path.read_bytes()), identity)
    except (ValueError, AttributeError) as error:
        raise ConfigError(
            f"{path} (in `output`), which says what the unfinished set is made of, is damaged; delete {output}."
        ) from error
    if told:
        raise ConfigError(
            f"`output` {output} holds an unfinished set made with {told}; go on with that config, name another "
            "`output` or delete that folder."
        )


def clear(output: Path) -> None:
    """Remove what only an unfinished set needs, and drafts that a killed run left."""
    shutil.rmtree(output / RUN, ignore_errors=True)
    for draft in output.glob(".*.part"):
        draft.unlink(missing_ok=True)


def shard_folder(output: Path, split: str) -> Path:
    """Return where the ranks write down what they have made of a split."""
    return output / RUN / split


def difference(there: dict[str, Any], wanted: dict[str, Any]) -> str | None:
    """Return the keys in which two configs differ, the first three with their values; None if they are equal.

    Example:
        >>> difference({"seed": 0, "fill": {"name": "zero"}}, {"seed": 1, "fill": {"name": "mean"}})
        "`seed` 0 instead of 1, `fill.name` 'zero' instead of 'mean'"
    """
    before, now = dict(_flat(there)), dict(_flat(wanted))
    differing = [key for key in dict.fromkeys([*now, *before]) if before.get(key) != now.get(key)]
    told = [f"`{key}` {before.get(key)!r} instead of {now.get(key)!r}" for key in differing[:_TOLD]]
    if more := len(differing) - len(told):
        told.append(f"{more} more key{'s' * (more > 1)}")
    return ", ".join(told) or None


def write_whole(path: Path, text: str) -> None:
    """Write a text file that is either there whole or not at all.

    Raises:
        ConfigError: the folder cannot be written.
    """
    with writing_to(path), whole(path) as draft:
        draft.write_text(text, encoding="utf-8")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a path to write to that becomes `path` in one step when the block ends, or vanishes if it fails.

    Its name ends in `.part` and has the number of this process, so that one left behind by a killed run is in
    nobody's way.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _config_file(output: Path) -> Path:
    return output / RUN / "config.json"


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value

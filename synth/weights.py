"""Weights of models: loaded from here or from the Hugging Face hub, and known by what they hold, not where they lie."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from hashlib import file_digest, sha256
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar

from datamodules.errors import ConfigError, MissingPathError, UserError

_Loaded = TypeVar("_Loaded")


def check_model(model: str, owner: str) -> None:
    """Tell a path that leads nowhere from the id of a model.

    Args:
        model: a folder, or an id on the hub, such as `PekingU/rtdetr_r50vd`.
        owner: class with the key `model` that says so.

    Raises:
        MissingPathError: it is a path, and nothing is there.
    """
    path_like = os.path.isabs(model) or model.startswith((".", "~")) or model.count("/") > 1
    if path_like and not Path(model).exists():
        raise MissingPathError(f"`model` of {owner} is {model}, but nothing is there; mend the path.")


def pretrained(load: Callable[..., _Loaded], model: str, owner: str, wanted: str) -> _Loaded:
    """Load a model; the hub is asked only for what is not whole here, and never for a folder.

    Args:
        load: called with `local_files_only`; it may refuse what it finds with a `ConfigError`.
        model: as for `check_model`.
        owner: class with the key `model` that says so.
        wanted: what `model` is to be, for the error.

    Returns:
        What `load` returned.

    Raises:
        ConfigError: the model cannot be loaded.
    """
    from safetensors import SafetensorError

    mistakes = (OSError, ValueError, KeyError, ImportError, RuntimeError, UnpicklingError, SafetensorError)
    is_here = Path(model).exists()
    if not is_here:
        with suppress(*mistakes):
            return load(local_files_only=True)
    try:
        return load(local_files_only=is_here)
    except UserError:
        raise
    except mistakes as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ConfigError(f"`model` {model} of {owner} cannot be loaded ({reason}); give {wanted}.") from error


def check_trained(network: Any, model: str, owner: str, task: str) -> None:
    """Refuse a network of `transformers` that was trained for another task: it loads without its last layers.

    Args:
        network: the network.
        model: where it comes from.
        owner: class with the key `model` that says so.
        task: what it must have been trained to do, for the error.

    Raises:
        ConfigError: it was.
    """
    kinds, needed = network.config.architectures or [], type(network).__name__
    if kinds and needed not in kinds:
        raise ConfigError(
            f"`model` {model} of {owner} holds a {kinds[0]}, which has no trained {needed}; give a model that was "
            f"trained to {task}."
        )


def content(path: Path | str, *patterns: str) -> str:
    """Return a hash of a file, or of the names and bytes of a folder's files, the same wherever they lie.

    Hidden files are not looked at. What is neither, the id of a model on the hub, stays as it is.

    Args:
        path: the file or folder.
        patterns: which files of a folder count; those of the folder itself by default.

    Raises:
        ConfigError: a file cannot be read.

    Example:
        >>> content("PekingU/rtdetr_r50vd")
        'PekingU/rtdetr_r50vd'
    """
    root = Path(path)
    if not root.is_dir():
        return f"sha256:{_digest(root)}" if root.is_file() else str(path)
    found = {file.relative_to(root): file for pattern in patterns or ("*",) for file in root.glob(pattern)}
    whole = sha256()
    for name, file in sorted(found.items()):
        if file.is_file() and not any(part.startswith(".") for part in name.parts):
            whole.update(f"{name.as_posix()}\n{_digest(file)}\n".encode())
    return f"sha256:{whole.hexdigest()}"


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"The file {path} of a model cannot be read ({error.strerror}); mend that.") from error

"""What a run's checkpoint holds, read without running any code of the file, and the class that it was saved from."""

from __future__ import annotations

import pickle
import sys
import zipfile
import zlib
from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from datamodules.errors import ConfigError, MissingPathError
from lightning_modules.messages import a_few

_KEPT = "a run keeps its checkpoints at RUNS/NAME/DATE/checkpoints/{best,last}.ckpt"


def read_checkpoint(path: str | Path, key: str = "checkpoint_path") -> dict[str, Any]:
    """Load the checkpoint of a run; tensors stay on disk until they are used.

    Args:
        path: of the checkpoint.
        key: what the user gave the path as, for messages.

    Raises:
        MissingPathError: there is no such file.
        ConfigError: torch cannot load it as plain data, or no run has saved it.
    """
    if not Path(path).is_file():
        raise MissingPathError(f"`{key}` is {path}, but {Path(path).absolute()} is no file; {_KEPT}.")
    held = read_plain(path, key)
    if not is_run(held):
        raise ConfigError(f"`{key}` is {path}, which holds weights but is no checkpoint of a run; {_KEPT}.")
    return cast("dict[str, Any]", held)


def read_plain(path: str | Path, key: str) -> Any:
    """Load a file that torch has saved, as plain data; tensors stay on disk until they are used.

    Args:
        path: of the file.
        key: what the user gave the path as, for messages.

    Raises:
        ConfigError: it is damaged, or torch cannot load it as plain data.
    """
    check_intact(path, key)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (EOFError, IndexError, KeyError, OSError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise ConfigError(f"`{key}` is {path}, which torch cannot load safely: it is damaged or foreign.") from error


def check_intact(path: str | Path, key: str) -> None:
    """Check the checksums that torch writes into its files and does not look at when it loads them.

    Args:
        path: of the file; one of another format passes.
        key: what the user gave the path as, for messages.

    Raises:
        ConfigError: a checksum does not fit.
    """
    found = Path(path).stat()
    if _is_damaged(str(path), found.st_mtime_ns, found.st_size):
        raise ConfigError(f"`{key}` is {path}, which is damaged: a checksum in it does not fit; take another copy.")


@lru_cache(maxsize=16)  # a file is looked at in several places, and read here but once while it stays the same
def _is_damaged(path: str, modified: int, size: int) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as parts:
            return parts.testzip() is not None
    except (EOFError, NotImplementedError, OSError, ValueError, zipfile.BadZipFile, zlib.error):
        return True


def checkpoint_class(path: str | Path, base: type[Any], key: str = "checkpoint_path") -> type[Any]:
    """Return the class of the model that a checkpoint was saved from.

    Only classes of this package and of modules that are imported already are found: a checkpoint must not be able to
    have code imported that the user did not ask for.

    Args:
        path: of the checkpoint.
        base: what the class has to be, or to be derived from.
        key: what the user gave the path as, for messages.

    Raises:
        MissingPathError: there is no such file.
        ConfigError: the file is damaged or foreign, or its class is unknown here or no `base`.
    """
    class_path = read_checkpoint(path, key).get("hyper_parameters", {}).get("_class_path")
    if not isinstance(class_path, str):
        raise ConfigError(
            f"`{key}` is {path}, which does not say what model it holds: no run of this project saved it."
        )
    kind = _find_class(class_path)
    if kind is None:
        raise ConfigError(
            f"`{key}` is {path}, which holds a {class_path}, a class that is not known here; import "
            f"{class_path.rpartition('.')[0]} first, with its folder on PYTHONPATH."
        )
    if not isinstance(kind, type) or not issubclass(kind, base):
        raise ConfigError(
            f"`{key}` is {path}, which holds a {class_path.rpartition('.')[2]} and no {base.__name__}; "
            "`ImageTextModule.load_from_checkpoint` rebuilds whatever model a checkpoint holds."
        )
    return kind


def is_run(held: object) -> bool:
    """Say whether what a file holds is the checkpoint of a run, and not merely weights or anything else."""
    return isinstance(held, dict) and {"state_dict", "pytorch-lightning_version"} <= held.keys()


def check_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Check that weights fit a model, by name and by shape.

    Raises:
        ConfigError: some are missing, unknown or of another shape.

    Example:
        >>> check_weights(nn.Linear(2, 1), {"weight": torch.ones(1, 3), "bais": torch.ones(1)})
        Traceback (most recent call last):
        datamodules.errors.ConfigError: The checkpoint does not fit the Linear that the arguments build: it lacks bias;
        it has bais too much; weight [1, 3] should be [1, 2].
    """
    own = model.state_dict()
    shapes = [
        f"{name} {list(weights[name].shape)} should be {list(tensor.shape)}"
        for name, tensor in own.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    found = {
        "it lacks {}": [name for name in own if name not in weights],
        "it has {} too much": [name for name in weights if name not in own],
        "{}": shapes,
    }
    if wrong := [sentence.format(a_few(names)) for sentence, names in found.items() if names]:
        raise ConfigError(
            f"The checkpoint does not fit the {type(model).__name__} that the arguments build: {'; '.join(wrong)}."
        )


def _find_class(class_path: str) -> Any:
    module, _, name = class_path.rpartition(".")
    if module.partition(".")[0] == __package__:
        try:
            return getattr(import_module(module), name, None)
        except ImportError:
            return None
    return getattr(sys.modules.get(module), name, None)

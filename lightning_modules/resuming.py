"""What can go on from a checkpoint: the model that it holds, while epochs and steps are left."""

from __future__ import annotations

import pkgutil
from typing import Any

from datamodules.errors import ConfigError
from lightning_modules.checkpoints import read_checkpoint


def check_resumable(path: str, kind: type[Any], class_path: str | None, max_epochs: int | None, max_steps: int) -> None:
    """Check that `fit` has something to do with a checkpoint, and does it with the model that the config names.

    Args:
        path: of the checkpoint of a run.
        kind: class that it holds.
        class_path: of the config's model; None where the config has none.
        max_epochs: `trainer.max_epochs`; None or below 0: no limit that is known here.
        max_steps: `trainer.max_steps`; below 0: no limit.

    Raises:
        ConfigError: the config has another model, or the checkpoint has reached a limit.
    """
    if class_path is not None and pkgutil.resolve_name(class_path) is not kind:
        raise ConfigError(
            f"`ckpt_path` is {path}, which holds a {kind.__name__}, but `model.class_path` is {class_path}: a training "
            "goes on with its own model; give the checkpoint of one, or the config of the other."
        )
    held = read_checkpoint(path, "ckpt_path")
    if reached := limit_reached(held, max_epochs, max_steps):
        unit, done, limit = reached
        raise ConfigError(
            f"There is nothing left to train: `ckpt_path` is {path}, which has finished {done} {unit}, and "
            f"`trainer.max_{unit}` is {limit}; raise it."
        )


def limit_reached(held: dict[str, Any], max_epochs: int | None, max_steps: int) -> tuple[str, int, int] | None:
    """Return the first limit that a checkpoint has reached: `epochs` or `steps`, how many are done, and the limit.

    Args:
        held: what the checkpoint holds, see `lightning_modules.checkpoints.read_checkpoint`.
        max_epochs: `trainer.max_epochs`; None or below 0: no limit that is known here.
        max_steps: `trainer.max_steps`; below 0: no limit.
    """
    limits = {"epochs": (epochs_done(held), max_epochs), "steps": (held.get("global_step", 0), max_steps)}
    return next(
        ((unit, done, limit) for unit, (done, limit) in limits.items() if limit is not None and 0 <= limit <= done),
        None,
    )


def epochs_done(held: dict[str, Any]) -> int:
    """Return how many epochs a checkpoint has finished, that one included whose validation it was saved at.

    Args:
        held: what the checkpoint holds, see `lightning_modules.checkpoints.read_checkpoint`.
    """
    loop = held.get("loops", {}).get("fit_loop", {})
    epochs: dict[str, int] = loop.get("epoch_progress", {}).get("current", {})
    processed = epochs.get("processed", 0)
    last_batch = loop.get("epoch_loop.batch_progress", {}).get("is_last_batch", False)
    return processed + int(epochs.get("ready", 0) > processed and last_batch)

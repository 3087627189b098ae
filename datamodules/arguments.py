"""Checks of what a config gives a datamodule."""

from __future__ import annotations

from datamodules.errors import ConfigError


def check_counts(
    eval_batch_size: int, num_workers: int, seed: int, eval_fold_size: int | None, eval_captions: int | None
) -> None:
    """Refuse numbers that no loader can have.

    Raises:
        ConfigError: one of them is too small.
    """
    if eval_batch_size < 1:
        raise ConfigError(f"eval_batch_size is {eval_batch_size}: give 1 or more (key `eval_batch_size`).")
    if num_workers < 0:
        raise ConfigError(f"num_workers is {num_workers}: give 0 or more processes (key `num_workers`).")
    if eval_fold_size is not None and eval_fold_size < 1:
        raise ConfigError(f"eval_fold_size is {eval_fold_size}: give 1 or more images, or null (key `eval_fold_size`).")
    if eval_captions is not None and eval_captions < 1:
        raise ConfigError(f"eval_captions is {eval_captions}: give 1 or more captions, or null (key `eval_captions`).")
    if seed < 0:
        raise ConfigError(f"seed is {seed}: give 0 or more (key `seed`).")

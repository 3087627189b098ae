"""What the commands that look at a finished set share: their options, and the set's config beside them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli import FriendlyErrors
from datamodules.errors import ConfigError
from datamodules.synthetic_set import check_origin, is_finished
from synth.config import SynthesisConfig, load


class FinishedSetParser(FriendlyErrors, argparse.ArgumentParser):
    """Options of a command that reads a finished set; every option that it does not have is a key of the config.

    Args:
        command: word after `python -m synth`.
        description: what the command does.
    """

    def __init__(self, command: str, description: str) -> None:
        super().__init__(
            prog=f"python -m synth {command}",
            usage="%(prog)s --config NAME.yaml [options] [keys of the config]",
            description=description,
            epilog="Keys of the config are given as to `python -m synth`, such as --output for where the set is.",
            allow_abbrev=False,
        )

    def read(self, arguments: list[str]) -> tuple[argparse.Namespace, SynthesisConfig]:
        """Return the options, and the config of a set that is there, with its data prepared.

        Raises:
            SystemExit: after one sentence, if an option, a key or a class is misspelled.
            UserError: the set is not there, unfinished or of another data set, or a value cannot work.
        """
        options, keys = self.parse_known_args(arguments)
        config = load(keys)
        if not is_finished(config.output):
            raise ConfigError(
                f"`output` {config.output} holds no finished synthetic set; make it with `python -m synth` and the "
                "same config, or say with `--output` where it is."
            )
        config.data.prepare_data()
        check_origin(config.output, config.data.tables.fingerprint, key="output")
        return options, config


def positive(text: str) -> int:
    """Return the positive integer that an option was given.

    Raises:
        argparse.ArgumentTypeError: it is none.

    Example:
        >>> positive("12")
        12
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer, got {text}")
    return int(text)


def from_zero(text: str) -> int:
    """Return the integer from 0 that an option was given.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be an integer from 0, got {text}")
    return int(text)


@contextmanager
def writing_results(path: Path) -> Iterator[None]:
    """Turn what the system says about a path that cannot be written into a sentence about `--to`.

    Raises:
        ConfigError: the block met an OSError.
    """
    try:
        yield
    except OSError as error:
        raise ConfigError(f"`--to` {path} cannot be written ({error.strerror}); name another place.") from error

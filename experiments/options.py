"""What all experiments share: their options, the data of a run's config, models of checkpoints, and where to write."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch

from cli import FriendlyParser, OptionsParser
from datamodules import RetrievalDataModule
from datamodules.errors import ConfigError, MissingPathError
from datamodules.grouped import GroupedDataModule
from experiments.yaml_files import read_mapping
from lightning_modules import ImageTextModule
from lightning_modules.checkpoints import checkpoint_class
from synth.finished import from_zero

Data: TypeAlias = RetrievalDataModule | GroupedDataModule
PROMPT = "a photo of a {}"


class ExperimentParser(OptionsParser):
    """Options of an experiment; every option that it does not have is a key of the data, such as `--data.class_path`.

    Args:
        name: of the experiment.
        description: what it does.
    """

    def __init__(self, name: str, description: str) -> None:
        super().__init__(
            prog=f"python -m experiments {name}",
            usage="%(prog)s --ckpt CHECKPOINT --data CONFIG.yaml [options] [keys of the data]",
            description=description,
            epilog="Keys of the data are given as to train.py, such as --data.init_args.root for where it lies.",
        )
        self.add_argument(
            "--data", type=Path, required=True, metavar="FILE", help="config of a run; its `data` is read"
        )
        self.add_argument("--split", default="test", metavar="NAME", help="images of this split; default: test")
        self.add_argument("--classes", nargs="+", metavar="NAME", help="classes to ask for; default: all")
        self.add_argument(
            "--prompt",
            nargs="+",
            type=template,
            default=[PROMPT],
            metavar="TEXT",
            help=f"what asks for a class, {{}} being its name, or several to take the mean of; default: {PROMPT}",
        )
        self.add_argument("--seed", type=from_zero, default=0, metavar="N", help="of what is drawn; default: 0")

    def read(self, arguments: Sequence[str]) -> tuple[argparse.Namespace, Data]:
        """Return the options, and the data, prepared.

        Raises:
            SystemExit: after one sentence, if an option, a key or a class is misspelled.
            UserError: the data are not there or broken, or a value cannot work.
        """
        options, keys = self.parse_known_args(arguments)
        data = load_data(options.data, keys)
        data.prepare_data()
        data.setup("test")
        return options, data


def template(text: str) -> str:
    """Return the prompt that an option was given.

    Raises:
        argparse.ArgumentTypeError: it has no place for a name, so that it would say the same of every class.
    """
    if "{}" not in text:
        raise argparse.ArgumentTypeError(f"must have {{}} where the name goes, as in {PROMPT!r}, got {text!r}")
    return text


def load_data(path: Path, keys: Sequence[str] = (), *, synthetic: bool = False) -> Data:
    """Build the data module of a run's config; its synthetic set, of which few experiments ask, is left out.

    Args:
        path: config with a section `data`.
        keys: what replaces single keys of it, as `["--data.init_args.root", "data/scenes"]`.
        synthetic: whether to keep it.

    Raises:
        MissingPathError: there is no such file.
        ConfigError: it is no config, or has no section `data`.
        SystemExit: after one sentence, if a key or a class is misspelled.
    """
    section = _section(path, "data")
    if not synthetic:
        (section.get("init_args") or {}).pop("synthetic", None)
    data: Data = _build((RetrievalDataModule, GroupedDataModule), "data", section, keys)
    return data


def load_model(given: str) -> ImageTextModule:
    """Return a model in evaluation mode, on the GPU where there is one.

    Args:
        given: path of a run's checkpoint, or of its config (.yaml) for its `model` before training, of which weights
            that are not pretrained are random.

    Raises:
        MissingPathError: there is no such file.
        ConfigError: it holds no model.
    """
    if Path(given).suffix in (".yaml", ".yml"):
        torch.manual_seed(0)
        model: ImageTextModule = _build(ImageTextModule, "model", _section(Path(given), "model"))
    else:
        checkpoint_class(given, ImageTextModule, "--ckpt")
        model = ImageTextModule.load_from_checkpoint(given, map_location="cpu")
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def _section(path: Path, key: str) -> dict[str, Any]:
    if not path.is_file():
        raise MissingPathError(f"{path} is to be read for its `{key}`, but {path.absolute()} is no file.")
    hint = "give the config of a run, as train.py takes it"
    section = read_mapping(path, hint).get(key)
    if not isinstance(section, dict):
        raise ConfigError(f"{path} has no section `{key}`; {hint}.")
    return section


def _build(base: Any, key: str, section: dict[str, Any], keys: Sequence[str] = ()) -> Any:
    import datamodules
    import lightning_modules

    for room in (datamodules, lightning_modules):  # names for configs
        for name in room.__all__:
            getattr(room, name)
    parser = FriendlyParser()
    parser.add_subclass_arguments(base, key, required=True)
    return parser.instantiate(parser.parse_args([f"--{key}", json.dumps(section), *keys]))[key]


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text; the first two columns to the left, numbers to the right."""
    import sys

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < 2 else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(width=None if sys.stdout.isatty() else 140, highlight=False).print(table)


def write_csv(path: Path, rows: Sequence[Sequence[object]]) -> None:
    """Write rows of cells, the first one being the names of the columns."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)

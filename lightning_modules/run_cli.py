"""LightningCLI with a fresh folder, a CSV log, the best checkpoint and a closing table for every run."""

from __future__ import annotations

import logging
import os
import pkgutil
import warnings
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException

from datamodules.errors import ConfigError, MissingPathError
from lightning_modules.base import RetrievalModule
from lightning_modules.callbacks import (
    CalmProgressBar,
    ClosingTable,
    LogRetrieved,
    SaveEmbeddings,
    SaveQueries,
    SaveRunConfig,
)
from lightning_modules.checkpoints import checkpoint_class
from lightning_modules.grouped import GroupedModule
from lightning_modules.image_text import ImageTextModule
from lightning_modules.resuming import check_resumable
from lightning_modules.run_folder import forget_run_folder, fresh_run_folder, share_run_folder, wandb_is_offline

_TRAINER_DEFAULTS = {
    "use_distributed_sampler": False,  # our samplers shard without repeating samples
    "num_sanity_val_steps": 0,  # scores of a few batches of a gallery mean nothing
    "logger": True,
}
_TERMINATED = 143  # as a shell says of a command that SIGTERM ended
_CHECKPOINT_DEFAULTS = {
    "checkpoint.mode": "max",
    "checkpoint.filename": "best",
    "checkpoint.auto_insert_metric_name": False,
    "checkpoint.enable_version_counter": False,
    "last.filename": "last",  # Lightning's `save_last` saves only where a new best one was saved
    "last.enable_version_counter": False,
}


class RetrievalCLI(LightningCLI):
    """Parses a config, prepares the run folder and its loggers, and runs the verb."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        defaults = {
            "subclass_mode_model": True,
            "subclass_mode_data": True,
            "auto_configure_optimizers": False,
            "seed_everything_default": 0,
            "save_config_callback": SaveRunConfig,
            "trainer_defaults": _TRAINER_DEFAULTS,
        }
        logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_no_advertisement)
        try:
            with warnings.catch_warnings():
                _ignore_what_users_cannot_change()
                super().__init__(*args, **{**defaults, **kwargs})
        except MisconfigurationException as error:
            raise ConfigError(_one_line(error)) from error
        except SIGTERMException as error:
            raise SystemExit(_TERMINATED) from error  # Lightning would end with 0, as if all epochs were trained
        finally:
            forget_run_folder()

    def setup_parser(self, *args: Any, **kwargs: Any) -> None:
        """Let the closing table speak in place of the Trainer's, which has a column for every loader."""
        super().setup_parser(*args, **kwargs)
        for verb in ("validate", "test"):
            self._parser(verb).set_defaults(verbose=False)

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add Trainer, data and model; the model may be missing, where a checkpoint brings it."""
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        parser.set_defaults({f"trainer.{key}": value for key, value in self.trainer_defaults.items()})
        parser.add_lightning_class_args(self._model_class, "model", subclass_mode=True, required=False)
        parser.add_lightning_class_args(self._datamodule_class, "data", subclass_mode=True)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the command line, and look at the checkpoint that it names before anything is built."""
        super().parse_arguments(parser, args)
        if verb := self.config.get("subcommand"):
            if path := self.config[verb].ckpt_path:  # "best" and "last" are no files: a fresh run folder has neither
                kind = checkpoint_class(path, ImageTextModule, "ckpt_path")
                if verb == "fit":
                    model, trainer = self.config.fit.model, self.config.fit.trainer
                    check_resumable(path, kind, model and model.class_path, trainer.max_epochs, trainer.max_steps)
            elif self.config[verb].model is None:
                raise ConfigError(
                    "There is no `model`: give its `class_path`, or with `--ckpt_path` a checkpoint that holds one."
                )
            _check_synthesis(self.config[verb].synthesis)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the keys that belong to no class."""
        parser.add_argument("--name", type=str, default="run", help="Name of the run's folder below `runs`.")
        parser.add_argument("--runs", type=str, default="runs", help="Folder of all runs.")
        parser.add_argument(
            "--synthesis",
            type=str | None,
            default=None,
            help="Config of `python -m synth` that is run first where its output is missing.",
        )
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        (monitor,) = (one for one in parser._actions if one.dest == "checkpoint.monitor")
        monitor.help = "logged score whose best epoch is kept; null: the `monitor` of the model, val/rsum of retrieval"
        parser.add_lightning_class_args(ModelCheckpoint, "last")
        parser.set_defaults(_CHECKPOINT_DEFAULTS)

    def before_instantiate_classes(self) -> None:
        """Make the run folder, point every logger at it, and have the best checkpoint chosen as the model says."""
        config = self.config[self.subcommand]
        if config.checkpoint.monitor is None:
            config.checkpoint.monitor = _monitor(config.model.class_path)
        self.run_folder = fresh_run_folder(Path(config.runs), config.name)
        share_run_folder(self.run_folder)
        config.trainer.default_root_dir = str(self.run_folder)
        for logger in _loggers(config.trainer.logger):
            if "save_dir" in logger.init_args:
                logger.init_args.save_dir = str(self.run_folder)
            if "offline" in logger.init_args and (reason := wandb_is_offline()):
                logger.init_args.offline = True
                os.environ.setdefault("WANDB_SILENT", "true")
                rank_zero_info(f"Weights & Biases stays offline, below {self.run_folder}: {reason}.")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the Trainer with a CSV log beside the configured loggers, and the callbacks of every run."""
        trainer = self._get(self.config_init, "trainer")
        configured = [logger for logger in _as_list(trainer.logger) if not isinstance(logger, bool | None)]
        csv = CSVLogger(save_dir=str(self.run_folder), name="", version="")
        for logger in configured:
            if isinstance(logger, WandbLogger):
                logger._wandb_init.pop("anonymous", None)  # wandb warns of it although Lightning passes None
        _ = csv.experiment  # opens the log while the folder is new: later it warns of the files of this very run
        callbacks: list[Callback] = [*_as_list(trainer.callbacks), ClosingTable()]
        if isinstance(self.model, RetrievalModule):
            callbacks += [SaveQueries(), LogRetrieved()]
        if not isinstance(self.model, GroupedModule):  # which predicts classes and writes those
            callbacks.append(SaveEmbeddings())
        if trainer.enable_progress_bar is not False and not any(isinstance(one, ProgressBar) for one in callbacks):
            callbacks.append(CalmProgressBar())
        trainer.callbacks = callbacks
        rank_zero_info(f"Run folder: {self.run_folder}")
        if path := self._get(self.config, "ckpt_path"):
            rank_zero_info(f"The model and its arguments come from {path}, whatever the config says of `model`.")
        try:
            return super().instantiate_trainer(logger=[csv, *configured], **kwargs)
        except (ImportError, MisconfigurationException, TypeError, ValueError) as error:
            raise ConfigError(f"The Trainer refuses a key below `trainer`: {_one_line(error)}") from error


def _monitor(class_path: str) -> str:
    monitor: str | None = getattr(pkgutil.resolve_name(class_path), "monitor", None)
    if monitor is None:
        raise ConfigError(
            f"`model.class_path` is {class_path}, which has no `monitor`: let the class name the logged score that "
            "`best.ckpt` is chosen by, or give `checkpoint.monitor`."
        )
    return monitor


def _check_synthesis(path: str | None) -> None:
    if path is not None and not Path(path).is_file():
        raise MissingPathError(
            f"`synthesis` is {path}, but {Path(path).absolute()} is no file: run the command from the folder that the "
            "path starts from, or give null to do without."
        )


def _ignore_what_users_cannot_change() -> None:
    for module in (
        r"lightning\.pytorch\.cli",
        r"lightning\.pytorch\.utilities\._pytree",
    ):  # deprecations among libraries
        warnings.filterwarnings("ignore", module=module)
    warnings.filterwarnings("ignore", message="The dirpath has changed")  # every run has a folder of its own


def _is_no_advertisement(record: logging.LogRecord) -> bool:
    return "Tip:" not in record.getMessage()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _loggers(configured: Any) -> list[Namespace]:
    return [logger for logger in _as_list(configured) if isinstance(logger, Namespace)]


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]

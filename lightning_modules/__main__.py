"""`python -m lightning_modules export CHECKPOINT FOLDER`: the encoders of a run for other programs.

The folder gets the weights as safetensors and a config, as the library loads them that the architecture is from: of a
CLIP, `open_clip.create_model_and_transforms("local-dir:FOLDER")` loads it, of a DualEncoder, timm and transformers each
load one half.
"""

from __future__ import annotations

import argparse
import shutil
from functools import partial
from pathlib import Path

from cli import FriendlyErrors, friendly


class _Parser(FriendlyErrors, argparse.ArgumentParser):
    """Answers a mistake in one sentence."""


def main(arguments: list[str] | None = None) -> int:
    """Export the model of a checkpoint; a mistake of the user's ends with one sentence and status 1 or 2."""
    parser = _Parser(prog="python -m lightning_modules", description="Work with the checkpoints of runs.")
    commands = parser.add_subparsers(required=True, metavar="export")
    export = commands.add_parser("export", help="write the encoders for other programs")
    export.add_argument(
        "checkpoint", type=Path, metavar="CHECKPOINT", help="of a run: RUNS/NAME/DATE/checkpoints/*.ckpt"
    )
    export.add_argument("folder", type=Path, metavar="FOLDER", help="new, or empty")
    given = parser.parse_args(arguments)
    return friendly(partial(_export, given.checkpoint, given.folder))


def _export(checkpoint: Path, folder: Path) -> int:
    from datamodules.errors import ConfigError
    from lightning_modules import ImageTextModule

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already and not empty; name a new folder for the export.")
    model = ImageTextModule.load_from_checkpoint(checkpoint, map_location="cpu")
    new = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        model.export(folder)
    except ConfigError:
        if new:
            shutil.rmtree(new[-1])
        raise
    print(f"{type(model).__name__} exported to {folder}: {', '.join(sorted(file.name for file in folder.iterdir()))}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Birds on land and on water: what Waterbirds asks, drawn, so that nothing has to be fetched."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from datamodules.scenes.birds.config import BirdCaptionsConfig, BirdScenesConfig
from datamodules.scenes.birds.writer import write_bird_captions, write_bird_scenes

if TYPE_CHECKING:
    from datamodules.scenes.birds.datamodules import BirdCaptionsDataModule, BirdScenesDataModule

__all__ = [
    "BirdCaptionsConfig",
    "BirdCaptionsDataModule",
    "BirdScenesConfig",
    "BirdScenesDataModule",
    "write_bird_captions",
    "write_bird_scenes",
]


def __getattr__(name: str) -> Any:
    """Import a datamodule where it is asked for, so that drawing loads no Lightning."""
    if name not in ("BirdCaptionsDataModule", "BirdScenesDataModule"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("datamodules.scenes.birds.datamodules"), name)

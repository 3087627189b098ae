"""Scenes, the embedded data set: drawn pictures with boxes and captions, and a planted correlation between classes."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from datamodules.scenes.config import ScenesConfig
from datamodules.scenes.writer import write_scenes

if TYPE_CHECKING:
    from datamodules.scenes.datamodule import ScenesDataModule

__all__ = ["ScenesConfig", "ScenesDataModule", "write_scenes"]


def __getattr__(name: str) -> Any:
    """Import the datamodule where it is asked for, so that drawing loads no Lightning."""
    if name != "ScenesDataModule":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("datamodules.scenes.datamodule").ScenesDataModule

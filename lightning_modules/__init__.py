"""Retrieval models: encoders, losses, evaluation steps and callbacks.

The public names are imported on first use, so that `lightning_modules.losses` alone does not load Lightning.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_modules.base import RetrievalModule
    from lightning_modules.clip import CLIP
    from lightning_modules.processor import Processor

__all__ = ["CLIP", "Processor", "RetrievalModule"]

_HOMES = {"CLIP": "clip", "Processor": "processor", "RetrievalModule": "base"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

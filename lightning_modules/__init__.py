"""Retrieval models: encoders, losses, evaluation steps and callbacks.

The public names are imported on first use, so that `lightning_modules.losses` alone does not load Lightning.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_modules.base import RetrievalModule
    from lightning_modules.blip import BLIP
    from lightning_modules.clip import CLIP
    from lightning_modules.dual_encoder import DualEncoder
    from lightning_modules.grouped import GroupedModule
    from lightning_modules.image_text import ImageTextModule
    from lightning_modules.processor import Processor
    from lightning_modules.reranking import RerankingModule
    from lightning_modules.siglip import SigLIP
    from lightning_modules.spurious_aware_clip import SpuriousAwareCLIP
    from lightning_modules.vsepp import VSEPP

__all__ = [
    "BLIP",
    "CLIP",
    "VSEPP",
    "DualEncoder",
    "GroupedModule",
    "ImageTextModule",
    "Processor",
    "RerankingModule",
    "RetrievalModule",
    "SigLIP",
    "SpuriousAwareCLIP",
]

_HOMES = {
    "BLIP": "blip",
    "CLIP": "clip",
    "DualEncoder": "dual_encoder",
    "GroupedModule": "grouped",
    "ImageTextModule": "image_text",
    "Processor": "processor",
    "RerankingModule": "reranking",
    "RetrievalModule": "base",
    "SigLIP": "siglip",
    "SpuriousAwareCLIP": "spurious_aware_clip",
    "VSEPP": "vsepp",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

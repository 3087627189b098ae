"""Retrieval models: encoders, losses, evaluation steps and callbacks."""

from lightning_modules.base import RetrievalModule
from lightning_modules.clip import CLIP
from lightning_modules.processor import Processor

__all__ = ["CLIP", "Processor", "RetrievalModule"]

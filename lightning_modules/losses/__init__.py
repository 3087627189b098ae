"""Losses as pure modules: tensors in, a scalar out."""

from lightning_modules.losses.contrastive import InfoNCELoss

__all__ = ["InfoNCELoss"]

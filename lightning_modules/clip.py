"""CLIP and its relatives, as open_clip builds them."""

from __future__ import annotations

from typing import Any

from torch import nn

from lightning_modules.contrastive import ContrastiveModule
from lightning_modules.open_clip_encoders import OpenClipEncoders


class CLIP(OpenClipEncoders, ContrastiveModule):
    """A contrastive image-text model: any open_clip architecture, or one whose config is given inline.

    The defaults are the paper's recipe for fine-tuning CLIP (Kim et al. 2023, section 4.1): OpenAI's ViT-B/32, Adam
    with learning rate 2e-6, halved every 2 epochs.

    Args:
        lr: learning rate.
        lr_halving_epochs: the learning rate is halved after every so many epochs; None: constant.
        **options: further arguments of `OpenClipEncoders`, `ContrastiveModule` and `RetrievalModule`.
    """

    def __init__(self, *, lr: float = 2e-6, lr_halving_epochs: float | None = 2, **options: Any) -> None:
        super().__init__(lr=lr, lr_halving_epochs=lr_halving_epochs, **options)

    @property
    def log_scale(self) -> nn.Parameter:
        """The logarithm `[]` of what cosines are multiplied by in the loss."""
        scale: nn.Parameter = self.model.logit_scale
        return scale

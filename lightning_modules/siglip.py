"""SigLIP, as open_clip builds it: every combination of an image and a caption is judged alone."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from datamodules.batch import RetrievalBatch
from datamodules.errors import ConfigError
from lightning_modules.base import RetrievalModule
from lightning_modules.losses import SigmoidLoss
from lightning_modules.open_clip_encoders import OpenClipEncoders


class SigLIP(OpenClipEncoders, RetrievalModule):
    """A model with the sigmoid loss (Zhai et al. 2023, "Sigmoid Loss for Language Image Pre-Training").

    Its scale is not clamped: published weights hold 112 (mlfoundations/open_clip, issue 746), above CLIP's bound.
    No recipe for fine-tuning it here is published; the defaults are those of CLIP.

    Args:
        architecture: an open_clip model that has a bias of its logits, such as "ViT-B-16-SigLIP"; a config given inline
            in its place has `init_logit_bias`.
        lr: learning rate.
        lr_halving_epochs: the learning rate is halved after every so many epochs; None: constant.
        **options: further arguments of `OpenClipEncoders` and `RetrievalModule`.

    Raises:
        ConfigError: when open_clip cannot build it, or it has no bias.
    """

    unused: ClassVar[tuple[str, ...]] = ("text_decoder.",)

    def __init__(
        self,
        *,
        architecture: str = "ViT-B-16-SigLIP",
        lr: float = 2e-6,
        lr_halving_epochs: float | None = 2,
        **options: Any,
    ) -> None:
        super().__init__(architecture=architecture, lr=lr, lr_halving_epochs=lr_halving_epochs, **options)
        if self.model.logit_bias is None:
            raise ConfigError(
                f"`model.init_args.architecture: {architecture}` has no bias of its logits, which the sigmoid loss "
                "learns; take one of open_clip's SigLIP models, or give `init_logit_bias: -10` in `model_config`."
            )
        self.loss = SigmoidLoss()

    def training_loss(self, batch: RetrievalBatch) -> Tensor:
        """Return the sigmoid loss of a batch of pairs, over all ranks."""
        images, texts = self.embed_pairs(batch)
        loss: Tensor = self.loss(images, texts, self.model.logit_scale.exp(), self.model.logit_bias)
        return loss

"""SigLIP, as open_clip builds it: every combination of an image and a caption is judged alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from datamodules.batch import RetrievalBatch, Tokens
from datamodules.errors import ConfigError
from lightning_modules.base import RetrievalModule
from lightning_modules.caption_tokenizer import pack_tokenizer
from lightning_modules.losses import SigmoidLoss
from lightning_modules.open_clip_files import export_open_clip
from lightning_modules.open_clip_models import build_open_clip, open_clip_processor, rebuild_arguments


class SigLIP(RetrievalModule):
    """A model with the sigmoid loss (Zhai et al. 2023, "Sigmoid Loss for Language Image Pre-Training").

    Its scale is not clamped: published weights hold 112 (mlfoundations/open_clip, issue 746), above CLIP's bound.
    No recipe for fine-tuning it here is published; the defaults are those of CLIP.

    Args:
        architecture: an open_clip model that has a bias of its logits, such as "ViT-B-16-SigLIP".
        pretrained: an open_clip tag ("webli"), the path of a checkpoint, or None for random weights.
        model_config: an open_clip config given inline, with `init_logit_bias`; it takes the place of `architecture`.
        preprocess_config: overrides of the preprocessing.
        tokenizer: folder or hub id of a tokenizer; None: that of the architecture. (In checkpoints: its files.)
        crop_scale: area range of the random crop in training.
        lr: learning rate.
        lr_halving_epochs: the learning rate is halved after every so many epochs; None: constant.
        **options: further arguments of `RetrievalModule`.

    Raises:
        ConfigError: when open_clip cannot build it, or it has no bias.
    """

    def __init__(
        self,
        architecture: str = "ViT-B-16-SigLIP",
        pretrained: str | None = None,
        model_config: dict[str, Any] | None = None,
        preprocess_config: dict[str, Any] | None = None,
        tokenizer: str | dict[str, str] | None = None,
        crop_scale: tuple[float, float] = (0.9, 1.0),
        lr: float = 2e-6,
        lr_halving_epochs: float | None = 2,
        **options: Any,
    ) -> None:
        super().__init__(lr=lr, lr_halving_epochs=lr_halving_epochs, **options)
        self.save_hyperparameters(logger=False)
        self.model, tokenize = build_open_clip(architecture, pretrained, model_config, preprocess_config, tokenizer)
        if self.model.logit_bias is None:
            raise ConfigError(
                f"`model.init_args.architecture: {architecture}` has no bias of its logits, which the sigmoid loss "
                "learns; take one of open_clip's SigLIP models, or give `init_logit_bias: -10` in `model_config`."
            )
        self.processor = open_clip_processor(self.model, tokenize, crop_scale)
        self.hparams.update(rebuild_arguments(self.model, architecture, model_config))
        self.hparams.update(tokenizer=pack_tokenizer(tokenize))
        self.loss = SigmoidLoss()

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """Map images `[B, 3, H, W]` to unit rows `[B, D]`."""
        return F.normalize(self.model.encode_image(pixel_values).float(), dim=-1)

    def encode_texts(self, tokens: Tokens) -> Tensor:
        """Map token ids `[B, L]` int64 to unit rows `[B, D]`."""
        return F.normalize(self.model.encode_text(tokens).float(), dim=-1)

    def training_loss(self, batch: RetrievalBatch) -> Tensor:
        """Return the sigmoid loss of a batch of pairs, over all ranks."""
        images, texts = self.embed_pairs(batch)
        loss: Tensor = self.loss(images, texts, self.model.logit_scale.exp(), self.model.logit_bias)
        return loss

    def export(self, folder: Path) -> None:
        """Write weights and config that `open_clip.create_model_and_transforms("local-dir:FOLDER")` loads."""
        export_open_clip(self.model, self.processor.tokenize, self.hparams["model_config"], folder)

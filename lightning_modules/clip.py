"""CLIP and its relatives, as open_clip builds them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.batch import RetrievalBatch, Tokens
from lightning_modules.base import RetrievalModule
from lightning_modules.losses import InfoNCELoss
from lightning_modules.open_clip_models import build_open_clip, open_clip_processor, rebuild_arguments

_MAX_LOG_SCALE = math.log(100)  # the bound of Radford et al. 2021, section 2.5


class CLIP(RetrievalModule):
    """A contrastive image-text model: any open_clip architecture, or one whose config is given inline.

    The defaults are the paper's recipe for fine-tuning CLIP (Kim et al. 2023, section 4.1): OpenAI's ViT-B/32, Adam
    with learning rate 2e-6, halved every 2 epochs.

    Args:
        architecture: an open_clip model name, such as "ViT-B-32" (`open_clip.list_models()` lists them).
        pretrained: an open_clip tag ("openai"), the path of a checkpoint, or None for random weights.
        model_config: an open_clip config given inline (`{embed_dim, vision_cfg, text_cfg, ...}`); it takes the place of
            `architecture`.
        preprocess_config: overrides of the preprocessing (`{mean, std, interpolation, resize_mode, ...}`).
        crop_scale: area range of the random crop in training; (1.0, 1.0) trains on the evaluation transform.
        optimizer: name of a class in `torch.optim`.
        lr: learning rate.
        optimizer_args: further arguments of the optimiser.
        lr_halving_epochs: the learning rate is halved after every so many epochs; None: constant.
        top_k: cut-offs k of recall and ODmAP.

    Raises:
        ConfigError: when open_clip knows no such architecture or weights, or the weights do not fit the architecture.
    """

    def __init__(
        self,
        architecture: str = "ViT-B-32",
        pretrained: str | None = None,
        model_config: dict[str, Any] | None = None,
        preprocess_config: dict[str, Any] | None = None,
        crop_scale: tuple[float, float] = (0.9, 1.0),
        optimizer: str = "Adam",
        lr: float = 2e-6,
        optimizer_args: dict[str, Any] | None = None,
        lr_halving_epochs: float | None = 2,
        top_k: Sequence[int] = (1, 5, 10),
    ) -> None:
        super().__init__(
            optimizer=optimizer,
            lr=lr,
            optimizer_args=optimizer_args,
            lr_halving_epochs=lr_halving_epochs,
            top_k=top_k,
        )
        self.save_hyperparameters(logger=False)
        self.model, tokenizer = build_open_clip(architecture, pretrained, model_config, preprocess_config)
        self.processor = open_clip_processor(self.model, tokenizer, crop_scale)
        self.hparams.update(rebuild_arguments(self.model, architecture, model_config))
        self.loss = InfoNCELoss()

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """Map images `[B, 3, H, W]` to unit rows `[B, D]`."""
        return F.normalize(self.model.encode_image(pixel_values).float(), dim=-1)

    def encode_texts(self, tokens: Tokens) -> Tensor:
        """Map token ids `[B, L]` int64 to unit rows `[B, D]`."""
        return F.normalize(self.model.encode_text(tokens).float(), dim=-1)

    def training_loss(self, batch: RetrievalBatch) -> Tensor:
        """Return the contrastive loss of a batch of pairs, over all ranks."""
        images, texts = self.embed_pairs(batch)
        scale = self.model.logit_scale.exp()
        self.log("train/logit_scale", scale.detach())
        loss: Tensor = self.loss(images, texts, scale)
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take a step, then clamp the learned log scale to [0, ln 100]."""
        super().optimizer_step(*args, **kwargs)
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, _MAX_LOG_SCALE)

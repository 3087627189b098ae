"""CLIP and its relatives, as open_clip builds them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.batch import RetrievalBatch, Tokens
from lightning_modules.arguments import check_range
from lightning_modules.base import RetrievalModule
from lightning_modules.caption_tokenizer import pack_tokenizer
from lightning_modules.losses import CounterfactualMarginLoss, InfoNCELoss
from lightning_modules.losses.contrastive import Positives
from lightning_modules.open_clip_files import export_open_clip
from lightning_modules.open_clip_models import build_open_clip, open_clip_processor, rebuild_arguments

_MAX_LOG_SCALE = math.log(100)  # the bound of Radford et al. 2021, section 2.5
_UNUSED = ("logit_bias", "text_decoder.")  # by encoders and loss; DDP would wait for their gradients


class CLIP(RetrievalModule):
    """A contrastive image-text model: any open_clip architecture, or one whose config is given inline.

    The defaults are the paper's recipe for fine-tuning CLIP (Kim et al. 2023, section 4.1): OpenAI's ViT-B/32, Adam
    with learning rate 2e-6, halved every 2 epochs.

    Args:
        architecture: an open_clip model name, such as "ViT-B-32" (`open_clip.list_models()` lists them), or
            `local-dir:FOLDER` or `hf-hub:NAME` for a model with weights, such as an exported one.
        pretrained: an open_clip tag ("openai"), the path of a checkpoint, or None for random weights.
        model_config: an open_clip config given inline (`{embed_dim, vision_cfg, text_cfg, ...}`); it takes the place of
            `architecture`.
        preprocess_config: overrides of the preprocessing (`{mean, std, interpolation, resize_mode, ...}`).
        tokenizer: folder or hub id of a tokenizer of transformers; None: that of the architecture. (In checkpoints, the
            files of a tokenizer that is not open_clip's own.)
        crop_scale: area range of the random crop in training; (1.0, 1.0) trains on the evaluation transform.
        positives: what another pair of the same image is to the loss: a negative ("diagonal", as in CLIP), one more
            positive ("same_image_soft"), or neither ("mask_same_image").
        counterfactual_weight: weight of a margin between a synthetic pair and its source, where a batch holds both
            (`data.init_args.pair_with_source`); 0: the contrastive loss alone.
        counterfactual_margin: that margin, in units of cosine.
        gradient_checkpointing: whether the transformers keep the inputs of their layers only and compute the rest again
            in the backward pass: less memory, more time. open_clip's ResNets know no such thing; `micro_batch_size`
            works for all.
        lr: learning rate.
        lr_halving_epochs: the learning rate is halved after every so many epochs; None: constant.
        **options: further arguments of `RetrievalModule`.

    Raises:
        ConfigError: when open_clip knows no such architecture or weights, or the weights do not fit the architecture.
    """

    def __init__(
        self,
        architecture: str = "ViT-B-32",
        pretrained: str | None = None,
        model_config: dict[str, Any] | None = None,
        preprocess_config: dict[str, Any] | None = None,
        tokenizer: str | dict[str, str] | None = None,
        crop_scale: tuple[float, float] = (0.9, 1.0),
        positives: Positives = "diagonal",
        counterfactual_weight: float = 0.0,
        counterfactual_margin: float = 0.2,
        gradient_checkpointing: bool = False,
        lr: float = 2e-6,
        lr_halving_epochs: float | None = 2,
        **options: Any,
    ) -> None:
        super().__init__(lr=lr, lr_halving_epochs=lr_halving_epochs, **options)
        self.save_hyperparameters(logger=False)
        check_range(0, counterfactual_weight=counterfactual_weight)
        self.model, tokenize = build_open_clip(architecture, pretrained, model_config, preprocess_config, tokenizer)
        for name, parameter in self.model.named_parameters():
            if name.startswith(_UNUSED):
                parameter.requires_grad_(False)
        if gradient_checkpointing:
            self.model.set_grad_checkpointing()
        self.processor = open_clip_processor(self.model, tokenize, crop_scale)
        self.hparams.update(rebuild_arguments(self.model, architecture, model_config))
        self.hparams.update(tokenizer=pack_tokenizer(tokenize))
        self.loss = InfoNCELoss(positives)
        self.counterfactual_loss = CounterfactualMarginLoss(counterfactual_margin)
        self.counterfactual_weight = counterfactual_weight

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """Map images `[B, 3, H, W]` to unit rows `[B, D]`."""
        return F.normalize(self.model.encode_image(pixel_values).float(), dim=-1)

    def encode_texts(self, tokens: Tokens) -> Tensor:
        """Map token ids `[B, L]` int64 to unit rows `[B, D]`."""
        return F.normalize(self.model.encode_text(tokens).float(), dim=-1)

    def training_loss(self, batch: RetrievalBatch) -> Tensor:
        """Return the contrastive loss of a batch of pairs, over all ranks, and the weighted counterfactual margin."""
        images, texts = self.embed_pairs(batch)
        scale = self.model.logit_scale.exp()
        self.log("train/logit_scale", scale.detach())
        loss: Tensor = self.loss(images, texts, scale, batch.image_ids)
        if self.counterfactual_weight:
            margins = self.counterfactual_loss(
                images, texts, batch.caption_ids, batch.source_caption_ids, batch.synthetic
            )
            self.log("train/counterfactual_loss", margins.detach())
            loss = loss + self.counterfactual_weight * margins
        return loss

    def export(self, folder: Path) -> None:
        """Write weights and config that `open_clip.create_model_and_transforms("local-dir:FOLDER")` loads."""
        export_open_clip(self.model, self.processor.tokenize, self.hparams["model_config"], folder)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take a step, then clamp the learned log scale to [0, ln 100]."""
        super().optimizer_step(*args, **kwargs)
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, _MAX_LOG_SCALE)

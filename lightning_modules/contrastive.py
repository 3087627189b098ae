"""Training by contrast alone: what CLIP and any two towers with a learned scale of their similarities share."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from datamodules.batch import RetrievalBatch
from lightning_modules.arguments import check_range
from lightning_modules.base import RetrievalModule
from lightning_modules.losses import CounterfactualMarginLoss, InfoNCELoss
from lightning_modules.losses.contrastive import Positives

_MAX_LOG_SCALE = math.log(100)  # the bound of Radford et al. 2021, section 2.5


class ContrastiveModule(RetrievalModule):
    """A retrieval model with the contrastive loss (Radford et al. 2021, section 2.3) over the pairs of all ranks.

    A subclass implements `log_scale` beside what every `RetrievalModule` implements but for `training_loss`.

    Args:
        positives: what another pair of the same image is to the loss: a negative ("diagonal", as in CLIP), one more
            positive ("same_image_soft"), or neither ("mask_same_image").
        counterfactual_weight: weight of a margin between a synthetic pair and its source, where a batch holds both
            (`data.init_args.pair_with_source`); 0: the contrastive loss alone. The margin assumes that the caption of
            the source names what was removed: captions by noun phrases do by construction, prompts by chance.
        counterfactual_margin: that margin, in units of cosine.
        **options: further arguments of `RetrievalModule`.

    Raises:
        ConfigError: when a number is out of its range.
    """

    def __init__(
        self,
        *,
        positives: Positives = "diagonal",
        counterfactual_weight: float = 0.0,
        counterfactual_margin: float = 0.2,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_range(0, counterfactual_weight=counterfactual_weight)
        self.loss = InfoNCELoss(positives)
        self.counterfactual_loss = CounterfactualMarginLoss(counterfactual_margin)
        self.counterfactual_weight = counterfactual_weight

    @property
    @abstractmethod
    def log_scale(self) -> nn.Parameter:
        """The logarithm `[]` of what cosines are multiplied by in the loss."""

    def training_loss(self, batch: RetrievalBatch) -> Tensor:
        """Return the contrastive loss of a batch of pairs, over all ranks, and the weighted counterfactual margin."""
        images, texts = self.embed_pairs(batch)
        scale = self.log_scale.exp()
        self.log("train/logit_scale", scale.detach())
        loss: Tensor = self.loss(images, texts, scale, batch.image_ids)
        if self.counterfactual_weight:
            ids = batch.caption_ids, batch.source_caption_ids, batch.synthetic
            margins = self.counterfactual_loss(images, texts, *ids)
            self.log("train/counterfactual_loss", margins.detach())
            loss = loss + self.counterfactual_weight * margins
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take a step, then clamp the learned log scale to [0, ln 100]."""
        super().optimizer_step(*args, **kwargs)
        with torch.no_grad():
            self.log_scale.clamp_(0, _MAX_LOG_SCALE)

"""Training by contrast alone: what CLIP and any two towers with a learned scale of their similarities share."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from datamodules.batch import RetrievalBatch
from lightning_modules.arguments import check_range
from lightning_modules.base import RetrievalModule
from lightning_modules.losses import CounterfactualMarginLoss, InfoNCELoss
from lightning_modules.losses.contrastive import Positives
from lightning_modules.micro_batches import encode_in_parts
from lightning_modules.spurious_pairs import build_spurious_terms

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
        spurious_pairs: pairs of classes that mostly come together, `[[dog, frisbee], ...]`, or a csv file that begins
            with them, such as the `images_pairs.csv` of `python -m synth stats`; None: no term of them.
        spurious_pair_count: how many pairs of the file are taken, the first ones.
        spurious_templates: sentences with `{}` where the name of a class goes, like the captions of the data.
        spurious_weight: weight of `SpuriousPairsLoss`: an image that shows one class of a pair alone has to be nearer
            to its prompt than to that of the other. It needs data with objects.
        spurious_language_weight: weight of the mean cosine between the prompts of partners, which pushes them apart.
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
        spurious_pairs: str | list[list[str]] | None = None,
        spurious_pair_count: int = 20,
        spurious_templates: Sequence[str] = ("a photo of a {}.",),
        spurious_weight: float = 0.0,
        spurious_language_weight: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_range(0, counterfactual_weight=counterfactual_weight)
        self.loss = InfoNCELoss(positives)
        self.counterfactual_loss = CounterfactualMarginLoss(counterfactual_margin)
        self.counterfactual_weight = counterfactual_weight
        check_range(1, spurious_pair_count=spurious_pair_count)
        weights = {"spurious_weight": spurious_weight, "spurious_language_weight": spurious_language_weight}
        self.spurious = build_spurious_terms(spurious_pairs, spurious_pair_count, spurious_templates, weights)

    def setup(self, stage: str) -> None:
        """Look up what the training images show, where a term asks for it.

        Raises:
            ConfigError: the data does not know that, or not the classes of `spurious_pairs`.
        """
        super().setup(stage)
        if stage == "fit" and self.spurious is not None:
            self.spurious.prepare(getattr(self.trainer, "datamodule", None), self.processor.tokenize)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note the pairs themselves, so that no file is needed to rebuild the model."""
        super().on_save_checkpoint(checkpoint)
        if self.spurious is not None:
            checkpoint["hyper_parameters"]["spurious_pairs"] = self.spurious.pairs

    @property
    @abstractmethod
    def log_scale(self) -> nn.Parameter:
        """The logarithm `[]` of what cosines are multiplied by in the loss."""

    def training_loss(self, batch: RetrievalBatch) -> Tensor:
        """Return the contrastive loss of a batch of pairs, over all ranks, and the other terms times their weights."""
        images, texts = self.embed_pairs(batch)
        scale = self.log_scale.exp()
        self.log("train/logit_scale", scale.detach())
        loss: Tensor = self.loss(images, texts, scale, batch.image_ids)
        if self.counterfactual_weight:
            ids = batch.caption_ids, batch.source_caption_ids, batch.synthetic
            margins = self.counterfactual_loss(images, texts, *ids)
            self.log("train/counterfactual_loss", margins.detach())
            loss = loss + self.counterfactual_weight * margins
        if self.spurious is not None:
            tokens = self.transfer_batch_to_device(self.spurious.tokens, self.device, 0)
            prompts = encode_in_parts(self._texts_encoder, tokens, self.micro_batch_size, self)
            terms = self.spurious(images, prompts, scale, batch.image_ids)
            self.log_dict({f"train/{name}": term.detach() for name, term in terms.items()})
            loss = loss + self.spurious.weighted(terms)
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take a step, then clamp the learned log scale to [0, ln 100]."""
        super().optimizer_step(*args, **kwargs)
        with torch.no_grad():
            self.log_scale.clamp_(0, _MAX_LOG_SCALE)

"""BLIP for image-text retrieval: contrast with momentum targets, matching with hard negatives, re-ranking."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from datamodules.batch import RetrievalBatch, Tokens
from lightning_modules.arguments import check_range
from lightning_modules.blip_matching import matching_combinations
from lightning_modules.blip_models import build_blip, held_vocabulary, rebuild_config
from lightning_modules.blip_processor import BlipTokenizer, blip_processor, build_tokenizer, export_processor
from lightning_modules.blip_towers import image_embeddings, image_states, matching_logits, text_embeddings
from lightning_modules.distributed import share_buffers
from lightning_modules.losses import CounterfactualMarginLoss, MatchingLoss, MomentumContrastiveLoss
from lightning_modules.losses.arguments import checked_choice
from lightning_modules.micro_batches import encode_in_parts
from lightning_modules.momentum import MomentumCopy
from lightning_modules.reranking import RerankingModule

Negatives: TypeAlias = Literal["all_ranks", "local"]

_TEMPERATURES = (0.001, 0.5)  # the bounds of BLIP's own code


class BLIP(RerankingModule):
    """BLIP's retrieval model over the towers of `transformers` (Li et al. 2022, "BLIP", sections 3.2 and 5.1).

    The loss is that of its released training code: the contrastive loss against a momentum copy of the model and a
    queue of its embeddings, plus the matching loss on every pair, every caption with a hard negative image and every
    image with a hard negative caption. The defaults are the paper's recipe (Kim et al. 2023, section 4.1): AdamW with
    learning rate 1e-5, halved every half epoch; it runs 2 epochs in batches of 16.

    The temperature is clamped and the momentum copy moved after every optimiser step, where BLIP's code does both at
    the start of the next one: the batches see the same, also where gradients are accumulated over several.

    Args:
        pretrained: folder or hub id of a model of transformers ("Salesforce/blip-itm-base-coco"), the path of a
            checkpoint of BLIP's own code (`.pth`) or of a run, whose tokenizer is taken, too, or None for random
            weights.
        config: overrides of transformers' config: `{text_config, vision_config, image_text_hidden_size}`. Without
            `pretrained` the rest is that of BLIP with ViT-B/16.
        tokenizer: of BERT: path of a `vocab.txt`, folder or hub id of a tokenizer, or the list of its tokens.
        image_size: side of the images, in pixels; None: that of the model. Position embeddings are interpolated.
        max_length: tokens of a caption, with `[CLS]` and `[SEP]`.
        max_words: words of a caption that are looked at.
        text_dropout: probability of dropout in the text tower, as in BLIP's own code; models of transformers say 0.
        crop_scale: area range of the random crop in training.
        flip: whether half of the training images are mirrored; not for captions that tell left from right.
        augment: operations of the random augmentation, and their magnitude from 0 to 10; [0, 0]: none.
        temperature: what similarities are divided by at the start, where a checkpoint does not say; it is learned.
        momentum: share of its weights that the momentum copy keeps at a step.
        queue_size: momentum embeddings that are kept as negatives; any number.
        alpha: weight of the momentum copy's softmax in the targets, in the end.
        alpha_epochs: epochs over which that weight rises from 0: 1 in BLIP's own code, 2 in LAVIS.
        negatives: whether hard negatives come from all ranks or from the local one.
        counterfactual_weight: weight of a margin between a synthetic pair and its source, where a batch holds both
            (`data.init_args.pair_with_source`); 0: no such margin. It assumes that the caption of the source names what
            was removed: captions by noun phrases do by construction, prompts by chance.
        counterfactual_margin: that margin, of cosines.
        rerank_top_k: how many results of every query are re-ranked by matching in evaluation; 0: none.
        optimizer: name of a class in `torch.optim`.
        lr: learning rate.
        lr_halving_epochs: the learning rate is halved after every so many epochs; None: constant.
        **options: the other arguments of `RerankingModule` and `RetrievalModule`.

    Raises:
        ConfigError: when transformers has no such model or tokenizer, they do not fit, or a number is out of its range.
    """

    draws: Tensor

    def __init__(
        self,
        pretrained: str | None = None,
        config: dict[str, Any] | None = None,
        tokenizer: str | list[str] = "bert-base-uncased",
        image_size: int | None = None,
        max_length: int = 35,
        max_words: int = 30,
        text_dropout: float = 0.1,
        crop_scale: tuple[float, float] = (0.5, 1.0),
        flip: bool = True,
        augment: tuple[int, float] = (2, 5.0),
        temperature: float = 0.07,
        momentum: float = 0.995,
        queue_size: int = 57_600,
        alpha: float = 0.4,
        alpha_epochs: float = 1,
        negatives: Negatives = "all_ranks",
        counterfactual_weight: float = 0.0,
        counterfactual_margin: float = 0.2,
        rerank_top_k: int = 256,
        optimizer: str = "AdamW",
        lr: float = 1e-5,
        lr_halving_epochs: float | None = 0.5,
        **options: Any,
    ) -> None:
        super().__init__(
            optimizer=optimizer, lr=lr, lr_halving_epochs=lr_halving_epochs, rerank_top_k=rerank_top_k, **options
        )
        self.save_hyperparameters(logger=False)
        # Around the towers the length of captions is looked at, which no graph can hold: they are compiled themselves.
        self.compiles_towers, self.compiled = self.compiled, False
        check_range(0, 1, alpha=alpha, text_dropout=text_dropout)
        check_range(0, alpha_epochs=alpha_epochs, counterfactual_weight=counterfactual_weight)
        check_range(*_TEMPERATURES, temperature=temperature)
        dropout = {"hidden_dropout_prob": text_dropout, "attention_probs_dropout_prob": text_dropout}
        self.tokenizer = BlipTokenizer(build_tokenizer(held_vocabulary(pretrained) or tokenizer), max_length, max_words)
        parts = build_blip(pretrained, config, image_size, dropout | self.tokenizer.ids)
        self.model = parts.model
        sizes: Any = parts.model.config
        self.tokenizer.check(sizes.text_config)
        self.image_size = int(sizes.vision_config.image_size)
        self.processor = blip_processor(self.tokenizer, self.image_size, crop_scale, flip, augment)
        self.hparams.update(pretrained=None, config=rebuild_config(sizes), tokenizer=self.tokenizer.vocabulary)
        self.momentum_copy = MomentumCopy(parts.momentum or parts.model, momentum)
        start = torch.tensor(temperature) if parts.temperature is None else parts.temperature
        self.temperature = nn.Parameter(start.detach().clone().reshape(()).clamp(*_TEMPERATURES))
        self.contrastive = MomentumContrastiveLoss(sizes.image_text_hidden_size, queue_size)
        _fill_queues(self.contrastive, parts.queues)
        self.matching, self.counterfactual = MatchingLoss(), CounterfactualMarginLoss(counterfactual_margin)
        self.alpha, self.alpha_epochs, self.ramp_steps = alpha, alpha_epochs, 0.0
        self.everywhere = checked_choice("negatives", negatives, Negatives) == "all_ranks"
        self.counterfactual_weight = counterfactual_weight
        # Seeds the draw of negatives and counts up: a part of the checkpoint, and by DDP the same on all ranks.
        self.register_buffer("draws", torch.randint(2**40, ()))
        # Every rank puts the same rows into its queue; DDP would send the whole queue again before every step.
        self._ddp_params_and_buffers_to_ignore = [f"contrastive.{name}" for name, _ in self.contrastive.named_buffers()]

    def encode_with_states(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Map images `[B, 3, H, W]` to unit rows `[B, D]` and to the states `[B, T, W]` of the vision tower."""
        states = image_states(self.model, pixel_values)
        return image_embeddings(self.model, states), states

    def encode_texts(self, tokens: Tokens) -> Tensor:
        """Map tokens, `input_ids` and `attention_mask` `[B, L]` int64, to unit rows `[B, D]`."""
        return text_embeddings(self.model, _fields(tokens))

    def match_captions(self, states: Tensor, tokens: Tokens) -> Tensor:
        """Map the states of one image `[1, T, W]` and tokens `[N, L]` to the logits of "together", `[N]`."""
        return matching_logits(self.model, states, _fields(tokens), self.tokenizer.match_token)[:, 1]

    def training_loss(self, batch: RetrievalBatch) -> Tensor:
        """Return the contrastive plus the matching loss of a batch of pairs, over all ranks."""
        if batch.pixel_values is None or batch.tokens is None:
            raise ValueError("A training batch of BLIP needs both `pixel_values` and `tokens`.")
        states = self._in_parts(lambda pixels: image_states(self.model, pixels), batch.pixel_values)
        images, texts = image_embeddings(self.model, states), self._in_parts(self.encode_texts, batch.tokens)
        self.alarm.look(images, texts)
        losses = {
            "contrastive": self._contrastive_loss(batch, images, texts),
            "matching": self._matching_loss(batch, states, images, texts),
        }
        if self.counterfactual_weight:
            ids = batch.caption_ids, batch.source_caption_ids, batch.synthetic
            losses["counterfactual"] = self.counterfactual_weight * self.counterfactual(images, texts, *ids)
        self.log_dict({f"train/loss_{name}": loss.detach() for name, loss in losses.items()}, batch_size=len(batch))
        self.log("train/temperature", self.temperature.detach())
        return torch.stack(list(losses.values())).sum()

    def on_train_start(self) -> None:
        """Start all ranks with one queue, and note how many steps the weight of the momentum copy takes to rise."""
        super().on_train_start()
        share_buffers(self.contrastive)
        self.ramp_steps = self.alpha_epochs * self._steps_per_epoch()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take a step and `follow`."""
        super().optimizer_step(*args, **kwargs)
        self.follow()

    @torch.no_grad()
    def follow(self) -> None:
        """Clamp the temperature and let the momentum copy follow; a training loop calls it after every step."""
        self.temperature.clamp_(*_TEMPERATURES)
        self.momentum_copy.follow(self.model)

    def configure_model(self) -> None:
        """Compile the towers where that is asked for, also those of the momentum copy."""
        super().configure_model()
        if self.compiles_towers:
            models: tuple[Any, ...] = (self.model, self.momentum_copy.model)
            for tower in [tower for model in models for tower in (model.vision_model, model.text_encoder)]:
                tower.compile()

    def export(self, folder: Path) -> None:
        """Write towers, heads and processor as transformers' `BlipForImageTextRetrieval` and `BlipProcessor` load them.

        Its matching scores equal those here where `[ENC]` takes the place of `[CLS]` in `input_ids`.
        """
        self.model.save_pretrained(folder)
        export_processor(self.tokenizer.tokenizer, self.image_size, folder)

    def _contrastive_loss(self, batch: RetrievalBatch, images: Tensor, texts: Tensor) -> Tensor:
        rise = min(1.0, self.global_step / self.ramp_steps) if self.ramp_steps else 1.0
        with torch.no_grad():
            slow = self._momentum_embeddings(batch)
        loss: Tensor = self.contrastive(images, texts, *slow, batch.image_ids, self.temperature, rise * self.alpha)
        return loss

    def _momentum_embeddings(self, batch: RetrievalBatch) -> tuple[Tensor, Tensor]:
        model: Any = self.momentum_copy.model
        images = self._in_parts(lambda one: image_embeddings(model, image_states(model, one)), batch.pixel_values)
        return images, self._in_parts(lambda one: text_embeddings(model, one), batch.tokens)

    def _matching_loss(self, batch: RetrievalBatch, states: Tensor, images: Tensor, texts: Tensor) -> Tensor:
        generator = torch.Generator(states.device).manual_seed(int(self.draws))
        self.draws += 1
        shown, tokens, matched = matching_combinations(
            states, _fields(batch.tokens), images, texts, batch.image_ids, self.temperature, generator, self.everywhere
        )
        logits = self._in_parts(self._match, {"states": shown, **tokens})
        loss: Tensor = self.matching(logits, matched)
        return loss

    def _match(self, pairs: Mapping[str, Tensor]) -> Tensor:
        return matching_logits(self.model, pairs["states"], pairs, self.tokenizer.match_token)

    def _in_parts(self, encode: Any, inputs: Any) -> Tensor:
        return encode_in_parts(encode, inputs, self.micro_batch_size, self)


def _fields(tokens: Tokens | None) -> Mapping[str, Tensor]:
    if not isinstance(tokens, Mapping):
        raise TypeError("The tokens of BLIP are a mapping with `input_ids` and `attention_mask`.")
    return tokens


def _fill_queues(loss: MomentumContrastiveLoss, queues: tuple[Tensor, Tensor] | None) -> None:
    """Start the queues with embeddings that a checkpoint holds, as many as there is room for, without image ids."""
    for own, held in zip((loss.image_queue, loss.text_queue), queues or (), strict=False):
        own[: len(held)] = held[: len(own)]

"""Spurious-aware contrastive fine-tuning of CLIP, and its controls, as weights of the terms of one loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from datamodules.batch import RetrievalBatch
from datamodules.errors import ConfigError
from lightning_modules.arguments import check_positive
from lightning_modules.grouped import GroupedModule
from lightning_modules.losses import LabelledImages, SpuriousAwareLoss
from lightning_modules.losses.contrastive import Positives
from lightning_modules.losses.pairs import products
from lightning_modules.losses.spurious_aware import prototypes
from lightning_modules.micro_batches import encode_in_parts
from lightning_modules.open_clip_encoders import OpenClipEncoders
from lightning_modules.parameter_groups import all_but
from lightning_modules.prompts import checked_names, checked_templates, clip_templates, tokenize_prompts

_MAX_LOG_SCALE = math.log(100)  # the bound of Radford et al. 2021, section 2.5
_PROMPTS_AT_ONCE = 256  # where there is no gradient
_OF_WORDS = {"language", "orthogonal"}  # terms that images have no part in
_UNSCALED = {*_OF_WORDS, "image"}
_PROJECTIONS = (
    *("model.visual.attnpool.*", "model.visual.proj", "model.visual.head.*"),
    *("model.text_projection*", "model.text.text_projection*", "model.text.proj.*"),
)


class SpuriousAwareCLIP(OpenClipEncoders, GroupedModule):
    """CLIP as a classifier by prompts, fine-tuned so that it tells a class from the surroundings it mostly comes in.

    Every name is put into every template; the prototype of a name is the direction of the mean embedding, and an image
    is given the class of the nearest prototype. The loss is the sum of the terms of `SpuriousAwareLoss` times their
    weights; cross_entropy alone is empirical risk minimisation, group_dro alone is group DRO.

    A re-implementation, from the abstract and the public code, of "Mitigating Spurious Correlations in Multi-modal
    Models during Fine-tuning". The default weights are those of that code's run of RN50, the terms what it evidently
    means them to be. It draws all groups equally often (here `data.init_args.sampling`), its controls do not.

    Args:
        classes: a name for every label of the data, in the order of their indices.
        spurious: a phrase for every value of the spurious attribute, such as "bird on land".
        spurious_words: words for what is spurious alone, such as "land", for the orthogonal term; None: `spurious`.
        templates: sentences with `{}` where a name goes; None: CLIP's 80.
        contrastive_weight: weight of InfoNCE between images and the prototypes of their classes.
        language_weight: weight of pulling together the prompts of one class, and pushing classes apart.
        image_weight: weight of the same among images, whatever surrounds what they show.
        spurious_weight: weight of telling the spurious attribute by its prompts; needs attributes in training.
        orthogonal_weight: weight of turning the prototypes of classes away from those of `spurious_words`.
        cross_entropy_weight: weight of the cross-entropy of images and class prototypes.
        group_dro_weight: weight of the same under group DRO; needs attributes in training.
        positives: what another image of the same class is to the contrastive term: a negative ("diagonal", as in the
            public code), or neither ("mask_same_image"). One more positive ("same_image_soft") gives the same loss as
            "diagonal", because images of a class share their prototype.
        image_temperature: temperature of the image term, see `ClassAffinityLoss`; None: plain means of cosines.
        group_dro_step: step size of the weights of group DRO.
        trained: shell patterns of the names of parameters that are trained, all others are frozen; None: the
            projections into the common space, those of images (attention pool, `proj` or head) and of texts; `["*"]`:
            everything. The scale of the cosines is one of them (`model.logit_scale`). What no term of the loss depends
            on is frozen in any case.
        scale: what cosines are multiplied by at first, up to 100; None: what the weights bring.
        freeze_statistics: whether the running statistics of BatchNorm rest in trained layers, too.
        lr: learning rate.
        **options: further arguments of `OpenClipEncoders` and `ImageTextModule`.

    Raises:
        ConfigError: names, templates or weights cannot work, or a term has nothing to train.
    """

    def __init__(
        self,
        *,
        classes: Sequence[str],
        spurious: Sequence[str],
        spurious_words: Sequence[str] | None = None,
        templates: Sequence[str] | None = None,
        contrastive_weight: float = 1.0,
        language_weight: float = 1.0,
        image_weight: float = 1.0,
        spurious_weight: float = 1.0,
        orthogonal_weight: float = 0.0,
        cross_entropy_weight: float = 0.0,
        group_dro_weight: float = 0.0,
        positives: Positives = "diagonal",
        image_temperature: float | None = None,
        group_dro_step: float = 0.01,
        trained: Sequence[str] | None = None,
        scale: float | None = None,
        freeze_statistics: bool = True,
        lr: float = 1e-4,
        **options: Any,
    ) -> None:
        super().__init__(lr=lr, **options)
        weights = {
            "contrastive": contrastive_weight,
            "language": language_weight,
            "image": image_weight,
            "spurious": spurious_weight,
            "orthogonal": orthogonal_weight,
            "cross_entropy": cross_entropy_weight,
            "group_dro": group_dro_weight,
        }
        self.names = {
            "classes": checked_names("classes", classes),
            "spurious": checked_names("spurious", spurious),
            "words": checked_names("spurious_words", spurious if spurious_words is None else spurious_words, least=1),
        }
        self.templates = checked_templates(clip_templates() if templates is None else templates)
        self.hparams.update(templates=self.templates)
        self.tokens = {
            kind: tokenize_prompts(self.processor.tokenize, names, self.templates) for kind, names in self.names.items()
        }
        sizes = len(self.names["classes"]), len(self.names["spurious"])
        self.loss = SpuriousAwareLoss(weights, *sizes, positives, image_temperature, group_dro_step)
        self._set_scale(scale)
        self.freeze_patterns += all_but(self, self._projections() if trained is None else trained)
        self.freeze_patterns += tuple(name for name, _ in self.named_parameters() if not self._is_used(name))
        self._check_trained(trained)
        self.freeze_statistics = freeze_statistics
        self._kept: dict[str, Tensor] = {}

    def setup(self, stage: str) -> None:
        """Check that the data has as many labels and attributes as there are names, and in the same order.

        Raises:
            ConfigError: it has not.
        """
        super().setup(stage)
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        for key, names in (("classes", data.label_names), ("spurious", data.attribute_names)):
            if len(self.names[key]) != len(names):
                raise ConfigError(
                    f"`model.init_args.{key}` has {len(self.names[key])} names, but the data has {len(names)}: "
                    f"{', '.join(names)}; give one for each, in this order."
                )
            if sorted(self.names[key]) == sorted(names) and list(self.names[key]) != list(names):
                raise ConfigError(
                    f"`model.init_args.{key}` is {', '.join(self.names[key])}, the names of the data in another order, "
                    f"so that they would be exchanged: give {', '.join(names)}."
                )

    def configure_model(self) -> None:
        """Freeze what is not trained.

        Raises:
            ConfigError: no parameter of the texts is trained, but a term depends on nothing else.
        """
        super().configure_model()
        for name in ("language", "orthogonal"):
            if name in self.loss.weights and not self._trains_texts():
                raise ConfigError(
                    f"`model.init_args.{name}_weight` is {self.loss.weights[name]}, but no parameter of the text "
                    "encoder is trained, so that this term is a constant: give 0, or name such parameters in `trained`."
                )

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all modules but those that are frozen, and BatchNorm where its statistics rest."""
        super().train(mode)
        for module in self.modules():
            if self.freeze_statistics and isinstance(module, _BatchNorm):
                module.eval()
        return self

    def class_scores(self, pixel_values: Tensor) -> Tensor:
        """Map images `[B, 3, H, W]` to cosines with the prototypes of the classes `[B, L]`."""
        return products(self._images_encoder(pixel_values), prototypes(self.prompts("classes")))

    def prompts(self, kind: str) -> Tensor:
        """Return the embeddings of K names in T templates.

        While a Trainer's loop leaves the weights of the texts as they are it encodes them once for an epoch, else they
        are encoded anew every time.

        Args:
            kind: "classes", "spurious" or "words".

        Returns:
            `[K, T, D]` unit rows.
        """
        if torch.is_grad_enabled() and self._trains_texts():
            return self._encode_prompts(kind, self.micro_batch_size)
        kept = self._kept if self._weights_rest() else {}
        if kind not in kept:
            with torch.inference_mode(False), torch.no_grad():  # training may take what an evaluation has encoded
                kept[kind] = self._encode_prompts(kind, self.micro_batch_size or _PROMPTS_AT_ONCE)
        return kept[kind]

    def training_loss(self, batch: RetrievalBatch) -> Tensor:
        """Return the weighted sum of the terms over all ranks, and log each of them."""
        if batch.pixel_values is None:
            raise ValueError("A training batch needs `pixel_values`.")
        labels, attributes = self.labels_of(batch)
        seen = LabelledImages(
            images=self.embed_images(batch.pixel_values),
            labels=labels,
            attributes=attributes,
            scale=self.model.logit_scale.exp(),
            classes=self.prompts("classes"),
            spurious=self.prompts("spurious") if "spurious" in self.loss.weights else None,
            words=self.prompts("words") if "orthogonal" in self.loss.weights else None,
        )
        terms = self.loss.terms(seen)
        self.log_dict({f"train/{name}": term.detach() for name, term in terms.items()}, batch_size=len(batch))
        loss: Tensor = self.loss(terms)
        return loss

    def on_train_epoch_start(self) -> None:
        """Let go of the prompts of earlier weights."""
        self._kept = {}

    def on_predict_epoch_start(self) -> None:
        """Let go of the prompts of earlier weights."""
        self._kept = {}

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take a step, then clamp the log scale to [0, ln 100]."""
        super().optimizer_step(*args, **kwargs)
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, _MAX_LOG_SCALE)

    def _start_scores(self) -> None:
        super()._start_scores()
        self._kept = {}

    def _encode_prompts(self, kind: str, size: int | None) -> Tensor:
        tokens = self.transfer_batch_to_device(self.tokens[kind], self.device, 0)
        rows = encode_in_parts(self._texts_encoder, tokens, size, self)
        return rows.view(len(self.names[kind]), len(self.templates), -1)

    def _weights_rest(self) -> bool:
        """Say whether a loop runs, whose hooks let go of kept prompts in time, and which does not train the texts."""
        if self._trainer is None or self._trainer.state.stage is None:
            return False
        return not (self._trainer.training and self._trains_texts())

    def _trains_texts(self) -> bool:
        parameters = self.model.named_parameters()
        return any(one.requires_grad and not name.startswith(("visual.", "logit_")) for name, one in parameters)

    def _is_used(self, name: str) -> bool:
        """Say whether any term depends on a parameter; DDP would wait for the gradient of one that is trained."""
        terms = self.loss.weights.keys()
        if name.startswith("model.logit_"):
            return not terms <= _UNSCALED
        return not terms <= (_OF_WORDS if name.startswith("model.visual.") else {"image"})

    def _check_trained(self, trained: Sequence[str] | None) -> None:
        if all(any(fnmatchcase(name, one) for one in self.freeze_patterns) for name, _ in self.named_parameters()):
            raise ConfigError(
                f"`model.init_args.trained` is {'null' if trained is None else list(trained)}, but the terms "
                f"{', '.join(self.loss.weights)} depend on none of these, or `freeze` holds them: name others."
            )

    def _projections(self) -> list[str]:
        names = [name for name, _ in self.named_parameters()]
        found = [pattern for pattern in _PROJECTIONS if any(fnmatchcase(name, pattern) for name in names)]
        if not any(pattern.startswith("model.visual.") for pattern in found):
            raise ConfigError(
                "`model.init_args.trained` is null, but this image encoder has no projection into the common space of "
                f"its own: name parameters to train, such as {names[-1]}."
            )
        return found

    def _set_scale(self, scale: float | None) -> None:
        check_positive(scale=scale)
        if scale is not None:
            torch.nn.init.constant_(self.model.logit_scale, min(math.log(scale), _MAX_LOG_SCALE))

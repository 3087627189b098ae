"""The terms of spurious-aware contrastive fine-tuning and of its controls, in one loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.errors import ConfigError
from lightning_modules.losses.affinity import ClassAffinityLoss
from lightning_modules.losses.contrastive import InfoNCELoss, Positives
from lightning_modules.losses.group_dro import GroupDROLoss
from lightning_modules.losses.orthogonality import OrthogonalityLoss
from lightning_modules.losses.pairs import full_precision
from lightning_modules.losses.prompt_cross_entropy import PromptCrossEntropyLoss

TERMS = ("contrastive", "language", "image", "spurious", "orthogonal", "cross_entropy", "group_dro")


@dataclass(frozen=True)
class LabelledImages:
    """What the terms look at.

    Attributes:
        images: `[B, D]` unit rows; under DDP B may differ between ranks.
        labels: `[B]` int64, class of each image.
        attributes: `[B]` int64, value of the spurious attribute of each image.
        scale: scalar, the inverse temperature.
        classes: `[L, T, D]` unit rows, each class in T templates; the same on all ranks, as are the next two.
        spurious: `[A, T, D]` unit rows, each value of the spurious attribute in T templates; None where no term asks.
        words: `[W, T, D]` unit rows, words for what is spurious; None where no term asks for them.
    """

    images: Tensor
    labels: Tensor
    attributes: Tensor
    scale: Tensor
    classes: Tensor
    spurious: Tensor | None = None
    words: Tensor | None = None


class SpuriousAwareLoss(nn.Module):
    """A weighted sum of terms; one of weight 0 is not computed. A name's prototype is its mean prompt's direction.

    - contrastive: `InfoNCELoss` between images and the prototypes of their classes;
    - language: `ClassAffinityLoss` among the prompts of the classes;
    - image: `ClassAffinityLoss` among the images, by class;
    - spurious: `PromptCrossEntropyLoss` of images and spurious prototypes, with the attribute as target;
    - orthogonal: `OrthogonalityLoss` of the prototypes of classes and of spurious words;
    - cross_entropy: `PromptCrossEntropyLoss` of images and class prototypes: empirical risk minimisation;
    - group_dro: the same cross-entropy under `GroupDROLoss`, with the group `label * A + attribute`.

    Args:
        weights: of the terms, by their names.
        labels: L, number of classes.
        attributes: A, number of values of the spurious attribute.
        positives: what another image of the same class is to the contrastive term, see `InfoNCELoss`.
        image_temperature: see `ClassAffinityLoss`.
        group_dro_step: step size of `GroupDROLoss`.

    Raises:
        ConfigError: a weight is negative, or all are 0, or another number is out of its range.

    Example:
        >>> rows = torch.eye(2)
        >>> loss = SpuriousAwareLoss({"cross_entropy": 1.0, "language": 0.5}, labels=2, attributes=2)
        >>> seen = LabelledImages(rows, torch.arange(2), torch.arange(2), torch.tensor(2.0), classes=rows[:, None])
        >>> {name: round(value.item(), 4) for name, value in loss.terms(seen).items()}
        {'cross_entropy': 0.1269, 'language': 0.0}
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        labels: int,
        attributes: int,
        positives: Positives = "diagonal",
        image_temperature: float | None = None,
        group_dro_step: float = 0.01,
    ) -> None:
        super().__init__()
        self.weights = _checked(weights)
        self.attributes = attributes
        self.by_class, self.by_prompt = InfoNCELoss(positives), PromptCrossEntropyLoss()
        self.image_affinity = ClassAffinityLoss(image_temperature)
        self.language_affinity, self.orthogonality = ClassAffinityLoss(across_ranks=False), OrthogonalityLoss()
        self.robust = GroupDROLoss(labels * attributes, group_dro_step)

    def forward(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted sum of what `terms` has computed."""
        return torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()

    def terms(self, seen: LabelledImages) -> dict[str, Tensor]:
        """Return the terms whose weight is not 0, each without its weight.

        Raises:
            ValueError: a term needs prompts that are missing.
        """
        classifier = seen.images, prototypes(seen.classes), seen.scale, seen.labels
        compute: dict[str, Callable[[], Tensor]] = {
            "contrastive": lambda: self.by_class(seen.images, classifier[1][seen.labels], seen.scale, seen.labels),
            "language": lambda: self.language_affinity(seen.classes.flatten(0, 1), _classes_of(seen.classes)),
            "image": lambda: self.image_affinity(seen.images, seen.labels),
            "spurious": lambda: self.by_prompt(
                seen.images, prototypes(_given(seen.spurious, "spurious")), seen.scale, seen.attributes
            ),
            "orthogonal": lambda: self.orthogonality(classifier[1], prototypes(_given(seen.words, "words"))),
            "cross_entropy": lambda: self.by_prompt(*classifier),
            "group_dro": lambda: self.robust(
                self.by_prompt.per_image(*classifier), seen.labels * self.attributes + seen.attributes
            ),
        }
        return {name: compute[name]() for name in self.weights}


def prototypes(embeddings: Tensor) -> Tensor:
    """Return one unit row for each name, the direction of the mean over its templates.

    Args:
        embeddings: `[K, T, D]` unit rows.

    Returns:
        `[K, D]`, float32 or wider.

    Example:
        >>> prototypes(torch.ones(1, 3, 4)).tolist()
        [[0.5, 0.5, 0.5, 0.5]]
    """
    return F.normalize(full_precision(embeddings).mean(dim=1), dim=-1)


def _checked(weights: Mapping[str, float]) -> dict[str, float]:
    for name, weight in weights.items():
        if not weight >= 0:
            raise ConfigError(f"`model.init_args.{name}_weight` is {weight}: give a number of 0 or more.")
    if not any(weights.values()):
        keys = ", ".join(f"{name}_weight" for name in TERMS)
        raise ConfigError(f"Every term of the loss has weight 0: give one of {keys} in `model.init_args`.")
    return {name: weight for name, weight in weights.items() if weight}


def _classes_of(prompts: Tensor) -> Tensor:
    """Return the class `[L * T]` of each of the prompts `[L, T, D]`."""
    return torch.arange(len(prompts), device=prompts.device).repeat_interleave(prompts.shape[1])


def _given(prompts: Tensor | None, name: str) -> Tensor:
    if prompts is None:
        raise ValueError(f"The terms of this loss need the `{name}` prompts.")
    return prompts

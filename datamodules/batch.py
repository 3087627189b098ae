"""The one type of batch that passes from datamodules to lightning_modules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from torch import Tensor

Tokens: TypeAlias = Tensor | Mapping[str, Tensor]


@dataclass
class RetrievalBatch:
    """Images, captions or pairs of both, with the ids and class masks that training and evaluation need.

    A training batch holds pairs: row i of `pixel_values` belongs to row i of `tokens`. An evaluation batch holds
    either images or captions; the other half is None. A data set of groups has images alone: the texts that their
    classes are told by belong to the model.

    Attributes:
        image_ids: `[B]` int64. A synthetic image never shares the id of its source.
        caption_ids: `[B]` int64, -1 where the row has no caption.
        source_ids: `[B]` int64, image id of the source of a counterfactual, the own image id of an original.
        source_caption_ids: `[B]` int64, id of the caption that a synthetic caption was made from, the own caption id of
            an original, -1 where the row has no caption.
        synthetic: `[B]` bool, True where the row comes from a counterfactual pair.
        pixel_values: `[B, 3, H, W]` float32, or None in a batch of captions. Features that were computed once, in place
            of images, are `[B, F]` float32.
        tokens: what the processor's tokenizer returns, `[B, ...]`, or None in a batch of images.
        removed: `[B, C]` bool, classes removed from a counterfactual query image; None for original images.
        kept: `[B, C]` bool, classes left in a counterfactual query image; None for original images.
        mentions: `[B, C]` bool, classes that a gallery caption names; None elsewhere.
        in_split: `[B]` bool, for captions: True where recall counts the caption, one of the evaluated split, False
            where it only enlarges the gallery of ODmAP; None elsewhere.
        folds: `[B]` int64, for original images of an evaluated split where folds are asked for: the fold that the image
            belongs to, -1 where it belongs to none; None elsewhere.
        labels: `[B]` int64, class of the image in a data set of groups; None elsewhere.
        attributes: `[B]` int64, value of the spurious attribute (the place, for Waterbirds) in a data set of groups;
            None elsewhere. With A values, the group of an image is `label * A + attribute`.
    """

    image_ids: Tensor
    caption_ids: Tensor
    source_ids: Tensor
    source_caption_ids: Tensor
    synthetic: Tensor
    pixel_values: Tensor | None = None
    tokens: Tokens | None = None
    removed: Tensor | None = None
    kept: Tensor | None = None
    mentions: Tensor | None = None
    in_split: Tensor | None = None
    folds: Tensor | None = None
    labels: Tensor | None = None
    attributes: Tensor | None = None

    def __len__(self) -> int:
        return len(self.image_ids)

    def pin_memory(self) -> RetrievalBatch:
        """Return the batch in page-locked memory (called by the DataLoader)."""
        return type(self)(**{field.name: _pin(getattr(self, field.name)) for field in fields(self)})


def _pin(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.pin_memory()
    if isinstance(value, Mapping):
        return {key: tensor.pin_memory() for key, tensor in value.items()}
    return value

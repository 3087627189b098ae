"""What BLIP computes from images and captions, as functions of transformers' towers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional as F

from lightning_modules.losses.pairs import full_precision

if TYPE_CHECKING:
    from transformers import BlipForImageTextRetrieval


def image_states(model: BlipForImageTextRetrieval, pixel_values: Tensor) -> Tensor:
    """Map images `[B, 3, H, W]` to the states of the vision tower, `[B, T, W]`, the one of the whole image first."""
    states: Tensor = model.vision_model(pixel_values=pixel_values).last_hidden_state
    return states


def image_embeddings(model: BlipForImageTextRetrieval, states: Tensor) -> Tensor:
    """Map the states of images `[B, T, W]` to unit rows `[B, D]`."""
    return F.normalize(full_precision(model.vision_proj(states[:, 0])), dim=-1)


def text_embeddings(model: BlipForImageTextRetrieval, tokens: Mapping[str, Tensor]) -> Tensor:
    """Map tokens `[B, L]` to unit rows `[B, D]`, without a look at an image."""
    return F.normalize(full_precision(model.text_proj(_first_states(model, tokens))), dim=-1)


def matching_logits(
    model: BlipForImageTextRetrieval, states: Tensor, tokens: Mapping[str, Tensor], match_token: int
) -> Tensor:
    """Say whether captions belong to images.

    Args:
        model: the towers.
        states: of N images, `[N, T, W]`, or of one image for all captions, `[1, T, W]`.
        tokens: of N captions, `[N, L]`.
        match_token: id of the token that takes the place of the first one of each caption (Li et al. 2022, BLIP,
            section 3.1: the image-grounded text encoder).

    Returns:
        Logits `[N, 2]`, for "apart" and "together".
    """
    ids = tokens["input_ids"].clone()
    ids[:, 0] = match_token
    logits: Tensor = model.itm_head(_first_states(model, {**tokens, "input_ids": ids}, states))
    return logits


def _first_states(
    model: BlipForImageTextRetrieval, tokens: Mapping[str, Tensor], states: Tensor | None = None
) -> Tensor:
    """Return the text tower's state of each caption's first token, `[N, W]`; columns that all pad are left out."""
    mask = tokens["attention_mask"].clone()
    mask[:, 0] = 1  # so that also a caption of padding alone has something to look at
    length = int(mask.sum(dim=1).max())
    found: Tensor = model.text_encoder(
        input_ids=tokens["input_ids"][:, :length], attention_mask=mask[:, :length], encoder_hidden_states=states
    ).last_hidden_state
    return found[:, 0]

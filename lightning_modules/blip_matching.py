"""The combinations of images and captions that BLIP's matching head is trained on."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lightning_modules.distributed import gather, gather_with_grad, rank_offset
from lightning_modules.losses import hard_negatives


def matching_combinations(
    states: Tensor,
    tokens: Mapping[str, Tensor],
    images: Tensor,
    texts: Tensor,
    image_ids: Tensor,
    temperature: Tensor,
    generator: torch.Generator,
    everywhere: bool = True,
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Return every pair of this rank, every caption with a wrong image, and every image with a wrong caption.

    What is wrong is drawn by the softmax of the similarities among the pairs of other images (Li et al. 2021, "Align
    before Fuse", section 3.2): hard negatives. Every rank draws for the pairs of all ranks with the same random
    numbers, so that the draw does not depend on how a batch is spread. Where the batch shows one image alone, there
    is nothing wrong to draw and the pairs come back alone.

    Args:
        states: `[B, T, W]` states of this rank's images.
        tokens: `[B, L]` tokens of their captions; L is the same on all ranks.
        images: `[B, D]` unit rows.
        texts: `[B, D]` unit rows.
        image_ids: `[B]` int64.
        temperature: scalar that the similarities are divided by.
        generator: draws the negatives; in the same state on all ranks.
        everywhere: whether negatives come from the pairs of all ranks, or from this rank's alone.

    Returns:
        States `[N, T, W]`, tokens `[N, L]` and whether the two belong together, `[N]` bool; N is 3 B or B.

    Example:
        >>> states, rows, ids = torch.zeros(2, 1, 4), torch.eye(2), torch.tensor([7, 8])
        >>> tokens = {"input_ids": torch.tensor([[1], [2]])}
        >>> _, captions, matched = matching_combinations(
        ...     states, tokens, rows, rows, ids, torch.tensor(0.07), torch.Generator()
        ... )
        >>> captions["input_ids"].flatten().tolist(), matched.int().tolist()
        ([1, 2, 1, 2, 2, 1], [1, 1, 0, 0, 0, 0])
    """
    every = {"images": images.detach(), "texts": texts.detach(), "ids": image_ids, **tokens}
    pool, own = states, slice(0, len(states))
    if everywhere:
        every = {name: gather(rows) for name, rows in every.items()}
        pool, first = gather_with_grad(states), rank_offset(len(states))
        own = slice(first, first + len(states))
    same = every["ids"][:, None] == every["ids"]
    with torch.autocast(images.device.type, enabled=False):
        similarity = every["images"] @ every["texts"].T / temperature.detach()
    wrong_texts = hard_negatives(similarity, same, generator)[own]
    wrong_images = hard_negatives(similarity.T.contiguous(), same, generator)[own]
    some = wrong_texts >= 0
    chosen = torch.cat([states, pool[wrong_images[some]], states[some]])
    captions = {name: torch.cat([rows, rows[some], every[name][wrong_texts[some]]]) for name, rows in tokens.items()}
    return chosen, captions, torch.arange(len(chosen), device=states.device) < len(states)

"""How often the captions that were retrieved mention an object that was taken out of the image.

All values are fractions (0 to 1).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from metrics.checks import check_ids, check_top_k
from metrics.functional.odmap import check_ranked


def hallucinated(ranked_mentions: Tensor, removed: Tensor) -> Tensor:
    """Say which ranked captions mention a removed class.

    Args:
        ranked_mentions: `[Q, K, C]` bool, classes that the caption at each rank mentions.
        removed: `[Q, C]` bool, classes taken out of the query image.

    Returns:
        `[Q, K]` bool.

    Raises:
        TypeError: A tensor is not bool.
        ValueError: Shapes do not fit.

    Example:
        >>> import torch
        >>> captions = torch.tensor([[[1, 1], [0, 1], [0, 0]]]).bool()  # dog and frisbee; frisbee; neither
        >>> hallucinated(captions, removed=torch.tensor([[True, False]]))
        tensor([[ True, False, False]])
    """
    check_ranked(ranked_mentions, removed=removed)
    return (ranked_mentions & removed[:, None]).any(dim=2)


def hallucination_rate(
    ranked_mentions: Tensor, removed: Tensor, top_k: int | Sequence[int], *, retrieved: Tensor | None = None
) -> dict[int, Tensor]:
    """Return the share of the first k captions that mention a removed class, per query.

    Where fewer than k captions were retrieved, the share is that of the retrieved ones: a place without a caption
    neither hallucinates nor abstains. A query that retrieved nothing has 0.

    Args:
        ranked_mentions: `[Q, K, C]` bool, classes that the retrieved caption at each rank mentions, best first.
        removed: `[Q, C]` bool, classes taken out of the query image.
        top_k: One cut or several.
        retrieved: `[Q]` integers, how many of the K places hold a caption (the first ones); all of them when None.

    Returns:
        For every cut `[Q]` float32 in 0 to 1.

    Raises:
        TypeError: A tensor has the wrong dtype, or a cut is no integer.
        ValueError: Shapes do not fit, a cut is not positive, or `retrieved` lies outside 0 to K.

    Example:
        >>> import torch
        >>> captions = torch.tensor([[[1, 1], [0, 1], [0, 0]]]).bool()  # dog and frisbee; frisbee; neither
        >>> hallucination_rate(captions, torch.tensor([[True, False]]), top_k=(1, 2, 10))
        {1: tensor([1.]), 2: tensor([0.5000]), 10: tensor([0.3333])}
    """
    cuts = check_top_k(top_k)
    flags = hallucinated(ranked_mentions, removed)
    queries, places = flags.shape
    retrieved = torch.full((queries,), places, device=flags.device) if retrieved is None else retrieved
    check_ids(queries, retrieved=retrieved)
    if ((retrieved < 0) | (retrieved > places)).any():
        raise ValueError(f"retrieved must lie between 0 and the {places} places of ranked_mentions.")
    flags &= torch.arange(places, device=flags.device) < retrieved[:, None]
    return {cut: flags[:, :cut].sum(dim=1) / retrieved.clamp(min=1, max=cut) for cut in cuts}

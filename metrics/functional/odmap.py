"""Object-decorrelated mean average precision (ODmAP@k) of rankings that are already made.

Source: Kim, Koepke, Schmid, Akata 2023, "Exposing and Mitigating Spurious Correlations for Cross-Modal Retrieval",
section 3.2. All values are fractions (0 to 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from metrics.checks import check_choice, check_masks, check_top_k

KeptRule: TypeAlias = Literal["any", "all"]
Normalizer: TypeAlias = Literal["k", "hits", "min(k,R)", "all"]

# How many kept classes [Q] a caption has to mention. "all" asks for one at least: a query that keeps nothing has no
# relevant caption under either rule.
KEPT_RULES: dict[str, Callable[[Tensor], Tensor]] = {
    "any": lambda kept: torch.ones_like(kept[:, 0], dtype=torch.long),
    "all": lambda kept: kept.sum(dim=1).clamp(min=1),
}

# What the sum of precisions is divided by, from the hits in the ranking [Q], k and the relevant captions R [Q].
NORMALIZERS: dict[str, Callable[[Tensor, int, Tensor], Tensor]] = {
    "k": lambda hits, k, _: torch.full_like(hits, k),
    "hits": lambda hits, k, _: hits,
    "min(k,R)": lambda hits, k, num_relevant: num_relevant.clamp(max=k),
    "all": lambda hits, k, num_relevant: num_relevant,
}
_NEED_NUM_RELEVANT = ("min(k,R)", "all")


def kept_needed(kept: Tensor, kept_rule: str) -> Tensor:
    """Return how many kept classes a caption has to mention to be relevant.

    Args:
        kept: `[Q, C]` bool, classes still in the query image.
        kept_rule: "any" (one of them) or "all".

    Returns:
        `[Q]` int64, at least 1.

    Raises:
        ValueError: The rule is unknown.
    """
    check_choice("kept_rule", kept_rule, KEPT_RULES)
    return KEPT_RULES[kept_rule](kept)


def relevance(mentions_of_ranked: Tensor, removed: Tensor, kept: Tensor, kept_rule: KeptRule = "any") -> Tensor:
    """Say which ranked captions are relevant: they mention no removed class, and a kept one.

    Args:
        mentions_of_ranked: `[Q, K, C]` bool, classes that the caption at each rank mentions.
        removed: `[Q, C]` bool, classes taken out of the query image.
        kept: `[Q, C]` bool, classes still in it.
        kept_rule: "any" kept class suffices (the reading that fits the paper's Table 1), or "all" must be mentioned.

    Returns:
        `[Q, K]` bool.

    Raises:
        TypeError: A tensor is not bool.
        ValueError: Shapes do not fit, or the rule is unknown.

    Example:
        >>> import torch
        >>> captions = torch.tensor([[[1, 1], [0, 1], [0, 0]]]).bool()  # dog and frisbee; frisbee; neither
        >>> relevance(captions, removed=torch.tensor([[True, False]]), kept=torch.tensor([[False, True]]))
        tensor([[False,  True, False]])
    """
    check_ranked(mentions_of_ranked, removed=removed, kept=kept)
    hallucinated = (mentions_of_ranked & removed[:, None]).any(dim=2)
    kept_mentioned = (mentions_of_ranked & kept[:, None]).sum(dim=2)
    return ~hallucinated & (kept_mentioned >= kept_needed(kept, kept_rule)[:, None])


def average_precision(
    relevance: Tensor, top_k: int, normalize: Normalizer = "k", num_relevant: Tensor | None = None
) -> Tensor:
    """Average the precision at the relevant ranks among the first `top_k`, per query.

    The sum of `rel(i) * precision(i)` over ranks i <= k is divided by k ("k"), by the relevant items among the first
    k ("hits"), or by the R relevant items of the whole gallery ("all"; "min(k,R)" with k as upper limit). A query
    without a relevant item has 0. Ranks beyond K count as not relevant.

    Args:
        relevance: `[Q, K]` bool, best rank first.
        top_k: The cut k.
        normalize: The divisor.
        num_relevant: `[Q]` integers, R of every query; needed by "min(k,R)" and "all".

    Returns:
        `[Q]` float32 in 0 to 1.

    Raises:
        TypeError: A tensor has the wrong dtype.
        ValueError: Shapes do not fit, `top_k` is not positive, `normalize` is unknown or lacks `num_relevant`.

    Example:
        >>> import torch
        >>> average_precision(torch.tensor([[True, False, True, False, False]]), top_k=3)
        tensor([0.5556])
    """
    (cut,) = check_top_k(top_k)
    if relevance.dtype != torch.bool or relevance.ndim != 2:
        raise TypeError(f"relevance must be a bool tensor [Q, K], got {relevance.dtype} {tuple(relevance.shape)}.")
    ranked = relevance[:, :cut]
    hits_so_far = ranked.cumsum(dim=1)
    ranks = torch.arange(1, ranked.shape[1] + 1, device=ranked.device)
    precisions = (hits_so_far / ranks * ranked).sum(dim=1)
    hits = ranked.sum(dim=1)
    return precisions / _divisor(hits, cut, normalize, num_relevant).clamp(min=1)


def object_decorrelation_map(
    ranked_mentions: Tensor,
    removed: Tensor,
    kept: Tensor,
    top_k: int | Sequence[int],
    kept_rule: KeptRule = "any",
    normalize: Normalizer = "k",
    *,
    num_relevant: Tensor | None = None,
) -> dict[int, Tensor]:
    """Compute ODmAP@k: the mean over queries of the average precision at k of captions without the removed objects.

    Args:
        ranked_mentions: `[Q, K, C]` bool, classes that the retrieved caption at each rank mentions, best first.
        removed: `[Q, C]` bool, classes taken out of the query image.
        kept: `[Q, C]` bool, classes still in it.
        top_k: One cut or several. K may be smaller: missing ranks count as not relevant.
        kept_rule: "any" kept class suffices, or "all" must be mentioned.
        normalize: "k" as in the paper; "hits" as torchmetrics and open-metric-learning; "all" as ranx; "min(k,R)".
        num_relevant: `[Q]` integers, relevant captions in the whole gallery; needed by "min(k,R)" and "all".

    Returns:
        For every cut a float32 scalar in 0 to 1.

    Raises:
        TypeError: A tensor has the wrong dtype, or a cut is no integer.
        ValueError: There is no query, shapes do not fit, a cut is not positive, or an option is unknown.

    Example:
        A dog was removed and a frisbee stayed; of five captions the first and the third name the frisbee alone, and
        the gallery has no other relevant one.

        >>> import torch
        >>> dog, frisbee = torch.eye(2).bool()
        >>> ranking = torch.stack([frisbee, dog, frisbee, dog, dog | frisbee])[None]
        >>> for normalize in ("k", "hits", "min(k,R)", "all"):
        ...     values = object_decorrelation_map(
        ...         ranking, dog[None], frisbee[None], (1, 3, 5), normalize=normalize, num_relevant=torch.tensor([2])
        ...     )
        ...     print(normalize, [round(value.item(), 4) for value in values.values()])
        k [1.0, 0.5556, 0.3333]
        hits [1.0, 0.8333, 0.8333]
        min(k,R) [1.0, 0.8333, 0.8333]
        all [0.5, 0.8333, 0.8333]
    """
    cuts = check_top_k(top_k)
    relevant = relevance(ranked_mentions, removed, kept, kept_rule)
    if not len(relevant):
        raise ValueError("ODmAP@k needs at least one query: ranked_mentions has none.")
    return {cut: average_precision(relevant, cut, normalize, num_relevant).mean() for cut in cuts}


def expected_average_precision(num_relevant: Tensor, gallery_size: int | Tensor, top_k: int) -> Tensor:
    """Return the expectation of AP@k (divided by k) when the gallery is ranked at random.

    With R of G items relevant, two given ranks are both relevant with probability R(R-1) / (G(G-1)), so that the
    expectation is `R/(Gk) * (H + (R-1)/(G-1) * (n - H))` with n = min(k, G) and H the n-th harmonic number.

    Args:
        num_relevant: `[Q]` integers, R of every query.
        gallery_size: G, one for all queries or `[Q]` integers. An empty gallery has expectation 0.
        top_k: The cut k.

    Returns:
        `[Q]` float32 in 0 to 1.

    Raises:
        ValueError: More items are relevant than the gallery has, or `top_k` is not positive.

    Example:
        >>> import torch
        >>> expected_average_precision(torch.tensor([0, 1, 4]), gallery_size=4, top_k=2)
        tensor([0.0000, 0.1875, 1.0000])
    """
    (cut,) = check_top_k(top_k)
    size = torch.as_tensor(gallery_size, device=num_relevant.device).expand_as(num_relevant)
    if (num_relevant > size).any() or (num_relevant < 0).any():
        raise ValueError("num_relevant must lie between 0 and gallery_size for every query.")
    depth = size.clamp(max=cut)
    harmonic = torch.cat([torch.zeros(1), (1 / torch.arange(1, cut + 1)).cumsum(0)]).to(size.device)[depth]
    first = num_relevant / size.clamp(min=1)
    second = (num_relevant - 1) / (size - 1).clamp(min=1)
    return first * (harmonic + second * (depth - harmonic)) / cut


def check_ranked(ranked_mentions: Tensor, **masks: Tensor) -> None:
    """Refuse class masks of rankings and of queries that do not belong together.

    Args:
        ranked_mentions: Expected as `[Q, K, C]` bool.
        **masks: Expected as `[Q, C]` bool, by argument name.

    Raises:
        TypeError: A tensor is not bool.
        ValueError: Shapes do not fit.
    """
    if ranked_mentions.dtype != torch.bool:
        raise TypeError(f"ranked mentions must be bool, got {ranked_mentions.dtype}.")
    if ranked_mentions.ndim != 3:
        raise ValueError(f"ranked mentions must have shape [Q, K, C], got {tuple(ranked_mentions.shape)}.")
    queries, _, classes = ranked_mentions.shape
    check_masks(queries, classes, **masks)


def _divisor(hits: Tensor, cut: int, normalize: str, num_relevant: Tensor | None) -> Tensor:
    check_choice("normalize", normalize, NORMALIZERS)
    if num_relevant is None:
        if normalize in _NEED_NUM_RELEVANT:
            raise ValueError(f"normalize={normalize!r} needs num_relevant: the relevant captions in the whole gallery.")
        num_relevant = hits
    if num_relevant.shape != hits.shape:
        raise ValueError(f"num_relevant must have shape {tuple(hits.shape)}, got {tuple(num_relevant.shape)}.")
    if (num_relevant < hits).any():
        raise ValueError("num_relevant is smaller than the number of relevant captions among the ranked ones.")
    return NORMALIZERS[normalize](hits, cut, num_relevant)

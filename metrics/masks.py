"""Class masks as sets: equal ones are found by their packed bits, relevant ones are counted once per distinct set."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from metrics.functional.odmap import kept_needed
from metrics.search import full_precision

_QUERY_ROWS = 512
_PATTERNS = 4096


def pack_bits(mask: Tensor) -> Tensor:
    """Pack the columns of a class mask into 64-bit words; rows are equal where their words are.

    Args:
        mask: `[N, C]` bool.

    Returns:
        `[N, ceil(C / 64)]` int64; one word where C is 0.

    Example:
        >>> import torch
        >>> pack_bits(torch.tensor([[True, False, True], [False, True, False]]))
        tensor([[5],
                [2]])
    """
    rows, classes = mask.shape
    words = -(-classes // 64) or 1
    columns = pad(mask, (0, 64 * words - classes)).view(torch.uint8)
    octets = torch.zeros(rows, 8 * words, dtype=torch.uint8, device=mask.device)
    for bit in range(8):
        octets |= columns[:, bit::8] << bit
    return octets.view(torch.int64)


def distinct_rows(mentions: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distinct rows of a class mask and how often each occurs.

    Args:
        mentions: `[G, C]` bool.

    Returns:
        `[U, C]` bool and `[U]` int64.

    Example:
        >>> import torch
        >>> distinct_rows(torch.tensor([[True], [False], [True]]))
        (tensor([[False],
                [ True]]), tensor([1, 2]))
    """
    words = pack_bits(mentions)
    order = torch.arange(len(words), device=words.device)
    for word in words.T:
        order = order[word[order].argsort(stable=True)]
    fresh = torch.ones_like(order, dtype=torch.bool)
    fresh[1:] = (words[order[1:]] != words[order[:-1]]).any(dim=1)
    starts = fresh.nonzero()[:, 0]
    counts = torch.cat([starts, starts.new_tensor([len(words)])]).diff()
    return mentions[order[starts]], counts


def count_relevant(
    mentions: Tensor, removed: Tensor, kept: Tensor, kept_rule: str = "any", counts: Tensor | None = None
) -> Tensor:
    """Count the relevant captions of a gallery for every query, by distinct sets of mentioned classes.

    Args:
        mentions: `[G, C]` bool, classes that each caption mentions.
        removed: `[Q, C]` bool, classes taken out of the query images.
        kept: `[Q, C]` bool, classes still in them.
        kept_rule: "any" or "all", as in `metrics.functional.relevance`.
        counts: `[G]` int64, when `mentions` are distinct rows already: how often each occurs.

    Returns:
        `[Q]` int64.

    Raises:
        ValueError: The rule is unknown.

    Example:
        >>> import torch
        >>> dog, frisbee = torch.eye(2).bool()
        >>> count_relevant(torch.stack([dog, frisbee, dog | frisbee, frisbee]), dog[None], frisbee[None])
        tensor([2])
    """
    patterns, counts = distinct_rows(mentions) if counts is None else (mentions, counts)
    needed = kept_needed(kept, kept_rule)[:, None].float()
    # One removed class outweighs all kept ones, so that one product decides.
    weights = kept.float() - (kept.shape[1] + 1) * removed.float()
    # In two digits, the sums over a block are whole numbers below 2^24: exact in float32.
    digits = torch.stack([counts % _PATTERNS, counts // _PATTERNS], dim=1).float()
    found = torch.zeros(len(removed), 2, dtype=torch.float64, device=removed.device)
    with full_precision(removed.device):
        for start in range(0, len(patterns), _PATTERNS):
            block = slice(start, start + _PATTERNS)
            table = patterns[block].float().T
            for first in range(0, len(removed), _QUERY_ROWS):
                rows = slice(first, first + _QUERY_ROWS)
                relevant = (weights[rows] @ table).ge_(needed[rows])
                found[rows] += relevant @ digits[block]
    return (found[:, 0] + _PATTERNS * found[:, 1]).long()

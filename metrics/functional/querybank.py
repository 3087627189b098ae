"""Hubs corrected at test time: what fits every query of a bank is pulled down for all queries."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from metrics.search import full_precision

_ROWS = 256


class InvertedSoftmax(NamedTuple):
    """Two banks of queries, and what they make of the scores of other queries, in both directions.

    For a query q and an item g of a gallery the score becomes

        s(q, g) - c(g)    with    c(g) = T * log(mean over the queries x of a bank of exp(s(x, g) / T)),

    which is T times the logarithm of the inverted softmax exp(s(q, g) / T) / sum over x of exp(s(x, g) / T), but for a
    constant. One matrix product serves both directions: with images [v, 1, -c(v)] and captions [t, -c(t), 1] it is
    s(v, t) - c(t) - c(v), and the correction of the query itself moves all of its results alike. The exact search of
    this package therefore ranks the widened rows as they are.

    Every query is corrected. The dynamic variant of Bogolin et al. (section 3.3), which leaves alone the queries whose
    best item is the best of no query of the bank, is left out: its choice is one per query and direction, and no
    single product has it.

    Source: Smith et al. 2017, "Offline bilingual word vectors, orthogonal transformations and the inverted softmax",
    equation 10; Bogolin et al. 2022, "Cross Modal Retrieval with Querybank Normalisation", sections 3.1 and 3.2.

    Attributes:
        images: `[N, D]` floating point, the queries by which captions are corrected.
        captions: `[M, D]`, the queries by which images are corrected.
        temperature: T, in the unit of the scores: smaller ones let the nearest queries of the bank count alone.

    Example:
        The first caption is the best of both images, although only the first image is its own.

        >>> images, captions = torch.eye(2), torch.tensor([[0.9, 0.8], [0.0, 0.7]])
        >>> (images @ captions.T).argmax(dim=1)
        tensor([0, 0])
        >>> bank = InvertedSoftmax(images, captions, temperature=0.05)
        >>> (bank.widen_images(images) @ bank.widen_captions(captions).T).argmax(dim=1)
        tensor([0, 1])
    """

    images: Tensor
    captions: Tensor
    temperature: float

    def widen_images(self, embeddings: Tensor) -> Tensor:
        """Append two columns to the embeddings of images, queries or gallery.

        Args:
            embeddings: `[B, D]` floating point, on the device of the bank.

        Returns:
            `[B, D + 2]` float32 (float64 for float64 embeddings).
        """
        rows, correction = _with_correction(embeddings, self.captions, self.temperature)
        return torch.cat([rows, torch.ones_like(correction), -correction], dim=1)

    def widen_captions(self, embeddings: Tensor) -> Tensor:
        """Append two columns to the embeddings of captions, as `widen_images` does to those of images."""
        rows, correction = _with_correction(embeddings, self.images, self.temperature)
        return torch.cat([rows, -correction, torch.ones_like(correction)], dim=1)


def _with_correction(items: Tensor, bank: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return the items `[B, D]` and c of each `[B, 1]`, in float32 or better whatever autocast says.

    Products are of one shape, so that equal items have equal corrections and tie, whichever batch they come in.
    """
    items = items.to(torch.promote_types(items.dtype, torch.float32))
    padded = pad(items, (0, 0, 0, -len(items) % _ROWS))
    with full_precision(items.device):
        parts = [_soft_maximum(part @ bank.to(items).T, temperature) for part in torch.split(padded, _ROWS)]
    return items, torch.cat(parts)[: len(items)]


def _soft_maximum(scores: Tensor, temperature: float) -> Tensor:
    """Return T * log(mean of exp(s / T)) over the last dimension, which lies between the mean and the maximum."""
    total = torch.logsumexp(scores / temperature, dim=1, keepdim=True)
    return temperature * (total - math.log(scores.shape[1]))

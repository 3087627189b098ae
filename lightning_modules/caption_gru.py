"""Unit rows that are safe at zero, and the recurrent text tower of VSE++."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from lightning_modules.words import PAD


def unit_rows(rows: Tensor, eps: float = 1e-8) -> Tensor:
    """Divide rows by their norms; a row of norm `eps` or less becomes zero and gets no gradient.

    (`torch.nn.functional.normalize` is finite there as well, but multiplies the gradient by up to 1e12.)

    Args:
        rows: `[..., D]`.
        eps: the smallest norm that is divided by.

    Returns:
        `[..., D]` float32.

    Example:
        >>> unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
    """
    rows = rows.float()
    norms = rows.norm(dim=-1, keepdim=True)
    return torch.where(norms > eps, rows / norms.clamp_min(eps), 0.0)


class CaptionGRU(nn.Module):
    """Word embeddings and a GRU that reads each caption to its end (Faghri et al. 2018, VSE++, section 3.2).

    Two directions are averaged: the state of the forward one at the last token and that of the backward one at the
    first. Kim et al. 2023 speak of a Bi-GRU without saying how it is pooled; an average keeps the size of the
    embeddings, as in the code of Lee et al. 2018 (SCAN), which averages them token by token.

    Args:
        words: number of token ids.
        word_dim: size of the word embeddings, uniform in [-0.1, 0.1] at first.
        embed_dim: D, size of the state in each direction.
        bidirectional: whether the caption is also read backwards.

    Example:
        >>> CaptionGRU(10, 4, 8)(torch.tensor([[1, 5, 2], [1, 2, 0]])).shape
        torch.Size([2, 8])
    """

    def __init__(self, words: int, word_dim: int, embed_dim: int, bidirectional: bool = True) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, word_dim)
        self.gru = nn.GRU(word_dim, embed_dim, batch_first=True, bidirectional=bidirectional)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map token ids `[B, L]` int64, padded at their ends, to `[B, D]` float32.

        A row of nothing but padding is read as one token. All is computed in float32, also under autocast, which has
        half precision for a GRU even where bfloat16 is asked for.
        """
        lengths = (tokens != PAD).sum(dim=1).clamp(min=1)
        with torch.autocast(tokens.device.type, enabled=False):
            packed = pack_padded_sequence(self.embedding(tokens), lengths.cpu(), batch_first=True, enforce_sorted=False)
            states: Tensor = self.gru(packed)[1]
            return states.mean(dim=0)

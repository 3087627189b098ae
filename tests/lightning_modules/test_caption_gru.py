"""The recurrent text tower against its equations, and unit rows at zero."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lightning_modules.caption_gru import CaptionGRU, unit_rows

TOKENS = torch.tensor([[1, 5, 6, 7, 2], [1, 8, 2, 0, 0], [1, 2, 0, 0, 0], [0, 0, 0, 0, 0]])
REAL = [5, 3, 2, 1]


def _tower(bidirectional: bool) -> CaptionGRU:
    torch.manual_seed(0)
    return CaptionGRU(9, 3, 4, bidirectional)


def _read(gru: nn.GRU, words: Tensor, suffix: str) -> Tensor:
    """Step through the words `[L, E]` by the equations of Cho et al. 2014, as torch orders the gates."""
    weights, hidden_weights = getattr(gru, f"weight_ih_l0{suffix}"), getattr(gru, f"weight_hh_l0{suffix}")
    bias, hidden_bias = getattr(gru, f"bias_ih_l0{suffix}"), getattr(gru, f"bias_hh_l0{suffix}")
    state = torch.zeros(gru.hidden_size)
    for word in words:
        given = (weights @ word + bias).chunk(3)
        kept = (hidden_weights @ state + hidden_bias).chunk(3)
        reset, update = (torch.sigmoid(one + other) for one, other in zip(given[:2], kept[:2], strict=True))
        candidate = torch.tanh(given[2] + reset * kept[2])
        state = update * state + (1 - update) * candidate
    return state


@pytest.mark.parametrize("bidirectional", [True, False])
def test_states_are_those_of_the_equations(bidirectional: bool) -> None:
    tower = _tower(bidirectional)
    for row, tokens, length in zip(tower(TOKENS), TOKENS, REAL, strict=True):
        words = tower.embedding(tokens[:length])
        states = [_read(tower.gru, words, "")]
        if bidirectional:
            states.append(_read(tower.gru, words.flip(0), "_reverse"))
        torch.testing.assert_close(row, torch.stack(states).mean(dim=0))


def test_neither_padding_nor_neighbours_matter() -> None:
    tower = _tower(True)
    padded = torch.cat([TOKENS, torch.zeros(4, 3, dtype=torch.int64)], dim=1)
    torch.testing.assert_close(tower(padded), tower(TOKENS))
    torch.testing.assert_close(tower(TOKENS.flip(0)), tower(TOKENS).flip(0))
    torch.testing.assert_close(tower(TOKENS[1:2, :3]), tower(TOKENS)[1:2])


def test_autocast_does_not_lower_the_precision() -> None:
    tower = _tower(True)
    with torch.autocast("cpu", torch.bfloat16):
        states = tower(TOKENS)
    assert torch.equal(states, tower(TOKENS))


def test_word_embeddings_start_small() -> None:
    weights = CaptionGRU(500, 20, 4).embedding.weight
    assert 0.095 < weights.abs().max() <= 0.1
    assert abs(weights.mean()) < 0.005


def test_unit_rows_are_safe_at_zero() -> None:
    rows = torch.tensor([[3.0, -4.0], [0.0, 0.0], [1e-12, 0.0], [1e-3, 0.0]], requires_grad=True)
    units = unit_rows(rows)
    torch.testing.assert_close(units, torch.tensor([[0.6, -0.8], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0]]))
    units.sum().backward()
    torch.testing.assert_close(rows.grad[0], torch.tensor([0.224, 0.168]))  # (1 - u u') / |x| times (1, 1)
    assert rows.grad[1:3].eq(0).all()
    assert rows.grad.isfinite().all()
    assert unit_rows(rows.bfloat16()).dtype == torch.float32

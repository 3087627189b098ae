"""The matching loss against its formula, and the draw of hard negatives against the distribution it claims."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.losses import MatchingLoss, hard_negatives


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(-20, 20), st.floats(-20, 20), st.booleans()), min_size=1, max_size=8))
def test_equals_the_formula(rows: list[tuple[float, float, bool]]) -> None:
    total = sum(
        math.log1p(math.exp(apart - together if matched else together - apart)) for apart, together, matched in rows
    )
    logits = torch.tensor([row[:2] for row in rows], dtype=torch.double)
    matched = torch.tensor([row[2] for row in rows])
    assert MatchingLoss()(logits, matched).item() == pytest.approx(total / len(rows), abs=1e-10)


def test_no_combinations_cost_nothing() -> None:
    logits = torch.zeros(0, 2, requires_grad=True)
    loss = MatchingLoss()(logits, torch.zeros(0, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0


def test_negatives_follow_the_softmax_of_the_candidates() -> None:
    logits = torch.tensor([2.0, 0.0, 1.0, 9.0, -1.0])
    same = torch.tensor([False, False, False, True, False])
    draws = 40_000
    generator = torch.Generator().manual_seed(0)
    chosen = hard_negatives(logits.expand(draws, -1), same.expand(draws, -1), generator)
    expected = logits.masked_fill(same, -torch.inf).softmax(dim=0)
    found = torch.bincount(chosen, minlength=5) / draws
    five_errors = 5 * (expected * (1 - expected) / draws).sqrt()
    assert ((found - expected).abs() <= five_errors).all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=6), st.integers(0, 3), st.floats(0.001, 1))
def test_a_negative_never_shows_the_image_of_its_row(ids: list[int], extra: int, temperature: float) -> None:
    """Similarities over a small temperature leave candidates whose probability underflows."""
    rows, columns = torch.tensor(ids), torch.tensor(ids + [1] * extra)
    same = rows[:, None] == columns
    for row, place in enumerate(hard_negatives(same / temperature, same).tolist()):
        if same[row].all():
            assert place == -1
        else:
            assert not same[row, place]


def test_the_draw_follows_its_generator_and_leaves_the_global_one() -> None:
    logits, same = torch.zeros(20, 30), torch.eye(20, 30).bool()
    state = torch.get_rng_state()
    first, again, other = (hard_negatives(logits, same, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)

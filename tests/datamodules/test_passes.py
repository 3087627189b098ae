"""Passes one after another without end, against a list that is filled row by row."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.passes import EndlessPasses, generator


def reference(rows: int, width: int, seed: int, purpose: int, length: int) -> list[int]:
    """Return the rows one by one: each pass fills up the batch at hand with what it does not hold, in its own order."""
    stream: list[int] = []
    number = 0
    while len(stream) < length:
        order = generator(seed, purpose, number).permutation(rows).tolist()
        begun = len(stream) % width
        held = stream[len(stream) - begun :]
        filling = [row for row in order if row not in held][: width - begun]
        stream += filling + [row for row in order if row not in filling]
        number += 1
    return stream[:length]


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 24), st.integers(1, 24), st.integers(0, 3), st.integers(0, 9), st.integers(1, 9))
def test_rows_are_those_of_a_list_filled_row_by_row(rows: int, width: int, seed: int, first: int, count: int) -> None:
    found = EndlessPasses(rows, width, seed, purpose=5).batches(first, count)
    expected = reference(rows, width, seed, 5, (first + count) * width)
    assert found.shape == (count, width)
    assert found.flatten().tolist() == expected[first * width :]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 24), st.integers(1, 24), st.integers(0, 3), st.integers(1, 30))
def test_rows_come_equally_often_and_never_twice_in_a_batch(rows: int, width: int, seed: int, count: int) -> None:
    batches = EndlessPasses(rows, width, seed, purpose=5).batches(0, count).tolist()
    counts = Counter(range(rows))
    for batch in batches:
        counts.update(batch)
        assert max(counts.values()) - min(counts.values()) <= 1
        if width <= rows:
            assert len(set(batch)) == width


def test_passes_differ_by_number_seed_and_purpose() -> None:
    first, second = EndlessPasses(50, 50, 0, 0).batches(0, 2).tolist()
    assert first != second
    assert first != EndlessPasses(50, 50, 1, 0).batches(0, 1)[0].tolist()
    assert first != EndlessPasses(50, 50, 0, 1).batches(0, 1)[0].tolist()


@pytest.mark.parametrize("rows", [9, 13])
def test_a_row_that_a_batch_holds_follows_it_as_likely_as_any_other_later(rows: int) -> None:
    """The last row of the first pass is in the batch that the second one fills up; only there it may not come."""
    places: Counter[int] = Counter()
    for seed in range(2_000):
        stream = EndlessPasses(rows, 4, seed, 0).batches(0, 2 * rows).flatten()
        places[stream[rows : 2 * rows].tolist().index(stream[rows - 1])] += 1
    assert set(places) == set(range(3, rows))
    assert min(places[place] for place in range(4, rows)) > 0.7 * 2_000 / rows

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics.functional import hallucinated, hallucination_rate


def mask(*rows):
    return torch.tensor(rows).bool()


def slow_rate(mentions, removed, k, retrieved):
    """Share of the retrieved captions among the first k that name a removed class, by sets."""
    gone = {c for c, flag in enumerate(removed) if flag}
    captions = [{c for c, flag in enumerate(caption) if flag} for caption in mentions[: min(k, retrieved)]]
    return sum(bool(names & gone) for names in captions) / len(captions) if captions else 0.0


@given(st.integers(1, 4), st.integers(0, 6), st.integers(0, 4), st.integers(1, 8), st.integers(0, 1000), st.data())
@settings(max_examples=60, deadline=None)
def test_equals_its_definition(queries, places, classes, k, seed, data):
    generator = torch.Generator().manual_seed(seed)
    mentions = torch.rand(queries, places, classes, generator=generator) < 0.4
    removed = torch.rand(queries, classes, generator=generator) < 0.4
    retrieved = data.draw(st.lists(st.integers(0, places), min_size=queries, max_size=queries))
    found = hallucination_rate(mentions, removed, k, retrieved=torch.tensor(retrieved))[k]
    expected = [slow_rate(*row, k, n) for *row, n in zip(mentions.tolist(), removed.tolist(), retrieved, strict=True)]
    assert found.tolist() == pytest.approx(expected)
    everywhere = hallucination_rate(mentions, removed, k)[k]
    assert everywhere.tolist() == pytest.approx(
        [slow_rate(*row, k, places) for row in zip(mentions.tolist(), removed.tolist(), strict=True)]
    )


def test_places_without_a_caption_are_not_divided_by():
    captions, removed = mask([1, 0], [0, 1], [0, 0], [0, 0])[None], mask([1, 0])
    full, short = (hallucination_rate(captions, removed, (1, 2, 4, 9), retrieved=torch.tensor([n])) for n in (4, 2))
    assert [rate.item() for rate in full.values()] == [1, 0.5, 0.25, 0.25]
    assert [rate.item() for rate in short.values()] == [1, 0.5, 0.5, 0.5]
    assert hallucination_rate(captions, removed, 3, retrieved=torch.tensor([0]))[3].item() == 0


def test_any_of_several_removed_classes_counts_once_per_caption():
    captions, removed = mask([1, 1, 0], [0, 1, 1], [0, 0, 1])[None], mask([1, 1, 0])
    assert hallucinated(captions, removed).tolist() == [[True, True, False]]
    assert hallucination_rate(captions, removed, 3)[3].item() == pytest.approx(2 / 3)


def test_nothing_removed_is_never_hallucinated():
    assert not hallucinated(torch.ones(2, 3, 4).bool(), torch.zeros(2, 4).bool()).any()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"ranked_mentions": torch.ones(2, 3, 4)}, TypeError, "ranked mentions"),
        ({"ranked_mentions": torch.ones(2, 4).bool()}, ValueError, "ranked mentions"),
        ({"removed": torch.ones(2, 3).bool()}, ValueError, "removed"),
        ({"removed": torch.ones(2, 4)}, TypeError, "removed"),
        ({"top_k": 0}, ValueError, "top_k"),
        ({"top_k": 1.0}, TypeError, "top_k"),
        ({"retrieved": torch.tensor([1])}, ValueError, "retrieved"),
        ({"retrieved": torch.tensor([1.0, 2.0])}, TypeError, "retrieved"),
        ({"retrieved": torch.tensor([1, 4])}, ValueError, "retrieved must lie between 0 and the 3 places"),
        ({"retrieved": torch.tensor([-1, 3])}, ValueError, "retrieved must lie"),
    ],
)
def test_wrong_arguments_are_named(change, error, words):
    arguments = {"ranked_mentions": torch.ones(2, 3, 4).bool(), "removed": torch.ones(2, 4).bool(), "top_k": 2}
    with pytest.raises(error, match=words):
        hallucination_rate(**(arguments | change))

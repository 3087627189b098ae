"""Properties that hold for every gallery and every model."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics import ODmAP, ODmAPBaselines

NORMALIZERS = ("k", "hits", "min(k,R)", "all")
DOG, FRISBEE = torch.eye(2).bool()


def score(scores, mentions, ids=None, **options):
    """Return ODmAP of one query without its dog, for captions of the given scores."""
    metric = ODmAP(**options)
    metric.update_gallery(
        torch.tensor(scores, dtype=torch.float32)[:, None],
        torch.stack(mentions),
        torch.arange(len(scores)) if ids is None else torch.tensor(ids),
    )
    metric.update(torch.ones(1, 1), DOG[None], FRISBEE[None], torch.tensor([0]))
    return {name: value.item() for name, value in metric.compute().items()}


captions = st.lists(
    st.tuples(st.integers(-3, 3), st.sampled_from([FRISBEE, DOG, DOG | FRISBEE, DOG & FRISBEE])),
    min_size=1, max_size=12,
)  # fmt: skip


@given(captions, st.integers(1, 15), st.sampled_from(NORMALIZERS))
@settings(max_examples=60, deadline=None)
def test_values_are_per_cent_and_an_irrelevant_last_caption_never_helps(gallery, k, normalize):
    scores, mentions = map(list, zip(*gallery, strict=True))
    before = score(scores, mentions, top_k=k, normalize=normalize)[f"ODmAP@{k}"]
    after = score([*scores, -4], [*mentions, DOG], top_k=k, normalize=normalize)[f"ODmAP@{k}"]
    assert 0 <= after <= before <= 100.0001


@given(captions, st.integers(1, 15), st.data())
@settings(max_examples=40, deadline=None)
def test_increasing_maps_and_the_order_of_the_gallery_do_not_matter(gallery, k, data):
    scores, mentions = map(list, zip(*gallery, strict=True))
    before = score(scores, mentions, top_k=k)
    mapped = [2.0**value - 100 for value in scores]
    order = data.draw(st.permutations(range(len(gallery))))
    assert score([mapped[row] for row in order], [mentions[row] for row in order], ids=order, top_k=k) == before


@given(st.integers(1, 8), st.integers(0, 8), st.integers(1, 20), st.sampled_from(NORMALIZERS))
@settings(max_examples=40, deadline=None)
def test_a_perfect_ranking_has_the_highest_value(relevant, others, k, normalize):
    """It is 100, but for the divisors that ask for more: k where fewer are relevant, all where k cuts some off."""
    mentions = [FRISBEE] * relevant + [DOG | FRISBEE] * others
    scores = list(range(-1, -1 - len(mentions), -1))
    found = min(k, relevant)
    divisor = {"k": k, "hits": found, "min(k,R)": found, "all": relevant}[normalize]
    assert score(scores, mentions, top_k=k, normalize=normalize)[f"ODmAP@{k}"] == pytest.approx(100 * found / divisor)


@pytest.mark.parametrize("relevant", [1, 2, 4])
def test_one_point_for_everything_is_worth_a_random_ranking(relevant):
    """Ties go by id, so the mean over all ways to hand out the ids is the expectation by chance, exactly."""
    mentions = [FRISBEE] * relevant + [DOG] * (5 - relevant)
    chance = ODmAPBaselines(top_k=(1, 3, 7))
    chance.update_gallery(torch.stack(mentions), torch.zeros(5).long(), torch.arange(5))
    chance.update(DOG[None], FRISBEE[None], torch.tensor([0]), torch.tensor([0]))
    orders = list(itertools.permutations(range(5)))
    values = [score([0.3] * 5, mentions, ids=order, top_k=(1, 3, 7), chunk_size=2) for order in orders]
    for k in (1, 3, 7):
        mean = sum(value[f"ODmAP@{k}"] for value in values) / len(orders)
        assert mean == pytest.approx(chance.compute()[f"random/ODmAP@{k}"].item(), rel=1e-4)

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics import RetrievalRecall
from metrics.functional import InvertedSoftmax
from metrics.search import top_k


def unit_rows(rows, seed, columns=6, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(rows, columns, generator=generator, dtype=dtype), dim=1)


def inverted_softmax(query, item, bank, temperature):
    """exp(s(q, g) / T) / sum over the bank's queries x of exp(s(x, g) / T), number by number."""
    above = math.exp(sum(a * b for a, b in zip(query, item, strict=True)) / temperature)
    below = sum(math.exp(sum(a * b for a, b in zip(one, item, strict=True)) / temperature) for one in bank)
    return above / below


def slow(queries, gallery, bank, temperature):
    rows = [
        [inverted_softmax(query, item, bank, temperature) for item in gallery.tolist()] for query in queries.tolist()
    ]
    return torch.tensor(rows, dtype=torch.float64)


@given(
    st.integers(1, 6), st.integers(1, 9), st.integers(1, 5), st.integers(1, 7), st.floats(0.05, 2), st.integers(0, 999)
)
@settings(max_examples=60, deadline=None)
def test_one_product_is_the_inverted_softmax_both_ways(images, captions, pictures, texts, temperature, seed):
    shown, said = unit_rows(images, seed), unit_rows(captions, seed + 1)
    bank = InvertedSoftmax(unit_rows(pictures, seed + 2), unit_rows(texts, seed + 3), temperature)
    product = bank.widen_images(shown) @ bank.widen_captions(said).T
    for found, expected in (
        (product, slow(shown, said, bank.images.tolist(), temperature)),
        (product.T, slow(said, shown, bank.captions.tolist(), temperature)),
    ):
        logs = temperature * expected.log()
        difference = found - logs  # the same for all items of a query
        torch.testing.assert_close(difference, difference[:, :1].expand_as(difference))
        assert torch.equal(found.argsort(dim=1), logs.argsort(dim=1))


def test_recall_of_the_widened_rows_is_that_of_the_slow_scores():
    shown, said = unit_rows(40, 0, dtype=torch.float32), unit_rows(80, 1, dtype=torch.float32)
    shown[:, 0] += 1  # all of them lean one way, so that some captions are hubs
    bank = InvertedSoftmax(unit_rows(30, 2) + torch.eye(6)[0], unit_rows(30, 3), temperature=0.1)
    plain, corrected = RetrievalRecall(top_k=(1, 5)), RetrievalRecall(top_k=(1, 5))
    plain.update_images(shown, torch.arange(40))
    plain.update_captions(said, torch.arange(80) // 2)
    corrected.update_images(bank.widen_images(shown), torch.arange(40))
    corrected.update_captions(bank.widen_captions(said), torch.arange(80) // 2)
    found = corrected.compute()
    i2t = slow(shown.double(), said.double(), bank.images.tolist(), 0.1).topk(5, dim=1).indices // 2
    t2i = slow(said.double(), shown.double(), bank.captions.tolist(), 0.1).topk(5, dim=1).indices
    for way, ranked, own in (("i2t", i2t, torch.arange(40)), ("t2i", t2i, torch.arange(80) // 2)):
        for k in (1, 5):
            assert found[f"{way}/R@{k}"] == pytest.approx(
                100 * float((ranked[:, :k] == own[:, None]).any(1).float().mean())
            )
    assert found["i2t/R@5"] != plain.compute()["i2t/R@5"]


def test_low_precision_and_autocast_do_not_reach_the_correction():
    shown, said = unit_rows(20, 0).bfloat16(), unit_rows(30, 1).bfloat16()
    pictures, texts = unit_rows(10, 2), unit_rows(10, 3)
    exact = InvertedSoftmax(pictures, texts, 0.05)
    expected = exact.widen_images(shown.double()), exact.widen_captions(said.double())
    with torch.autocast("cpu"):
        rough = InvertedSoftmax(pictures.float(), texts.float(), 0.05)
        found = rough.widen_images(shown), rough.widen_captions(said)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), theirs, atol=1e-6, rtol=0)


def test_equal_rows_tie_whatever_batch_they_come_in():
    said = unit_rows(700, 0, columns=40, dtype=torch.float32)
    said[650] = said[3]
    bank = InvertedSoftmax(unit_rows(300, 1, columns=40), unit_rows(300, 2, columns=40), 0.05)
    together = bank.widen_captions(said)
    apart = torch.cat([bank.widen_captions(part) for part in said.split([1, 3, 257, 0, 439])])
    assert torch.equal(together, apart)
    assert torch.equal(together[3], together[650])
    best = top_k(bank.widen_images(said[3:4]), together, 2)
    assert best.rows.tolist() == [[3, 650]]

import itertools

import pytest
import torch

from metrics.functional import relevance
from metrics.masks import count_relevant, distinct_rows, pack_bits


@pytest.mark.parametrize("classes", [1, 7, 8, 63, 64, 65, 80, 130])
def test_packed_rows_are_equal_where_the_masks_are(classes):
    mask = torch.rand(40, classes, generator=torch.Generator().manual_seed(classes)) < 0.5
    mask[20] = mask[3]
    words = pack_bits(mask)
    assert words.shape == (40, -(-classes // 64))
    assert torch.equal((words[:, None] == words).all(dim=2), (mask[:, None] == mask).all(dim=2))
    assert pack_bits(mask[:0]).shape == (0, words.shape[1])


def test_every_flipped_bit_changes_the_words():
    flips = torch.eye(80).bool()
    assert len(pack_bits(flips).unique(dim=0)) == 80


@pytest.mark.parametrize(("rows", "classes"), [(0, 3), (1, 80), (300, 3), (300, 80), (300, 130)])
def test_distinct_rows_are_those_of_torch(rows, classes):
    mask = torch.rand(rows, classes, generator=torch.Generator().manual_seed(classes)) < 0.02
    found = {tuple(row): count for row, count in zip(*(part.tolist() for part in distinct_rows(mask)), strict=True)}
    expected = torch.unique(mask, dim=0, return_counts=True)
    assert found == {tuple(row): count for row, count in zip(*(part.tolist() for part in expected), strict=True)}


@pytest.mark.parametrize("rule", ["any", "all"])
@pytest.mark.parametrize("gallery", [0, 1, 200])
def test_relevant_captions_are_counted_without_comparing_all_pairs(rule, gallery):
    generator = torch.Generator().manual_seed(gallery)
    mentions = torch.rand(gallery, 4, generator=generator) < 0.4
    removed, kept = (torch.rand(2, 300, 4, generator=generator) < 0.4).unbind()
    every_pair = relevance(mentions.expand(300, -1, -1), removed, kept, rule)
    assert torch.equal(count_relevant(mentions, removed, kept, rule), every_pair.sum(dim=1))
    assert torch.equal(count_relevant(*_with_counts(mentions, removed, kept, rule)), every_pair.sum(dim=1))


def _with_counts(mentions, removed, kept, rule):
    patterns, counts = distinct_rows(mentions)
    assert len(patterns) <= 16
    return patterns, removed, kept, rule, counts


@pytest.mark.parametrize(("rows", "classes"), list(itertools.product((0, 3), (0, 2))))
def test_distinct_rows_of_empty_masks(rows, classes):
    patterns, counts = distinct_rows(torch.zeros(rows, classes).bool())
    assert counts.sum() == rows
    assert patterns.shape[1] == classes


def test_counts_beyond_float32_are_exact():
    counts = torch.tensor([3, 10**9, 17 * 10**8])
    found = count_relevant(torch.eye(3).bool(), torch.zeros(1, 3).bool(), torch.ones(1, 3).bool(), counts=counts)
    assert found.tolist() == [2_700_000_003]

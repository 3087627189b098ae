"""Scores of pairs: each pair once, image by image, and what goes wrong in a sentence."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from datamodules.errors import ConfigError
from lightning_modules import pair_matcher, row_store
from lightning_modules.pair_matcher import PairMatcher
from metrics.distributed import Alone

IMAGES, CAPTIONS = torch.tensor([30, 10, 20]), torch.arange(100, 107)
STATES = torch.arange(18, dtype=torch.float32).view(3, 2, 3) / 4
TOKENS = torch.arange(28).view(7, 4) % 5


def _match(states, tokens):
    """Score [1, T, 3] and [N, 4] by a product that halves can hold."""
    return (tokens[:, :3] * states.float().sum(dim=1)).sum(dim=1)


@pytest.fixture
def make(tmp_path: Path):
    def made(match=_match, states=STATES, tokens=TOKENS, batch_size=2):
        matcher = PairMatcher(match, tmp_path, torch.device("cpu"), batch_size)
        for some in (slice(2), slice(2, 3)):
            matcher.add_images(IMAGES[some], states[some])
        for some in (slice(4), slice(4, 7)):
            own = (
                tokens[some]
                if isinstance(tokens, torch.Tensor)
                else {name: all_[some] for name, all_ in tokens.items()}
            )
            matcher.add_captions(CAPTIONS[some], own)
        made.matchers.append(matcher)
        return matcher

    made.matchers = []
    yield made
    for matcher in made.matchers:
        matcher.close()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_pair_gets_its_score_in_the_order_that_was_asked(make, dtype) -> None:
    seen = []

    def match(states, tokens):
        seen.append((states.dtype, tuple(states.shape), len(tokens)))
        return _match(states, tokens)

    image_ids, caption_ids = torch.tensor([20, 30, 20, 10, 20, 20]), torch.tensor([106, 100, 101, 106, 101, 103])
    found = make(match, states=STATES.to(dtype)).scores(image_ids, caption_ids)
    rows = [
        (IMAGES.tolist().index(one), CAPTIONS.tolist().index(other))
        for one, other in zip(image_ids, caption_ids, strict=True)
    ]
    assert found.tolist() == [float((TOKENS[caption, :3] * STATES[image].sum(dim=0)).sum()) for image, caption in rows]
    assert found.dtype == torch.float32
    assert seen == [(dtype, (1, 2, 3), count) for count in (1, 1, 2, 1)]  # 30, 10, and 20 with 101, 103 and 106


def test_tokens_may_be_a_mapping(make) -> None:
    tokens = {"ids": TOKENS, "mask": TOKENS > 0}

    def match(states, given):
        assert given["mask"].dtype == torch.bool
        return _match(states, given["ids"] * given["mask"])

    ids = IMAGES[[0, 2]], CAPTIONS[[1, 3]]
    assert make(match, tokens=tokens).scores(*ids).tolist() == make().scores(*ids).tolist()


def test_no_pairs_no_scores(make, tmp_path: Path) -> None:
    nothing = torch.empty(0, dtype=torch.long)
    assert make().scores(nothing, nothing).shape == (0,)
    empty = PairMatcher(_match, tmp_path, torch.device("cpu"), 2)
    assert empty.scores(nothing, nothing).shape == (0,)


def test_a_score_per_caption_is_wanted(make) -> None:
    with pytest.raises(ValueError, match=r"`match_captions` gave \[2, 2\] for 2 captions"):
        make(lambda states, tokens: torch.zeros(len(tokens), 2)).scores(IMAGES[[0, 0]], CAPTIONS[:2])


def test_captions_of_different_lengths_are_refused(make) -> None:
    with pytest.raises(ValueError, match="all must have one"):
        make().add_captions(torch.tensor([200]), TOKENS[:1, :3])


def test_a_full_disk_is_told_in_a_sentence(make, monkeypatch, tmp_path: Path) -> None:
    def full(self, name, rows):
        raise OSError(errno.ENOSPC, "No space left on device")

    matcher = make()
    monkeypatch.setattr(row_store._RowFile, "append", full)
    with pytest.raises(ConfigError, match=r"takes no more \(No space left on device\): .*rerank_top_k` to 0") as raised:
        matcher.add_images(torch.tensor([1]), STATES[:1])
    assert str(tmp_path) in str(raised.value)


def test_a_disk_that_is_full_when_ranks_share_is_told_too(make, monkeypatch) -> None:
    class Two(Alone):
        size = 2

    def full(self, name, rows):
        raise OSError(errno.ENOSPC, "No space left on device")

    matcher = make()
    monkeypatch.setattr(row_store._RowFile, "append", full)
    with pytest.raises(ConfigError, match=r"takes no more \(No space left on device\)"):
        matcher.share_captions(Two())


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"in .*file/runs, which takes no more \(Not a directory\)"):
        PairMatcher(_match, tmp_path / "file" / "runs", torch.device("cpu"), 2)


def test_a_long_run_says_how_far_it_is(make, monkeypatch) -> None:
    said = []
    monkeypatch.setattr(pair_matcher, "rank_zero_info", said.append)
    monkeypatch.setattr(pair_matcher, "_SECONDS_BETWEEN_REPORTS", 0.0)
    make().scores(IMAGES.repeat_interleave(7), CAPTIONS.repeat(3))
    assert len(said) == 12
    assert said[0].startswith("Re-ranking: 2 of 21 pairs are scored, ")
    assert said[-1].startswith("Re-ranking: 21 of 21 pairs are scored, ")
    assert said[-1].endswith(" 0 min left.")
    monkeypatch.setattr(pair_matcher, "_SECONDS_BETWEEN_REPORTS", 1e9)
    make().scores(IMAGES, CAPTIONS[:3])
    assert len(said) == 12

"""Captions as words and ids."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules.errors import ConfigError, MissingPathError
from lightning_modules.words import Vocabulary, count_words, read_words, split_words


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A man rides a horse.", "a man rides a horse ."),
        ("It isn't the dog's, they can't've won't", "it is n't the dog 's , they can't 've wo n't"),
        ("I'm you're we've he'd she'll", "i 'm you 're we 've he 'd she 'll"),
        ("the dogs' t-shirt at 5 o'clock", "the dogs ' t-shirt at 5 o'clock"),
        ("already split : do n't , dog 's", "already split : do n't , dog 's"),
        ("3.5 of $1,000 at 10:30", "3.5 of $ 1,000 at 10:30"),
        ("one.two and/or U.S.A", "one . two and / or u . s . a"),
        ('wait... no -- (yes) ["so"]!?', 'wait ... no -- ( yes ) [ " so " ] ! ?'),
        ("Don\N{RIGHT SINGLE QUOTATION MARK}t naïve 中文", "do n't naïve 中文"),
        (" \n\t", ""),
    ],
)
def test_words_and_marks(caption: str, words: str) -> None:
    assert list(split_words(caption)) == words.split()


@given(st.text(st.characters(codec="utf-8") | st.sampled_from("n't's.-,0 ")))
def test_nothing_but_white_space_is_lost(caption: str) -> None:
    kept = "".join(caption.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").split())
    words = list(split_words(caption))
    assert "".join(words) == kept
    assert all(words)


def test_frequent_words_come_first_and_seldom_ones_not_at_all() -> None:
    captions = ["b a", "a b c", "a B c d", "A. c."]
    assert count_words(iter(captions), 2) == ("a", "b", "c", ".")
    assert count_words(captions, 4) == ("a",)
    with pytest.raises(ConfigError, match=r"None of the 5 words .* `model.init_args.min_count`"):
        count_words(captions, 5)


def test_captions_become_ids() -> None:
    vocabulary = Vocabulary(("dog", "a", "."), max_words=3)
    tokens = vocabulary.tokenize(["A dog.", "", "zebra", "a " * 500])
    assert tokens.dtype == torch.int64
    assert tokens.tolist() == [[1, 5, 4, 6, 2], [1, 2, 0, 0, 0], [1, 3, 2, 0, 0], [1, 5, 5, 5, 2]]
    assert len(vocabulary) == 7
    assert torch.equal(pickle.loads(pickle.dumps(vocabulary)).tokenize(["A dog."]), tokens[:1])  # noqa: S301


def test_words_are_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("a\n\n naïve \nno\n", encoding="utf-8")
    assert read_words(tmp_path / "words.txt") == ("a", "naïve", "no")
    (tmp_path / "image.png").write_bytes(b"\x89PNG\xff")
    with pytest.raises(ConfigError, match="no text"):
        read_words(tmp_path / "image.png")
    with pytest.raises(MissingPathError, match=r"`model.init_args.vocabulary` is words.txt"):
        read_words("words.txt")


@pytest.mark.parametrize(("words", "problem"), [((), "holds no word"), (("a", "b", "a"), "holds 'a' more than once")])
def test_a_vocabulary_has_every_word_once(words: tuple[str, ...], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Vocabulary(words)


def test_one_caption_is_a_row_and_none_are_no_rows() -> None:
    vocabulary = Vocabulary(("a", "dog"))
    assert vocabulary.tokenize("A dog").tolist() == vocabulary.tokenize(["A dog"]).tolist()
    assert len(vocabulary.tokenize([])) == 0

import os

import numpy as np
import pyarrow as pa
import pytest

from datamodules import mentions as room
from datamodules.errors import ConfigError
from datamodules.mentions import mentions, mentions_of
from datamodules.phrases.protocol import PhraseMatcher
from datamodules.tables import StringColumn, Tables


class WordMatcher:
    """Names a class where its word occurs; remembers what it was asked."""

    class_names = ("cat", "dog")

    def __init__(self, version="1"):
        self.version = version
        self.asked = []

    def phrases(self, captions):
        raise NotImplementedError

    def mentions(self, captions):
        self.asked.append(list(captions))
        return np.array([[name in caption for name in self.class_names] for caption in captions])


def tables_of(folder, texts):
    return Tables.write(
        folder,
        images={"image_id": [7], "file": ["7.jpg"], "split": [0], "width": [1], "height": [1]},
        captions={"caption_id": range(len(texts)), "image": [0] * len(texts), "text": texts},
        objects={"image": [], "category": [], "box": [], "crowd": [], "segmentation": []},
        class_names=WordMatcher.class_names,
        splits=["train"],
        fingerprint=str(texts),
    )


TEXTS = ["a cat", "a dog", "a cat", "a cat and a dog", "a bird"]


def test_the_test_matcher_is_a_matcher():
    assert isinstance(WordMatcher(), PhraseMatcher)


def test_rows_follow_the_captions_and_equal_captions_are_asked_once(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "_CHUNK", 3)
    matcher = WordMatcher()
    found = mentions(tables_of(tmp_path / "tables", TEXTS), matcher, tmp_path)
    assert found.tolist() == [[True, False], [False, True], [True, False], [True, True], [False, False]]
    assert found.dtype == np.bool_
    assert matcher.asked == [["a cat", "a dog", "a cat and a dog"], ["a bird"]]


def test_a_second_call_maps_the_file_and_asks_nothing(tmp_path):
    tables = tables_of(tmp_path / "tables", TEXTS)
    first = mentions(tables, WordMatcher(), tmp_path)
    matcher = WordMatcher()
    second = mentions(tables, matcher, tmp_path)
    assert isinstance(second, np.memmap)
    assert not second.flags.writeable
    assert matcher.asked == []
    assert (first == second).all()


def test_captions_of_elsewhere_are_found_under_their_content(tmp_path):
    first = mentions(tables_of(tmp_path / "tables", TEXTS), WordMatcher(), tmp_path)
    matcher = WordMatcher()
    assert (mentions_of(StringColumn(pa.array(TEXTS, pa.large_string())), matcher, tmp_path) == first).all()
    assert matcher.asked == []
    assert mentions_of(StringColumn(pa.array(TEXTS[1:], pa.large_string())), matcher, tmp_path).tolist() == (
        first[1:].tolist()
    )
    assert matcher.asked == [["a dog", "a cat", "a cat and a dog", "a bird"]]


def test_other_captions_or_another_version_are_computed_anew(tmp_path):
    mentions(tables_of(tmp_path / "a", TEXTS), WordMatcher(), tmp_path)
    newer, other = WordMatcher("2"), WordMatcher()
    mentions(tables_of(tmp_path / "a", TEXTS), newer, tmp_path)
    assert mentions(tables_of(tmp_path / "b", ["a dog", *TEXTS[1:]]), other, tmp_path)[0].tolist() == [False, True]
    assert newer.asked
    assert other.asked


def test_a_matcher_that_fails_leaves_nothing_behind(tmp_path):
    matcher = WordMatcher()
    matcher.mentions = lambda captions: 1 / 0
    with pytest.raises(ZeroDivisionError):
        mentions(tables_of(tmp_path / "tables", TEXTS), matcher, tmp_path)
    assert list((tmp_path / "mentions").iterdir()) == []


def test_a_set_without_captions_has_no_rows(tmp_path):
    assert mentions(tables_of(tmp_path / "tables", []), WordMatcher(), tmp_path).shape == (0, 2)


def test_a_matcher_of_other_classes_is_refused(tmp_path):
    matcher = WordMatcher()
    matcher.class_names = ("dog", "cat")
    with pytest.raises(ConfigError, match=r"knows 2 classes \(dog, cat, ...\), the data set has 2 \(cat, dog"):
        mentions(tables_of(tmp_path / "tables", TEXTS), matcher, tmp_path)


def test_an_unwritable_cache_fails_before_the_work(tmp_path):
    matcher = WordMatcher()
    tables = tables_of(tmp_path / "tables", TEXTS)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cache_dir"):
        mentions(tables, matcher, tmp_path / "file")
    assert matcher.asked == []


def test_the_environment_variable_sets_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ODMAP_CACHE", str(tmp_path / "elsewhere"))
    mentions(tables_of(tmp_path / "tables", TEXTS), WordMatcher())
    assert len(os.listdir(tmp_path / "elsewhere" / "mentions")) == 1

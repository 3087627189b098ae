"""Which phrases of a caption are left in an edit of it, against what the edit is known to have deleted."""

from itertools import combinations

import pytest

from datamodules.phrases import Phrase
from datamodules.phrases.carried import carried
from synth.captions import remove_phrases
from synth.rules import Rule

CLASSES = range(4)


def test_what_was_not_deleted_is_left(two_layouts):
    texts = [one["raw"] for image in two_layouts.scenes["images"] for one in image["sentences"]]
    edits = 0
    for text, phrases in zip(texts, two_layouts.matcher.phrases(texts), strict=True):
        for size in (1, 2, 3):
            for removed in map(set, combinations(CLASSES, size)):
                edited = remove_phrases(text, phrases, removed, set(CLASSES) - removed)
                if isinstance(edited, Rule):
                    continue
                left = [phrase for phrase in phrases if phrase.classes.isdisjoint(removed)]
                found = carried(text, phrases, edited)
                assert [edited[start:end].lower() for start, end, _ in found] == [
                    text[start:end].lower() for start, end, _ in left
                ]
                assert [phrase.classes for phrase in found] == [phrase.classes for phrase in left]
                edits += 1
    assert edits > 300


@pytest.mark.parametrize(
    ("edited", "left"),
    [
        ("Two young , white males sit by a dog .", [0, 1]),
        ("Two young white males sit", [0]),
        ("Two males sit by a dog", [1]),
        ("Two young, very white males sit by a dog", [1]),
        ("By a dog", [1]),
        ("a white dog", []),
        ("", []),
        ("...", []),
    ],
)
def test_a_phrase_is_left_whole_or_not_at_all(edited, left):
    phrases = [Phrase(0, 23, frozenset({0})), Phrase(31, 36, frozenset({1})), Phrase(37, 38, frozenset({2}))]
    found = carried("Two young , white males sit by a dog .", phrases, edited)
    assert [phrase.classes for phrase in found] == [phrases[index].classes for index in left]
    assert all(edited[start:end].strip(" ,.") == edited[start:end] for start, end, _ in found)

"""A matcher whose words are annotated phrases."""

from datamodules.phrases import PhraseMatcher
from datamodules.phrases.lexicon import LexiconMatcher

PEOPLE, ANIMALS = frozenset({0}), frozenset({1})
SAID = [
    *[("A man", PEOPLE), ("the man", PEOPLE), ("man", frozenset())],
    *[("a mount", ANIMALS), ("a mount", frozenset())],
    *[("the dog", ANIMALS), ("A dog park", frozenset()), ("A man 's dog", PEOPLE | ANIMALS)],
    *[("one", PEOPLE), ("these two", ANIMALS), (".", PEOPLE)],
]


def matcher(asked=None):
    return LexiconMatcher(
        ("people", "animals"), lambda: (asked.append(1) if asked is not None else None) or iter(SAID), "7"
    )


def found(caption):
    (phrases,) = matcher().phrases([caption])
    return [(caption[start:end], set(classes)) for start, end, classes in phrases]


def test_it_is_a_matcher_that_reads_its_words_when_it_is_asked():
    asked = []
    lazy = matcher(asked)
    assert isinstance(lazy, PhraseMatcher)
    assert lazy.class_names == ("people", "animals")
    assert lazy.mentions([]).shape == (0, 2)
    assert "7" in lazy.version
    assert not asked
    assert lazy.mentions(["Man", "", "the DOG"]).tolist() == [[True, False], [False, False], [False, True]]
    assert lazy.mentions(["dog"]).tolist() == [[False, True]]
    assert asked == [1]


def test_the_longest_phrase_counts_with_its_determiners():
    assert found("Look , one man walks the dog in a dog park .") == [
        ("one man", {0}),
        ("the dog", {1}),
        ("a dog park", set()),
    ]
    assert found("See a man's dog") == [("a man's dog", {0, 1})]


def test_more_than_half_of_the_annotations_decide():
    assert found("a mount") == [("a mount", set())]
    assert found("his man") == [("his man", {0})]


def test_a_class_may_be_called_like_a_determiner():
    named = LexiconMatcher(("people", "other"), lambda: iter([("the other man", PEOPLE)]), "7")
    assert named.mentions(["a photo of an other", "one man", "many"]).tolist() == [
        [False, True],
        [True, False],
        [False, False],
    ]


def test_numbers_alone_name_nothing_and_classes_name_themselves():
    assert found("A photo of one of two people and some animals") == [("two people", {0}), ("some animals", {1})]

"""What a caption names, checked on labelled captions, on pitfalls one by one, and on any text."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datamodules.errors import ConfigError, MissingPathError, UserError
from datamodules.phrases import CocoMatcher, PhraseMatcher, RuleChunker, SpacyChunker, WordListMatcher

LABELS = json.loads(Path(__file__).with_name("dev_labels.json").read_text())

NAMED = {
    # longest match first
    "A man eats a hot dog.": "person, hot dog",
    "Two hot dogs with mustard on a plate.": "hot dog",
    "A teddy bear on the grass.": "teddy bear",
    "Several teddy bears in a window.": "teddy bear",
    "A brown bear in the river.": "bear",
    "A microwave oven on the counter.": "microwave",
    "A bow tie around his neck.": "tie",
    "A toilet seat is up.": "toilet",
    "The seat of the toilet is white.": "toilet",
    "Three wine glasses in a row.": "wine glass",
    "A stove top oven in a kitchen.": "oven",
    "A pit bull in the yard.": "dog",
    # animals with words for people
    "A baby elephant walks.": "elephant",
    "An adult giraffe stands in the field.": "giraffe",
    "An elephant and her baby in the river.": "elephant",
    "A family of ducks crosses the road.": "bird",
    "A couple of zebras in the field.": "zebra",
    "A woman holds a baby.": "person",
    "The elephant family is walking.": "elephant",
    "A child watching two grey elephants.": "person, elephant",
    # another concept
    "A passenger jet on the runway.": "airplane",
    "A passenger train by the river.": "train",
    "A man stands at home plate.": "person",
    "Grass grows between the train tracks.": "",
    "A bike lane along the street.": "",
    "A red phone booth on the corner.": "",
    "A tv remote on the floor.": "remote",
    "A baseball player on the field.": "person",
    "People on a tennis court.": "person",
    "A street light at night.": "",
    "A ski lift above the trees.": "",
    "A bus stop in the rain.": "",
    "A remote area in the mountains.": "",
    "A coffee table in front of a couch.": "dining table, couch",
    "A computer keyboard and a computer mouse.": "keyboard, mouse",
    "A toy dog on the shelf.": "",
    "A statue of a horse in the park.": "",
    "A street with no people.": "",
    # colours, verbs and the like
    "An orange cat on the floor.": "cat",
    "An orange and white cat on the floor.": "cat",
    "An orange and a chair.": "orange, chair",
    "Orange slices on a plate.": "orange",
    "Slices of orange and banana on a plate.": "orange, banana",
    "A bowl of oranges.": "bowl, orange",
    "He ties his shoe.": "",
    "Dogs train in the field.": "dog",
    "A man skis down the hill.": "person",
    "Two teddy bears beside a bed.": "teddy bear, bed",
    "Teddy bears sitting around a table.": "teddy bear, dining table",
    "A taxi stops in town.": "car",
    "A cat walks on the grass.": "cat",
    "A glass on the floor.": "",
    "A glass of water on the floor.": "cup",
    "A cat plays with a toy mouse.": "cat",
    "A mouse next to the keyboard.": "mouse, keyboard",
    "Roast turkey with gravy.": "",
    "A wild turkey walks in the grass.": "bird",
    "A container of food.": "",
    "Kids throw a baseball.": "person, sports ball",
    "Kids play baseball.": "person",
    # gaps of older lists
    "A surfer in the water.": "person",
    "The batter and the catcher wait for the umpire.": "person",
    "A couple walks on the beach.": "person",
    "A crowd of onlookers.": "person",
    "Pedestrians in the rain.": "person",
    "The team poses for a picture.": "person",
    "A subway at the platform.": "train",
    "Two racquets against a fence.": "tennis racket",
    "A batter swings his bat.": "person, baseball bat",
    "The catcher's mitt.": "baseball glove",
    "A surfer carries his board.": "person, surfboard",
    "A snowboarder holds his board in the snow.": "person, snowboard",
    "The screen of a computer.": "tv",
    "A plant in the corner.": "potted plant",
    "A truck full of animals.": "truck",
    # spelling
    "A skate board and a lap top.": "skateboard, laptop",
    "A frisbe in the grass.": "frisbee",
    "A giraffee at the zoo.": "giraffe",
    "A firehydrant by the road.": "fire hydrant",
    "A refridgerator in the corner.": "refrigerator",
    "Men, women and children.": "person",
    "Geese, sheep and oxen.": "bird, sheep, cow",
    "Knives and scissors.": "knife, scissors",
    # ways of typing
    "": "",
    " \n ": "",
    "a dog , a cat .": "dog, cat",
    "TWO DOGS ON A SURF BOARD": "dog, surfboard",
    "two dogs and a cat": "dog, cat",
}


@pytest.fixture(scope="module")
def matcher() -> CocoMatcher:
    return CocoMatcher()


def names(matcher: WordListMatcher, classes) -> set[str]:
    return {matcher.class_names[index] for index in classes}


@pytest.fixture(scope="module")
def found(matcher) -> dict[str, set[str]]:
    return {
        caption: names(matcher, row.nonzero()[0])
        for caption, row in zip(NAMED, matcher.mentions(list(NAMED)), strict=True)
    }


@pytest.mark.parametrize("caption", NAMED)
def test_names_exactly_these_classes(found, caption):
    assert found[caption] == {name for name in NAMED[caption].split(", ") if name}


def score(matcher, labels) -> tuple[float, float, float]:
    right = [set(label["classes"]) for label in labels]
    rows = matcher.mentions([label["caption"] for label in labels])
    got = [names(matcher, row.nonzero()[0]) for row in rows]
    hits = sum(len(one & other) for one, other in zip(right, got, strict=True))
    exact = np.mean([one == other for one, other in zip(right, got, strict=True)])
    return hits / sum(map(len, got)), hits / sum(map(len, right)), float(exact)


def test_agrees_with_labelled_captions(matcher):
    precision, recall, exact = score(matcher, LABELS)
    assert len(LABELS) >= 200
    assert (precision >= 0.98, recall >= 0.98, exact >= 0.96) == (True, True, True)


def test_rule_chunker_comes_close_without_a_model():
    precision, recall, exact = score(CocoMatcher(RuleChunker()), LABELS)
    assert (precision >= 0.95, recall >= 0.95, exact >= 0.88) == (True, True, True)


def spans(matcher, caption: str) -> list[tuple[str, set[str]]]:
    return [(caption[start:end], names(matcher, classes)) for start, end, classes in matcher.phrases([caption])[0]]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("Two dogs fighting over a frisbee", [("Two dogs", {"dog"}), ("a frisbee", {"frisbee"})]),
        ("A group  of PEOPLE near a tree", [("A group  of PEOPLE", {"person"}), ("a tree", set())]),
        ("A glass of wine on the table", [("A glass of wine", {"wine glass"}), ("the table", {"dining table"})]),
        ("A bowl of oranges", [("A bowl", {"bowl"}), ("oranges", {"orange"})]),
        ("A slice of\npizza\u00a0on a plate", [("A slice of\npizza", {"pizza"}), ("a plate", set())]),
        ("İ é\u2009: a dog\u2019s bed", [("a dog\u2019s bed", {"dog", "bed"})]),
    ],
)
def test_phrases_are_slices_of_the_caption(matcher, caption, expected):
    assert spans(matcher, caption) == expected


def test_chunks_are_spacys_own_although_it_needs_parts_of_speech_for_them(matcher):
    import spacy
    from spacy.tokens import Doc

    texts = [label["caption"] for label in LABELS[::4]] + [
        "Those on the left and everybody else.",
        "What it eats",
        "It",
    ]
    parses = list(matcher._chunker.parse(texts))
    whole = spacy.load(SpacyChunker()._installed()[0], exclude=["ner", "lemmatizer"])
    closed = [parse.words if parse.words[-1] in ".!?" else [*parse.words, "."] for parse in parses]
    for parse, doc in zip(parses, whole.pipe(Doc(whole.vocab, words=words) for words in closed), strict=True):
        assert parse.chunks == [(chunk.start, chunk.end) for chunk in doc.noun_chunks]
        assert parse.tags == [token.tag_ for token in doc][: len(parse.words)]


def test_class_words_outside_chunks_get_a_phrase_of_their_own():
    class Blind(RuleChunker):
        def parse(self, captions):
            return (parse._replace(chunks=[]) for parse in super().parse(captions))

    assert spans(CocoMatcher(Blind()), "near a small white dog") == [("a small white dog", {"dog"})]


CHARACTERS = st.sampled_from(
    [*"abc .,-'\u2019\n", "dogs ", "a ", "of ", "group ", "hot ", "baby ", "orange ", "İ", "é", "🐶"]
)


@given(st.lists(CHARACTERS, max_size=30).map("".join))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_gives_ordered_phrases_that_agree_with_mentions(text):
    matcher = RULES
    phrases = matcher.phrases([text])[0]
    ends = [0, *(phrase.end for phrase in phrases)]
    assert all(before <= phrase.start < phrase.end <= len(text) for before, phrase in zip(ends, phrases, strict=False))
    union = frozenset().union(*(phrase.classes for phrase in phrases))
    assert set(matcher.mentions([text])[0].nonzero()[0]) == union


RULES = CocoMatcher(RuleChunker())


def test_mentions_agree_with_phrases_and_repeat_for_repeated_captions(matcher):
    captions = [label["caption"] for label in LABELS[:40]] * 2
    mentions = matcher.mentions(captions)
    assert mentions.shape == (80, 80)
    assert mentions.dtype == bool
    for row, phrases in zip(mentions, matcher.phrases(captions), strict=True):
        assert set(row.nonzero()[0]) == frozenset().union(*(phrase.classes for phrase in phrases))


def test_no_captions(matcher):
    assert matcher.phrases([]) == []
    assert matcher.mentions([]).shape == (0, 80)


def test_typing_makes_no_difference(matcher):
    captions = [label["caption"] for label in LABELS[:60]]
    plain = matcher.mentions(captions)
    assert (matcher.mentions([caption.upper() for caption in captions]) == plain).all()
    assert (matcher.mentions([" " + caption.replace(" ", "  ") + "\n" for caption in captions]) == plain).all()
    assert (matcher.mentions([caption.strip().rstrip(".") for caption in captions]) == plain).all()


def test_a_very_long_caption(matcher):
    assert names(matcher, matcher.mentions(["a dog and a cat, " * 300])[0].nonzero()[0]) == {"dog", "cat"}


def test_class_names_are_cocos_in_category_order(matcher):
    assert len(matcher.class_names) == 80
    assert matcher.class_names[:3] == ("person", "bicycle", "car")
    assert matcher.class_names[-2:] == ("hair drier", "toothbrush")
    assert isinstance(matcher, PhraseMatcher)


def test_every_class_is_named_by_its_own_name(matcher):
    rows = matcher.mentions([f"Here is a {name}." for name in matcher.class_names])
    assert rows.argmax(1).tolist() == list(range(80))
    assert (rows.sum(1) == 1).all()


def write(folder: Path, text: str) -> Path:
    path = folder / "words.yaml"
    path.write_text(text)
    return path


def test_version_follows_list_and_chunker(tmp_path, matcher):
    one = WordListMatcher(write(tmp_path, "classes: {animal: [dog]}"), RuleChunker())
    first = one.version
    assert first == WordListMatcher(one._list.path, RuleChunker()).version
    assert first != WordListMatcher(write(tmp_path, "classes: {animal: [cat]}"), RuleChunker()).version
    assert matcher.version != RULES.version


def test_asking_for_the_version_loads_no_language_model():
    code = "import sys; from datamodules.phrases import CocoMatcher as M; M().version; sys.exit('spacy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_matcher_that_was_used_pickles_without_its_language_model(matcher):
    captions = ["A dog on a skatebord", "A vilage"]
    found = matcher.mentions(captions)
    pickled = pickle.dumps(matcher)
    assert len(pickled) < 2_000_000
    assert (pickle.loads(pickled).mentions(captions) == found).all()  # noqa: S301


def test_a_list_of_other_classes(tmp_path):
    path = write(tmp_path, "classes: {animals: [dog, cat], vehicles: [car, bus]}\nnothing: [bus stop]\n")
    matcher = WordListMatcher(path, RuleChunker())
    assert spans(matcher, "A dog at a bus stop") == [("A dog", {"animals"}), ("a bus stop", set())]


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("classes: {a: [dog", "not valid yaml"),
        ("dog", "classes"),
        ("classes: {}", "classes"),
        ("classes: {a: dog}", "classes: a"),
        ("classes: {a: [dog, no]}", "classes: a: False"),
        ("classes: {a: [dog]}\nnothings: [cat]", "nothings"),
        ("classes: {a: [dog]}\nnothing: {cat: dog}", "nothing"),
        ("classes: {a: [dog], b: [d og]}", "d og"),
        ("classes: {a: [dog]}\nnothing: [dog]", "dog"),
        ("classes: {a: [dog]}\nsenses: {cat: {lion: []}}", "senses: cat"),
        ("classes: {a: [dog]}\nnouns_only: [cat]", "nouns_only: cat"),
        ("classes: {a: [dog]}\nyields: [{words: [dog]}]", "yields: rule 1"),
        ("classes: {a: [dog]}\nlikenesses: [toy]", "likenesses: rule 1"),
    ],
)
def test_a_malformed_list_is_one_sentence(tmp_path, text, entry):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        WordListMatcher(path, RuleChunker())
    assert str(path) in str(caught.value)
    assert entry in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(MissingPathError, match=r"none\.yaml"):
        WordListMatcher(tmp_path / "none.yaml", RuleChunker())


def test_a_missing_pipeline_says_how_to_install_one():
    with pytest.raises(UserError, match="pip install"):
        CocoMatcher(SpacyChunker(pipelines=("en_not_there",))).mentions(["a dog"])
    with pytest.raises(UserError, match="pip install"):
        _ = SpacyChunker(pipelines=("en_not_there",)).version

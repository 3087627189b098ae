"""Which prompts come out of templates and class names, and what a matcher reads in them."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.errors import ConfigError, MissingPathError
from datamodules.phrases import CocoMatcher
from synth.captions import CaptionRequest, PromptCaptions
from synth.captions.grammar import plural, with_article
from synth.captions.prompts import fill_in, imagenet_templates
from synth.rules import Rule

NAMES = ("dog", "apple", "scissors", "person", "wine glass")


def request(kept, counts=(), seed=(0,)):
    return CaptionRequest("", [], frozenset({4}), frozenset(kept), NAMES, dict(counts), seed)


@pytest.mark.parametrize(
    ("template", "names", "expected"),
    [
        ("a photo of a {}.", ["dog"], "a photo of a dog."),
        ("a photo of a {}.", ["dog", "apple"], "a photo of a dog and an apple."),
        ("a photo of a {}.", ["dog", "apple", "skis"], "a photo of a dog, an apple and skis."),
        ("A photo of {}", ["person", "dog"], "A photo of person and dog"),
        ("the {} in a video game.", ["dog", "cat"], "the dog and the cat in a video game."),
        ("a {} in a video game.", ["umbrella"], "an umbrella in a video game."),
        ("a origami {}.", ["dog", "cat"], "an origami dog and a cat."),
        ("a photo of a hard to see {}.", ["scissors"], "a photo of hard to see scissors."),
        ("a photo of many {}.", ["person", "knife"], "a photo of many people and many knives."),
        ("a photo of one {}.", ["scissors", "dog"], "a photo of scissors and one dog."),
        ("itap of my {}.", ["tv", "bus"], "itap of my tv and my bus."),
        ("A {} outside", ["apple", "skis"], "An apple and skis outside"),
        ("a black and white photo of the {}", ["dog"], "a black and white photo of the dog"),
        ("a scene showing {}", ["dog", "cat"], "a scene showing dog and cat"),
        ("{} and more", ["dog", "cat"], "dog and cat and more"),
    ],
)
def test_each_name_gets_the_determiner_of_the_template(template, names, expected):
    assert fill_in(template, names, [None] * len(names)) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("a photo of a clean {}", "a photo of two clean people, a dog and 13 sheep"),
        ("a photo of many {}", "a photo of two people, a dog and 13 sheep"),
        ("a photo of one {}", "a photo of two people, a dog and 13 sheep"),
        ("photo: {}", "photo: two people, a dog and 13 sheep"),
        ("my toy {}", "my two toy people, my dog and my 13 sheep"),
    ],
)
def test_counts_take_the_place_of_what_would_contradict_them(template, expected):
    assert fill_in(template, ["person", "dog", "sheep"], [2, 1, 13]) == expected


def test_joining_stands_before_the_last_name():
    strategy = PromptCaptions(["{}"], joining=", ")
    assert strategy.write([request({0, 1, 3}), request({0})]) == ["dog, apple, person", "dog"]


def test_counts_are_those_of_the_request_and_one_where_it_has_none():
    counted = [request({0, 3}, {3: 3})]
    assert PromptCaptions(["a {}"], counts=True).write(counted) == ["a dog and three people"]
    assert PromptCaptions(["a {}"]).write(counted) == ["a dog and a person"]


def test_nothing_kept_is_no_prompt():
    assert PromptCaptions(["a {}"]).write([request({0}), request(())]) == ["a dog", Rule.NO_KEPT_WORD]


def test_the_seed_of_the_pair_alone_draws_the_template():
    strategy = PromptCaptions()
    requests = [request({0}, seed=(7, image)) for image in range(300)]
    together = strategy.write(requests)
    assert together == [strategy.write([one])[0] for one in requests]
    assert len(set(together)) > 50
    assert together != strategy.write([request({0}, seed=(8, image)) for image in range(300)])


def test_all_80_templates_on_demand_and_60_by_default():
    every = {PromptCaptions(without=[]).write([request({0}, seed=(n,))])[0] for n in range(1200)}
    default = {PromptCaptions().write([request({0}, seed=(n,))])[0] for n in range(1200)}
    assert every == {fill_in(template, ["dog"], [None]) for template in imagenet_templates()}
    assert (len(every), len(default)) == (80, 60)
    assert "a painting of a dog." in every - default


def test_the_identity_is_what_decides_and_survives_json():
    strategy = PromptCaptions(["a {}"], counts=True)
    assert json.loads(json.dumps(strategy.identity())) == strategy.identity()
    assert strategy.identity() != PromptCaptions(["a {}"]).identity()


def test_a_file_holds_one_template_per_line(tmp_path):
    path = tmp_path / "templates.txt"
    path.write_text("\nan image of a {}\n\n", encoding="utf-8")
    assert PromptCaptions(str(path)).write([request({1})]) == ["an image of an apple"]


@pytest.mark.parametrize("templates", [[], ["a photo"], ["a {}", "{} and {}"]])
def test_templates_without_one_slot_are_refused(templates):
    with pytest.raises(ConfigError, match="`templates` of PromptCaptions"):
        PromptCaptions(templates)


def test_a_missing_file_and_no_template_left_are_refused(tmp_path):
    with pytest.raises(MissingPathError, match=re.escape(str(tmp_path / "none.txt"))):
        PromptCaptions(str(tmp_path / "none.txt"))
    with pytest.raises(ConfigError, match="`without`"):
        PromptCaptions(without=["a", "the", "my", "many", "one"]).write([request({0})])


@given(
    st.sampled_from(["a {}", "the red {}", "{}", "my {}"]), st.lists(st.sampled_from(NAMES), min_size=1, unique=True)
)
def test_every_name_stands_once_in_order(template, names):
    text = fill_in(template, names, [None] * len(names))
    places = [re.search(rf"\b{name}\b", text).start() for name in names]
    assert places == sorted(places)
    assert "{" not in text
    assert "  " not in text


@pytest.fixture(scope="module")
def coco():
    return CocoMatcher()


def named(coco, texts):
    return coco.mentions(texts).reshape(len(texts) // 80, 80, 80)


@pytest.mark.slow
def test_a_matcher_reads_the_one_class_of_every_prompt_and_no_other(coco):
    templates = imagenet_templates(tuple(PromptCaptions().without))
    found = named(coco, [fill_in(template, [name], [None]) for template in templates for name in coco.class_names])
    wrong = np.argwhere(found != np.eye(80, dtype=bool))
    assert [(templates[template], coco.class_names[name]) for template, name, _ in wrong] == []


@pytest.mark.slow
def test_every_word_left_out_makes_a_prompt_that_is_misread(coco):
    for word in PromptCaptions().without:
        template = next(text for text in imagenet_templates() if word in text)
        found = named(coco, [fill_in(template, [name], [None]) for name in coco.class_names])[0]
        assert (found != np.eye(80, dtype=bool)).any(), word


def test_a_matcher_reads_counted_classes_and_lists(coco):
    names = coco.class_names
    counted = named(coco, [fill_in("a photo of a {}.", [name], [3]) for name in names])[0]
    assert [names[row] for row in np.flatnonzero((counted != np.eye(80, dtype=bool)).any(1))] == []
    following = [[name, names[(index + 7) % 80]] for index, name in enumerate(names)]
    pairs = named(coco, [fill_in("a photo of a {}.", both, [None, None]) for both in following])[0]
    expected = np.eye(80, dtype=bool) | np.roll(np.eye(80, dtype=bool), 7, axis=1)
    assert [following[row] for row in np.flatnonzero((pairs != expected).any(1))] == []


def test_articles_and_plurals_of_the_names_of_coco(coco):
    vowels = {name for name in coco.class_names if with_article(name).startswith("an ")}
    assert vowels == {"airplane", "umbrella", "apple", "orange", "oven", "elephant"}
    bare = {name for name in coco.class_names if with_article(name) == name}
    assert bare == {"broccoli", "scissors", "skis"}
    unusual = {name: plural(name) for name in coco.class_names if plural(name) != name + "s"}
    assert unusual == {
        "person": "people",
        "bus": "buses",
        "bench": "benches",
        "sheep": "sheep",
        "skis": "skis",
        "wine glass": "wine glasses",
        "knife": "knives",
        "sandwich": "sandwiches",
        "broccoli": "broccoli",
        "couch": "couches",
        "mouse": "mice",
        "scissors": "scissors",
        "toothbrush": "toothbrushes",
    }

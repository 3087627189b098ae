"""What is planned for an image, against everything that could be, and in any company."""

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from synth import SynthesisConfig, plan
from synth.captions import remove_phrases
from synth.fills import ZeroFill
from synth.plan import Planner
from synth.rules import Rule
from synth.selection import Removal, select, unique

NAMES = ("dog", "frisbee", "man", "cat")
IMAGES = 60


def draw_captions(rng):
    """Up to four captions that name any classes."""
    verbs = (" near ", " and ", ", ", " on grass with ")
    return [
        "".join(word for name in rng.sample(NAMES, rng.randint(0, 3)) for word in (f"a {name}", rng.choice(verbs)))
        + rng.choice(["outside", "a photo", ""])
        for _ in range(rng.randint(0, 4))
    ]


@pytest.fixture
def config(draw_data, tmp_path):
    rng = random.Random(0)
    images = [
        (f"i{number}", "train", rng.sample(NAMES, rng.randint(0, 4)), draw_captions(rng)) for number in range(IMAGES)
    ]
    return SynthesisConfig(draw_data("many", images), tmp_path / "out", pairs={"train": ["train"]}, fill=ZeroFill())


def planned(config, rows=None, verb="pairs"):
    rows = np.arange(IMAGES) if rows is None else np.asarray(rows)
    outcomes = getattr(Planner(config), verb)(rows)
    return {
        row: outcome if isinstance(outcome, Rule) else [(p.row, p.removal, p.caption, p.text) for p in outcome]
        for row, outcome in zip(rows.tolist(), outcomes, strict=True)
    }


def possible(config, row):
    """Every removal and caption of an image that make a pair, with its text, one by one."""
    tables, matcher = config.data.tables, config.data.matcher
    judged = next(select(tables, np.array([row]), config.selection))
    found = []
    for caption in range(tables.caption_offsets[row], tables.caption_offsets[row + 1]):
        text = tables.texts[caption]
        named = set(np.flatnonzero(matcher.mentions([text])[0]).tolist())
        for removal in (each for each in judged if isinstance(each, Removal)):
            edited = remove_phrases(text, matcher.phrases([text])[0], removal.removed, removal.kept)
            if removal.candidate in named and isinstance(edited, str):
                found.append((row, removal, caption, edited))
    return found


@pytest.mark.parametrize("captions", ["one", "all"])
def test_an_image_gives_a_pair_exactly_if_one_is_possible(config, captions):
    config = replace(config, captions_per_image=captions)
    kept = 0
    for row, outcome in planned(config).items():
        choices = possible(config, row)
        if isinstance(outcome, Rule):
            assert choices == []
            continue
        kept += len(outcome)
        assert all(each in choices for each in outcome)
        chosen = [caption for _, _, caption, _ in outcome]
        assert len(chosen) == 1 if captions == "one" else chosen == sorted({each[2] for each in choices})
    assert kept > 15


@pytest.mark.parametrize("verb", ["pairs", "queries"])
@pytest.mark.parametrize("number", ["one", "all"])
def test_a_plan_depends_on_no_other_image(config, monkeypatch, verb, number):
    config = replace(config, captions_per_image=number, queries_per_image=number)
    together = planned(config, verb=verb)
    assert len({type(outcome) for outcome in together.values()}) == 2
    shuffled = np.random.default_rng(1).permutation(IMAGES)
    assert planned(config, shuffled, verb) == together
    monkeypatch.setattr(plan, "_CHUNK", 1)
    assert planned(config, verb=verb) == together
    some = Planner(replace(config, max_images=20)).rows(["train"])
    other = Planner(replace(config, max_images=20, seed=1)).rows(["train"])
    assert len(set(some.tolist())) == len(set(other.tolist())) == 20
    assert some.tolist() == sorted(some.tolist())
    assert set(some.tolist()) not in (set(range(20)), set(other.tolist()))
    assert planned(config, some, verb) == {row: together[row] for row in some.tolist()}


def test_every_removal_can_be_drawn_as_often_and_by_seed_alone(config):
    row = next(row for row, outcome in planned(config, verb="queries").items() if not isinstance(outcome, Rule))
    choices = unique(
        [e for e in next(select(config.data.tables, np.array([row]), config.selection)) if isinstance(e, Removal)]
    )
    drawn = Counter()
    for seed in range(300):
        seeded = replace(config, seed=seed)
        ((_, removal, *_),) = planned(seeded, [row], "queries")[row]
        drawn[removal.candidate] += 1
        assert planned(seeded, [row], "queries") == planned(seeded, [row], "queries")
    assert len(choices) > 1
    assert set(drawn) == {removal.candidate for removal in choices}
    assert min(drawn.values()) > 0.7 * 300 / len(choices)


def test_every_query_has_another_removal(config):
    for row, outcome in planned(replace(config, queries_per_image="all"), verb="queries").items():
        judged = next(select(config.data.tables, np.array([row]), config.selection))
        distinct = {each.removed for each in judged if isinstance(each, Removal)}
        found = [] if isinstance(outcome, Rule) else [removal.removed for _, removal, *_ in outcome]
        assert len(found) == len(set(found))
        assert set(found) == distinct


def test_equal_images_draw_apart(draw_data, tmp_path):
    texts = ["A dog, a man and a cat", "A man near a cat and a dog"]
    twins = draw_data("twins", [(f"i{number}", "train", ["dog", "man", "cat"], texts) for number in range(40)])
    outcomes = planned(SynthesisConfig(twins, tmp_path / "out", pairs={"train": ["train"]}), range(40))
    drawn = Counter((removal.candidate, caption % 2) for ((_, removal, caption, _),) in outcomes.values())
    assert len(drawn) == 6
    assert max(drawn.values()) < 20


def test_a_class_that_joined_is_no_reason_to_take_a_caption(draw_data, tmp_path, monkeypatch):
    """Two classes that cover each other are one query, and a pair needs the word of the class that was drawn."""
    dog, frisbee, man = range(3)
    boxes = np.array([[2.0, 2, 16, 14]])
    both, stays = frozenset({dog, frisbee}), frozenset({man})
    found = [Removal(both, stays, boxes, dog), Removal(both, stays, boxes, frisbee), Removal(stays, both, boxes, man)]
    monkeypatch.setattr(plan, "select", lambda *_: iter([found]))
    photo = draw_data("photo", [("a", "train", ["dog", "man", "frisbee"], ["A frisbee near a man"])])
    config = SynthesisConfig(photo, tmp_path / "out", pairs={"train": ["train"]}, queries_per_image="all")
    assert [removal.candidate for _, removal, *_ in planned(config, [0], "queries")[0]] == [dog, man]
    drawn = {planned(replace(config, seed=seed), [0])[0][0][1].candidate for seed in range(20)}
    assert drawn == {frisbee, man}


@pytest.mark.parametrize(
    ("classes", "captions", "rule"),
    [
        (["dog"], ["A dog and a man"], Rule.FEW_CLASSES),
        ([], ["A dog"], Rule.FEW_CLASSES),
        (["dog", "man"], [], Rule.NOT_NAMED),
        (["dog", "man"], ["Outside", "A cat"], Rule.NOT_NAMED),
        (["dog", "man"], ["Outside", "A dog", "A cat"], Rule.NO_KEPT_WORD),
    ],
)
def test_an_image_without_a_pair_says_how_far_it_came(draw_data, tmp_path, classes, captions, rule):
    one = draw_data("one", [("other", "train", ["cat", "man"], ["A cat"]), ("a", "train", classes, captions)])
    for number in ("one", "all"):
        config = SynthesisConfig(one, tmp_path / "out", pairs={"train": ["train"]}, captions_per_image=number)
        assert planned(config, [1]) == {1: rule}


def test_judged_and_rejected_candidates_are_counted(config):
    planner = Planner(config)
    list(planner.queries(np.arange(IMAGES)))
    judged = [each for found in select(config.data.tables, np.arange(IMAGES), config.selection) for each in found]
    rejected = Counter((e.candidate, e.against, e.rule) for e in judged if not isinstance(e, Removal))
    assert planner.judged == len(judged)
    assert planner.rejected == rejected
    assert rejected

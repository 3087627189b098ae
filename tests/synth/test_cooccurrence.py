"""Counts of class pairs against slow references, on drawn, planted and real data."""

import json
import math
from collections import Counter
from itertools import combinations
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import synth
from datamodules.coco_reader import read_coco
from datamodules.errors import ConfigError
from datamodules.scenes.scene import SceneModel
from datamodules.scenes.vocabulary import vocabulary
from synth import SynthesisConfig
from synth.cooccurrence import ORDERS, Change, Cooccurrence, measure, pairs
from synth.fills import ZeroFill
from synth.selection import SelectionConfig

SAMPLE = Path(__file__).parents[3] / "shared/data/coco-sample"
presence = st.integers(1, 5).flatmap(
    lambda classes: st.lists(st.lists(st.booleans(), min_size=classes, max_size=classes), max_size=12)
)


def present(rows, classes=None):
    return np.array(rows, dtype=bool).reshape(len(rows), -1 if rows else classes or 3)


@settings(max_examples=100, deadline=None)
@given(presence)
def test_every_measure_equals_its_definition(rows):
    table = present(rows)
    found = Cooccurrence.of(table)
    number = len(table)
    for a, b in np.ndindex(found.together.shape):
        both = sum(bool(row[a] and row[b]) for row in table)
        only_a, only_b = sum(map(bool, table[:, a])), sum(map(bool, table[:, b]))
        assert (found.together[a, b], found.counts[a], found.total) == (both, only_a, number)
        assert found.conditional[a, b] == pytest.approx(both / only_a if only_a else math.nan, nan_ok=True)
        lift = (both / number) / (only_a / number * only_b / number) if only_a and only_b else math.nan
        assert found.lift[a, b] == pytest.approx(lift, nan_ok=True)
        pmi = -math.inf if lift == 0 else math.log2(lift)
        assert found.pmi[a, b] == pytest.approx(pmi, nan_ok=True, abs=1e-12)
        constant = {only_a, only_b} & {0, number}
        phi = math.nan if constant else np.corrcoef(table[:, a], table[:, b])[0, 1]
        assert found.phi[a, b] == pytest.approx(phi, nan_ok=True, abs=1e-12)


@given(presence, st.randoms())
def test_counts_add_up_over_any_parts(rows, random):
    table, cut = present(rows), random.randint(0, len(rows))
    whole, parts = Cooccurrence.of(table), Cooccurrence.of(table[:cut]) + Cooccurrence.of(table[cut:])
    assert np.array_equal(whole.together, parts.together)
    assert whole.total == parts.total


def test_counts_are_exact_beyond_one_chunk():
    table = np.ones((200_001, 2), dtype=bool)
    table[::2, 1] = False
    assert Cooccurrence.of(table).together.tolist() == [[200_001, 100_000], [100_000, 100_000]]


@pytest.mark.parametrize("by", ORDERS)
def test_pairs_come_by_the_measure_and_only_where_there_are_enough(by):
    table = np.random.default_rng(0).random((60, 6)) < [0.5, 0.4, 0.3, 0.2, 0.1, 0.0]
    before = Cooccurrence.of(table)
    change = Change(before, before + Cooccurrence.of(table[:7]), tuple("abcdef"))
    found = pairs(change, min_count=4, by=by)
    strengths = [getattr(pair, f"{by}_before") for pair in found]
    assert strengths == sorted(strengths, reverse=True)
    enough = {(a, b) for a, b in combinations(range(6), 2) if before.together[a, b] >= 4}
    assert {("abcdef".index(pair.a), "abcdef".index(pair.b)) for pair in found} == enough
    for pair in found:
        a, b = "abcdef".index(pair.a), "abcdef".index(pair.b)
        assert pair.a_to_b_before == before.conditional[a, b]
        assert pair.b_to_a_before == before.conditional[b, a]
        assert pair.b_to_a_after == change.after.conditional[b, a]
        assert pair.together_after == change.after.together[a, b]
        for measured in ("phi", "lift", "pmi"):
            assert getattr(pair, f"{measured}_before") == getattr(before, measured)[a, b]
            assert getattr(pair, f"{measured}_after") == getattr(change.after, measured)[a, b]


def test_pairs_that_never_meet_and_classes_in_every_image_are_no_stumbling_block():
    before = Cooccurrence.of(present([[1, 1, 0], [1, 0, 1]]))
    found = pairs(Change(before, before, ("always", "left", "right")))
    assert [(pair.a, pair.b) for pair in found] == [("always", "left"), ("always", "right")]
    assert math.isnan(found[0].phi_before)
    nothing = Cooccurrence.of(present([], classes=3))
    assert pairs(Change(nothing, nothing, ("a", "b", "c"))) == []


@pytest.mark.parametrize("rho", [0.5, 0.95])
def test_planted_pairs_come_out_first_with_their_correlation(rho):
    words = vocabulary()
    model, rng = SceneModel.of(words, words.classes), Random(0)
    names = tuple(words.classes)
    table = np.zeros((4000, len(names)), dtype=bool)
    for row in table:
        row[[names.index(name) for name in model.draw(rho, rng).counts]] = True
    before = Cooccurrence.of(table)
    planted = {frozenset(pair) for found in model.pairs.values() for pair in found}
    found = pairs(Change(before, before, names))[: len(planted)]
    assert {frozenset((pair.a, pair.b)) for pair in found} == planted
    assert [pair.phi_before for pair in found] == pytest.approx([rho] * len(planted), abs=0.1)


def test_a_finished_set_is_counted_beside_its_source(data, tmp_path):
    splits = {"train": ["train", "restval"]}
    config = SynthesisConfig(data, tmp_path / "out", pairs=splits, queries={"test": ["test"]}, fill=ZeroFill())
    synth.run(config)
    tables, matcher = data.tables, data.matcher
    wanted = set(tables.rows("train", "restval").tolist())
    shown = {row: set() for row in wanted}
    for image, category in zip(tables.object_images.tolist(), tables.categories.tolist(), strict=True):
        if image in wanted:
            shown[image].add(category)
    original = [text for image, text in zip(tables.caption_images, tables.texts, strict=True) if image in wanted]
    made = [json.loads(line) for line in (config.output / "train/metadata.jsonl").read_text().splitlines()]
    expected = {
        "images": (list(shown.values()), [{tables.class_names.index(name) for name in row["kept"]} for row in made]),
        "captions": (named(matcher, original), named(matcher, [row["text"] for row in made])),
    }
    changes = measure(config)
    assert changes.keys() == expected.keys()
    for what, (before, added) in expected.items():
        assert_counts(changes[what].before, before)
        assert_counts(changes[what].after, before + added)


def test_a_synthetic_image_with_two_captions_is_one_image(data, tmp_path):
    config = SynthesisConfig(data, tmp_path / "out", pairs={"train": ["train"]}, fill=ZeroFill())
    synth.run(config)
    once = measure(config)
    with (config.output / "train/metadata.jsonl").open("r+") as file:
        row = json.loads(file.readlines()[0])
        file.write(json.dumps(row | {"caption_id": row["caption_id"] + 1}) + "\n")
    twice = measure(config)
    assert np.array_equal(twice["images"].after.together, once["images"].after.together)
    assert twice["captions"].after.total == once["captions"].after.total + 1


def test_synthetic_captions_are_matched_once_as_long_as_they_stay_the_same(data, tmp_path, monkeypatch):
    config = SynthesisConfig(data, tmp_path / "out", pairs={"train": ["train"]}, fill=ZeroFill())
    synth.run(config)
    metadata = config.output / "train/metadata.jsonl"
    rows = [json.loads(line) for line in metadata.read_text().splitlines()]
    asked, read, originals = [], data.matcher.mentions, data.mentions()
    monkeypatch.setattr(data, "mentions", lambda: originals)
    monkeypatch.setattr(data.matcher, "mentions", lambda captions: asked.append(set(captions)) or read(captions))
    first, second = measure(config)["captions"].after, measure(config)["captions"].after
    assert asked == [{row["text"] for row in rows}]
    assert np.array_equal(first.together, second.together)
    for row in rows:
        row["text"] = "A cat"
    metadata.write_text("".join(json.dumps(row) + "\n" for row in rows))
    cat = data.matcher.class_names.index("cat")
    changed = measure(config)["captions"]
    assert asked[1:] == [{"A cat"}]
    assert changed.after.counts[cat] - changed.before.counts[cat] == len(rows)


def test_a_class_that_is_left_counts_even_where_it_is_too_small_to_be_kept(draw_data, tmp_path, rows):
    photo = draw_data("photo", [("a", "train", ["dog", "man", "frisbee"], ["A man and a dog"])])
    config = SynthesisConfig(
        photo, tmp_path / "out", {"train": ["train"]}, fill=ZeroFill(), selection=SelectionConfig(min_kept_area=0.04)
    )
    synth.run(config)
    (row,) = rows(config.output, "train")
    (gone,), (stays,) = row["removed"], row["kept"]
    change = measure(config)["images"]
    added = change.after.together - change.before.together
    shown = {photo.tables.class_names[index] for index in np.flatnonzero(added.diagonal())}
    assert shown == {stays, "frisbee"}
    assert {gone, stays} == {"dog", "man"}


def named(matcher, captions):
    return [set(np.flatnonzero(row).tolist()) for row in matcher.mentions(captions)]


def assert_counts(found, members):
    counts = Counter(pair for classes in members for pair in ((a, b) for a in classes for b in classes))
    assert {(a, b): n for (a, b), n in np.ndenumerate(found.together) if n} == counts
    assert found.total == len(members)


def test_a_config_of_queries_alone_is_refused(data, tmp_path):
    config = SynthesisConfig(data, tmp_path / "out", queries={"test": ["test"]}, fill=ZeroFill())
    synth.run(config)
    with pytest.raises(ConfigError, match="`pairs` is empty"):
        measure(config)


@pytest.mark.real
def test_real_photos_are_counted_as_their_json_says(tmp_path):
    if not SAMPLE.exists():
        pytest.skip("no real photos at ../shared/data/coco-sample")
    sources = [SAMPLE / "annotations" / name for name in ("instances.json", "instances_boxes_only.json")]
    loaded = [json.loads(path.read_text()) for path in sources]
    names = {category["id"]: category["name"] for category in loaded[0]["categories"]}
    members = {}
    for annotation in (annotation for source in loaded for annotation in source["annotations"]):
        members.setdefault(annotation["image_id"], set()).add(names[annotation["category_id"]])
    together = Counter(pair for classes in members.values() for pair in combinations(sorted(classes), 2))
    karpathy = SAMPLE / "annotations/karpathy_sample.json"
    tables = read_coco(karpathy, sources, SAMPLE / "images", list(names.values()), tmp_path)
    shown = np.zeros((len(tables), len(names)), dtype=bool)
    shown[tables.object_images, tables.categories] = True
    counts = Cooccurrence.of(shown)
    found = pairs(Change(counts, counts, tables.class_names))
    assert {tuple(sorted((pair.a, pair.b))): pair.together_before for pair in found} == dict(together)
    strongest = pairs(Change(counts, counts, tables.class_names), min_count=5)[0]
    assert strongest.phi_before > 0.5

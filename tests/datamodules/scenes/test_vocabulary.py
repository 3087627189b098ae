import re
from pathlib import Path

import pytest

from datamodules.scenes.cutouts import _PALETTE
from datamodules.scenes.places import PAINTERS
from datamodules.scenes.vocabulary import Noun, vocabulary

SAMPLE = Path(__file__).parents[4] / "shared" / "data" / "coco-sample" / "annotations" / "instances.json"
WORDS = vocabulary()


def single_words(text):
    return set(re.findall(r"[a-z]+", text.lower()))


def test_classes_are_cocos():
    ids = [entry.category_id for entry in WORDS.classes.values()]
    assert len(ids) == 80
    assert ids == sorted(set(ids))
    assert (ids[0], ids[-1]) == (1, 90)


@pytest.mark.real
def test_ids_and_groups_are_those_of_the_real_annotations():
    import json

    if not SAMPLE.is_file():
        pytest.skip("../shared/data/coco-sample is absent")
    real = {c["name"]: (c["id"], c["supercategory"]) for c in json.loads(SAMPLE.read_text())["categories"]}
    assert {name: (entry.category_id, entry.group) for name, entry in WORDS.classes.items()} == real


def test_pairs_are_disjoint_drawable_and_of_one_stage():
    paired = [name for pairs in WORDS.pairs.values() for pair in pairs for name in pair]
    assert len(paired) == len(set(paired)) == 24
    for stage, pairs in WORDS.pairs.items():
        assert all(WORDS.classes[name].stage == stage and WORDS.classes[name].glyphs for pair in pairs for name in pair)


def test_every_place_can_be_painted_and_welcomes_classes_of_its_stage():
    assert set(WORDS.places) == set(PAINTERS)
    for place in WORDS.places.values():
        assert all(WORDS.classes[name].stage == place.stage for name in place.welcomes)


def test_every_paired_class_is_at_home_somewhere_with_its_partner():
    for stage, pairs in WORDS.pairs.items():
        places = [place for place in WORDS.places.values() if place.stage == stage]
        assert all(any(place.welcomes >= set(pair) for place in places) for pair in pairs)


def test_every_glyph_is_one_code_point_with_known_colours():
    glyphs = [glyph for entry in WORDS.classes.values() for glyph in entry.glyphs]
    assert len(glyphs) > 90
    for glyph in glyphs:
        assert len(glyph.text) == 1
        assert set(glyph.paint) <= set(_PALETTE)
        assert not glyph.paint or glyph.colour in _PALETTE


def test_every_kind_and_zone_has_verbs():
    needed = {entry.kind for entry in WORDS.classes.values()} | {"sky", "wall", "boat"}
    assert needed <= set(WORDS.verbs)


def test_actions_name_classes_or_kinds():
    known = set(WORDS.classes) | set(WORDS.verbs)
    assert all({action.subject, action.target} <= known for action in WORDS.actions)


def test_no_place_verb_or_colour_is_a_word_for_a_class():
    class_words = {
        word
        for entry in WORDS.classes.values()
        for noun in (*entry.nouns, *(n for glyph in entry.glyphs for n in glyph.nouns))
        for form in noun
        for word in [form.split()[-1]]
    } - {"salad", "noodles", "rice", "coffee", "tea", "wine"}
    said = [phrase for place in WORDS.places.values() for phrase in (*place.phrases, *place.over)]
    said += [form for verbs in WORDS.verbs.values() for verb in verbs for form in verb]
    said += [form for action in WORDS.actions for verb in action.verbs for form in verb]
    said += list(_PALETTE)
    spoken = set().union(*map(single_words, said))
    assert not spoken & class_words


def test_nouns_of_different_classes_differ():
    owner = {}
    for name, entry in WORDS.classes.items():
        for noun in {*entry.nouns, *(n for glyph in entry.glyphs for n in glyph.nouns)}:
            assert isinstance(noun, Noun)
            assert owner.setdefault(noun.one, name) == name

import re
from collections import Counter
from random import Random

import numpy as np
import pytest
from PIL import Image

from datamodules.scenes.grammar import CaptionWriter
from datamodules.scenes.picture import Scene, SceneObject
from datamodules.scenes.vocabulary import Noun, vocabulary

WORDS = vocabulary()
NUMBERS = {"two": (2,), "three": (3,), "several": (3,), "some": (3,)}


def forms(scene, name, *, plural):
    """Every way in which a caption may call the objects of a class in this scene."""
    objects = [one for one in scene.objects if one.name == name]
    nouns = {*WORDS.classes[name].nouns, *(noun for one in objects for noun in one.nouns)}
    return {noun.many if plural else noun.one for noun in nouns}


def mentioned(text, words):
    return any(re.search(rf"\b{re.escape(word)}\b", text) for word in words)


def thing(name, box, colour=None, zone="ground", nouns=None):
    mask = np.zeros((100, 100), bool)
    x, y, w, h = box
    mask[y : y + h, x : x + w] = True
    return SceneObject(name, nouns or WORDS.classes[name].nouns, colour, zone, mask, box)


def captions_of(*objects, place="park", count=400):
    scene = Scene(WORDS.places[place], objects, Image.new("RGB", (100, 100)))
    writer = CaptionWriter(WORDS)
    return [caption for seed in range(count // 5) for caption in writer.write(scene, 5, Random(seed))]


def test_captions_name_exactly_the_classes_that_they_say_they_name(drawn):
    for scene, captions in drawn:
        counts = Counter(one.name for one in scene.objects)
        for caption in captions:
            assert caption.classes
            for name, count in counts.items():
                said = mentioned(caption.text.lower(), forms(scene, name, plural=count > 1))
                assert said or name not in caption.classes, (caption.text, name)


def test_captions_name_no_class_that_is_not_there(drawn):
    everything = {
        name: {form for noun in (*entry.nouns, *(n for g in entry.glyphs for n in g.nouns)) for form in noun}
        for name, entry in WORDS.classes.items()
    }
    longest_first = sorted(
        ((form, name) for name, all_ in everything.items() for form in all_), key=lambda f: -len(f[0])
    )
    pattern = re.compile(r"\b(" + "|".join(re.escape(form) for form, _ in longest_first) + r")\b")
    owner = dict(longest_first)
    for _, captions in drawn:
        for caption in captions:
            assert {owner[form] for form in pattern.findall(caption.text.lower())} == caption.classes, caption.text


def test_classes_are_named_often_but_not_always(drawn):
    pairs = [(c.classes, {one.name for one in scene.objects}) for scene, captions in drawn for c in captions]
    share = sum(len(named) for named, _ in pairs) / sum(len(there) for _, there in pairs)
    assert 0.7 <= share <= 0.82


def test_captions_read_like_sentences(drawn):
    texts = [caption.text for _, captions in drawn for caption in captions]
    for text in texts:
        assert text[0].isupper()
        assert "  " not in text
        assert not re.search(r"\ba [aeiou]", text.lower()), text
        assert not re.search(r"\ban [^aeiou]", text.lower()), text
    assert len(set(texts)) > 0.9 * len(texts)
    assert sum(text.startswith("A photo") for text in texts) < 0.06 * len(texts)


def test_captions_of_a_picture_differ(drawn):
    assert all(len({c.text for c in captions}) == len(captions) == 5 for _, captions in drawn)


def test_numbers_are_true(drawn):
    for scene, captions in drawn:
        counts = Counter(one.name for one in scene.objects)
        for caption in captions:
            for name in caption.classes:
                for form in forms(scene, name, plural=counts[name] > 1):
                    for word in re.findall(rf"\b(\w+) {re.escape(form)}\b", caption.text.lower()):
                        assert counts[name] in NUMBERS.get(word, (counts[name],)), caption.text


@pytest.mark.parametrize(
    ("x", "true", "false"), [(5, "to the left of", "to the right of"), (60, "to the right of", "to the left of")]
)
def test_sides_are_true(x, true, false):
    dogs, sheep = Noun("dog", "dogs"), Noun("sheep", "sheep")
    texts = [
        caption.text.lower()
        for caption in captions_of(
            thing("dog", (x, 60, 20, 20), nouns=(dogs,)), thing("sheep", (33, 60, 20, 20), nouns=(sheep,))
        )
    ]
    assert any(f"{true} a sheep" in text for text in texts)
    assert not any(f"{false} a sheep" in text for text in texts)


def test_heights_are_true():
    high = thing("clock", (40, 5, 20, 20), zone="wall")
    low = thing("vase", (40, 60, 20, 30))
    texts = [caption.text.lower() for caption in captions_of(high, low, place="kitchen", count=1500)]
    assert any("above a vase" in text for text in texts)
    assert not any("below a vase" in text or "above a clock" in text for text in texts)


def test_colours_are_said_only_of_objects_that_share_them():
    red, blue = (thing("car", (x, 60, 20, 20), colour) for x, colour in ((5, "red"), (60, "blue")))
    assert any("red car" in caption.text for caption in captions_of(red))
    assert not any(re.search("red|blue", caption.text.lower()) for caption in captions_of(red, blue))


def test_sizes_are_said_only_where_they_are_true():
    small, large = (thing("bus", (5, 40, side, side)) for side in (18, 55))
    assert any(re.search("small|little", caption.text) for caption in captions_of(small, place="street"))
    assert not any(re.search("big|large", caption.text) for caption in captions_of(small, place="street"))
    assert any(re.search("big|large", caption.text) for caption in captions_of(large, place="street"))
    assert not any(re.search("small|little", caption.text) for caption in captions_of(large, place="street"))


def test_things_in_the_sky_fly():
    texts = [caption.text for caption in captions_of(thing("airplane", (40, 5, 20, 20), zone="sky"))]
    assert any("flies over" in text or "flying over" in text for text in texts)
    assert not any(re.search("parked|stand", text) for text in texts)

from collections import Counter
from functools import cache
from itertools import combinations
from random import Random

import pytest

from datamodules.errors import ConfigError
from datamodules.scenes.scene import SceneModel
from datamodules.scenes.vocabulary import vocabulary

WORDS = vocabulary()
DRAWABLE = [name for name, entry in WORDS.classes.items() if entry.glyphs]
MODEL = SceneModel.of(WORDS, DRAWABLE)
PARTNER = {a: b for pairs in MODEL.pairs.values() for one, other in pairs for a, b in ((one, other), (other, one))}
DRAWS = 10_000


@cache
def presence(rho):
    """Counts of single classes and of pairs of classes over many casts."""
    rng = Random(f"rho {rho}")
    casts = [sorted(MODEL.draw(rho, rng).counts) for _ in range(DRAWS)]
    singles = Counter(name for cast in casts for name in cast)
    return singles, Counter(pair for cast in casts for pair in combinations(cast, 2))


def together(pairs, name):
    return pairs[tuple(sorted((name, PARTNER[name])))]


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.95, 1.0])
def test_partners_correlate_as_the_formula_says(rho):
    singles, pairs = presence(rho)
    m = 1 / MODEL.pair_count
    wanted = m + rho * (1 - m)
    one_of_each = [one for stage in MODEL.pairs.values() for one, _ in stage]
    both, members = (sum(f(n) for n in one_of_each) for f in (lambda n: together(pairs, n), singles.__getitem__))
    assert both / members == pytest.approx(wanted, abs=0.017)
    for name in one_of_each:
        p, q, pq = (count / DRAWS for count in (singles[name], singles[PARTNER[name]], together(pairs, name)))
        phi = (pq - p * q) / (p * (1 - p) * q * (1 - q)) ** 0.5
        assert phi == pytest.approx(rho, abs=0.055)


def test_full_correlation_never_separates_partners():
    singles, pairs = presence(1.0)
    assert all(together(pairs, name) == singles[name] for name in PARTNER)


def test_class_frequencies_do_not_depend_on_rho():
    frequencies = [presence(rho)[0] for rho in (0.0, 0.5, 1.0)]
    for name in DRAWABLE:
        shares = [counts[name] / DRAWS for counts in frequencies]
        assert max(shares) - min(shares) < 0.02, name
        if name in PARTNER:
            assert shares == pytest.approx([1 / MODEL.pair_count] * 3, abs=0.013)


def test_a_cast_has_two_to_four_classes_and_at_most_six_objects():
    rng = Random(3)
    for _ in range(2000):
        counts = MODEL.draw(0.5, rng).counts
        assert 2 <= len(counts) <= 4
        assert sum(counts.values()) <= 6
        assert all(1 <= count <= WORDS.classes[name].most for name, count in counts.items())


def test_partners_that_stay_together_are_shown_where_both_are_at_home():
    rng = Random(4)
    for _ in range(500):
        cast = MODEL.draw(1.0, rng)
        assert any(name in cast.place.welcomes for name in cast.counts)


def test_pairs_of_ones_own_replace_the_usual_ones():
    model = SceneModel.of(WORDS, DRAWABLE, [("dog", "car"), ("cow", "kite")])
    assert set(model.pairs) == {"outdoors"}
    assert model.partner_probability(0) == 0.5
    assert "frisbee" in model.extras["outdoors"]


def test_a_stage_short_of_pairs_is_filled_up_in_cocos_order():
    model = SceneModel.of(WORDS, ["dog", "frisbee", "bus", "train", "truck", "cat"])
    assert model.pairs == {"outdoors": (("dog", "frisbee"), ("bus", "train"))}
    assert model.extras == {"outdoors": ("truck",)}


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([("dog", "unicorn"), ("cow", "kite")], "'unicorn', which is none of COCO's 80"),
        ([("dog", "sink"), ("cow", "kite")], "'sink', but there is no cut-out"),
        ([("dog", "cow"), ("cow", "kite")], "'cow' twice"),
        ([("dog", "cow")], "one pair outdoors, dog and cow"),
    ],
)
def test_a_pair_that_cannot_be_drawn_is_named(pairs, words):
    with pytest.raises(ConfigError, match=words):
        SceneModel.of(WORDS, DRAWABLE, pairs)


def test_too_few_classes_are_refused():
    with pytest.raises(ConfigError, match=r"scenes\.cutouts gives 3 classes"):
        SceneModel.of(WORDS, ["dog", "frisbee", "cat"])

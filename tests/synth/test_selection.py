"""Equations 1 to 3 against a rasterised reference, and on real boxes."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.rules import Rule
from synth.selection import Rejection, Removal, candidates, removals, unique

ANNOTATIONS = Path(__file__).parents[3] / "shared/data/coco-sample/annotations/instances.json"
SIZE = (24, 18)


def rasterised(boxes, categories, size, alpha1, alpha2, alpha3):
    """Paint one mask per class and apply the rules one by one."""
    width, height = size
    masks = {}
    for (x1, y1, x2, y2), category in zip(boxes, categories, strict=True):
        mask = masks.setdefault(category, np.zeros((height, width), dtype=bool))
        mask[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)] = True
    masks = {category: mask for category, mask in sorted(masks.items()) if mask.any()}

    def share(region, category):
        return (region & masks[category]).sum() / masks[category].sum()

    found = {}
    for r, mask in masks.items():
        removed = {r} | {s for s in masks if s != r and share(mask, s) > alpha2}
        kept = masks.keys() - removed
        region = np.any([masks[s] for s in removed], axis=0)
        if not kept:
            found[r] = Rule.NOTHING_KEPT
        elif any(share(mask, s) >= alpha1 for s in kept):
            found[r] = Rule.GAP
        elif any(share(region, s) >= alpha1 for s in kept):
            found[r] = Rule.REGION
        elif region.sum() / (width * height) >= alpha3:
            found[r] = Rule.SIZE
        else:
            found[r] = (frozenset(removed), frozenset(kept))
    return found


box = st.tuples(*[st.integers(-4, 28)] * 4).map(
    lambda c: (min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3]))
)
objects = st.lists(st.tuples(box, st.integers(0, 3)), max_size=8)
alphas = st.tuples(*[st.sampled_from([0.25, 0.4, 0.5, 0.7, 0.8, 1.0])] * 3)


@settings(max_examples=300, deadline=None)
@given(objects, alphas)
def test_candidates_equal_the_rasterised_reference(drawn, limits):
    boxes, categories = [item[0] for item in drawn], [item[1] for item in drawn]
    found = {
        each.candidate: each.rule if isinstance(each, Rejection) else (each.removed, each.kept)
        for each in candidates(boxes, categories, SIZE, *limits)
    }
    assert found == rasterised(boxes, categories, SIZE, *limits)


@settings(max_examples=100, deadline=None)
@given(objects)
def test_every_removal_splits_the_classes_and_has_the_boxes_of_the_removed_ones(drawn):
    boxes, categories = np.array([item[0] for item in drawn]).reshape(-1, 4), np.array([item[1] for item in drawn])
    for removal in removals(boxes, categories, SIZE):
        assert removal.candidate in removal.removed
        assert removal.kept
        assert not removal.removed & removal.kept
        clipped = np.clip(boxes[np.isin(categories, list(removal.removed))], 0, (*SIZE, *SIZE))
        solid = clipped[(clipped[:, 2:] > clipped[:, :2]).all(1)]
        assert np.array_equal(removal.boxes, solid)


@settings(max_examples=50, deadline=None)
@given(objects, st.randoms())
def test_the_order_of_the_boxes_does_not_matter(drawn, random):
    shuffled = random.sample(drawn, len(drawn))
    first, second = (removals([o[0] for o in order], [o[1] for o in order], SIZE) for order in (drawn, shuffled))
    assert first == second


def test_shares_that_equal_a_limit_are_rejected():
    kept, half = (0, 0, 10, 10), (0, 0, 10, 4)  # covers 0.4 of it
    assert candidates([kept, half], [0, 1], (100, 100))[1] == Rejection(1, Rule.GAP, against=0)
    assert candidates([kept, (0, 0, 10, 3.99)], [0, 1], (100, 100))[1].removed == {1}
    assert candidates([kept, (0, 0, 10, 8)], [0, 1], (100, 100), alpha1=0.9)[1].removed == {1}  # 0.8 does not join
    assert candidates([kept, (0, 0, 10, 8.01), (50, 50, 60, 60)], [0, 1, 2], (100, 100))[1].removed == {0, 1}
    assert candidates([(0, 0, 70, 100), (90, 0, 99, 9)], [0, 1], (100, 100))[0] == Rejection(0, Rule.SIZE)


def test_the_union_of_boxes_counts_once():
    # two boxes of class 0 that overlap cover 2,400 of 3,200 pixels: 0.24 of the image, below 0.25
    boxes = [(0, 0, 40, 40), (20, 0, 60, 40), (80, 80, 90, 90)]
    assert candidates(boxes, [0, 0, 1], (100, 100), alpha3=0.25)[0].removed == {0}
    assert candidates(boxes, [0, 0, 1], (100, 100), alpha3=0.24)[0] == Rejection(0, Rule.SIZE)


def test_a_class_that_joined_can_reject_the_candidate():
    # 1 lies inside 0 by 0.85 and joins; what it adds covers half of 2, which 0 alone does not touch
    boxes = [(0, 0, 85, 10), (0, 0, 100, 10), (85, 0, 115, 10)]
    assert candidates(boxes, [0, 1, 2], (200, 200))[0] == Rejection(0, Rule.REGION, against=2)


def test_joining_is_measured_once():
    # 0 takes 1 along; 2 is inside 1 but not inside 0, so it stays and then rejects the candidate
    boxes = [(0, 0, 90, 10), (0, 0, 100, 10), (91, 0, 99, 10), (150, 150, 160, 160)]
    assert candidates(boxes, [0, 1, 2, 3], (200, 200))[0] == Rejection(0, Rule.REGION, against=2)


def test_mutual_cover_gives_equal_sets_that_unique_merges():
    found = removals([(0, 0, 9, 9), (0, 0, 9, 9), (50, 50, 60, 60)], [3, 4, 7], (100, 100))
    assert [removal.candidate for removal in found] == [3, 4, 7]
    assert [removal.candidate for removal in unique(found)] == [3, 7]


@pytest.mark.parametrize(("boxes", "categories"), [([], []), ([(5, 5, 5, 9), (200, 0, 300, 9)], [0, 1])])
def test_without_area_there_is_no_candidate(boxes, categories):
    assert candidates(boxes, categories, (100, 100)) == []


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="as many categories"):
        removals([(0, 0, 1, 1)], [0, 1], (10, 10))
    with pytest.raises(ValueError, match="not finite"):
        removals([(0, 0, float("nan"), 1)], [0], (10, 10))


@pytest.mark.real
def test_natural_frequencies_on_real_photos():
    """Nearly all photos with two classes have a removable one; few candidates fail through the gap alone."""
    if not ANNOTATIONS.exists():
        pytest.skip("no real photos at ../shared/data/coco-sample")
    source = json.loads(ANNOTATIONS.read_text())
    by_image = {image["id"]: [] for image in source["images"]}
    for annotation in source["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    judged = []
    for image in source["images"]:
        corners = [(x, y, x + w, y + h) for x, y, w, h in (a["bbox"] for a in by_image[image["id"]])]
        categories = [a["category_id"] for a in by_image[image["id"]]]
        judged.append(candidates(corners, categories, (image["width"], image["height"])))
    shares = {
        "two classes": np.mean([len(found) > 1 for found in judged]),
        "removable": np.mean([any(isinstance(each, Removal) for each in found) for found in judged]),
        "several": np.mean([any(isinstance(e, Removal) and len(e.removed) > 1 for e in found) for found in judged]),
        "candidates": np.mean([isinstance(each, Removal) for found in judged for each in found]),
    }
    print(shares)
    assert 0.80 < shares["two classes"] < 0.95
    assert 0.75 < shares["removable"] <= shares["two classes"]
    assert 0.10 < shares["several"] < 0.40
    assert 0.60 < shares["candidates"] < 0.95

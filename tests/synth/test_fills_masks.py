"""Masks cover what they must, grow as told, and soften without touching what is outside."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.fills import box_mask, dilated, feathered


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(*[st.floats(-5, 30)] * 4), max_size=4),
    st.integers(0, 3),
)
def test_box_mask_covers_every_touched_pixel(corners, dilation):
    boxes = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in corners]
    slow = np.zeros((18, 24), bool)
    for y in range(18):
        for x in range(24):
            slow[y, x] = any(
                x + 1 > np.floor(a) - dilation
                and x < np.ceil(c) + dilation
                and y + 1 > np.floor(b) - dilation
                and y < np.ceil(d) + dilation
                for a, b, c, d in boxes
            )
    assert np.array_equal(box_mask(boxes, (24, 18), dilation), slow)


@settings(max_examples=30, deadline=None)
@given(size=st.tuples(st.integers(1, 16), st.integers(1, 16)), dilation=st.integers(0, 20), seed=st.integers(0, 99))
def test_dilated_grows_a_mask_by_squares(size, dilation, seed):
    mask = np.random.default_rng(seed).random(size) < 0.05
    slow = np.zeros(size, bool)
    for y, x in np.argwhere(mask):
        slow[max(y - dilation, 0) : y + dilation + 1, max(x - dilation, 0) : x + dilation + 1] = True
    grown = dilated(mask, dilation)
    assert grown.dtype == bool
    assert np.array_equal(grown, slow)
    assert not np.shares_memory(grown, mask)


def test_a_dilated_box_is_the_box_of_the_same_dilation():
    boxes = [[3.5, 2, 9, 8.1], [0, 15, 4, 18]]
    assert np.array_equal(dilated(box_mask(boxes, (24, 20)), 4), box_mask(boxes, (24, 20), 4))


def noise(size, seed):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    feather=st.integers(0, 6),
    seed=st.integers(0, 99),
    share=st.floats(0, 1),
)
def test_feathering_blends_by_the_distance_to_the_rim(size, feather, seed, share):
    image, mask = noise(size, seed), np.random.default_rng(seed).random(size) < share
    filled = np.where(mask[..., None], noise(size, seed + 1), image)
    before = filled.copy()
    blended = feathered(image, filled, mask, feather)
    outside = np.argwhere(~mask)
    for y, x in np.ndindex(size):
        distance = np.hypot(*(outside - (y, x)).T).min() if len(outside) else np.inf
        weight = min(distance / (feather + 1), 1)
        expected = weight * filled[y, x] + (1 - weight) * image[y, x]
        assert np.abs(blended[y, x] - expected).max() <= 0.501
    assert np.array_equal(blended[~mask], image[~mask])
    assert np.array_equal(filled, before)


def test_no_feather_is_exact_and_the_image_border_is_no_rim():
    image, mask = noise((9, 9), 0), np.zeros((9, 9), bool)
    mask[:, :6] = True
    filled = np.where(mask[..., None], noise((9, 9), 1), image)
    assert np.array_equal(feathered(image, filled, mask, 0), filled)
    assert np.array_equal(feathered(image, filled, mask, 3)[:, :2], filled[:, :2])
    assert not np.array_equal(feathered(image, filled, mask, 3)[:, 5], filled[:, 5])
    everything = np.ones((9, 9), bool)
    assert np.array_equal(feathered(image, filled, everything, 3), filled)

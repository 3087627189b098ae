"""Every fill changes the mask and nothing else, always in the same way."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.errors import ConfigError
from synth.fills import BlurFill, Fill, MeanFill, PatchMatchFill, TeleaFill, ZeroFill, box_mask

FILLS = [ZeroFill(), MeanFill(), BlurFill(), TeleaFill(), PatchMatchFill()]
every_fill = pytest.mark.parametrize("fill", FILLS, ids=lambda fill: fill.name)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@every_fill
@settings(max_examples=12, deadline=None)
@given(size=st.tuples(st.integers(1, 40), st.integers(1, 40)), seed=st.integers(0, 9), share=st.floats(0, 1))
def test_pixels_outside_the_mask_stay_and_the_input_too(fill, size, seed, share):
    image, mask = noise(*size, seed), np.random.default_rng(seed).random(size) < share
    before = image.copy()
    filled = fill(image, mask)
    assert filled.dtype == np.uint8
    assert filled.shape == image.shape
    assert np.array_equal(filled[~mask], image[~mask])
    assert np.array_equal(image, before)
    assert not np.shares_memory(filled, image)


@every_fill
def test_equal_inputs_give_equal_pixels(fill):
    image, mask = noise(30, 40), box_mask([[5, 5, 25, 20]], (40, 30))
    first = fill(image, mask)
    PatchMatchFill(seed=9)(noise(10, 10), box_mask([[2, 2, 5, 5]], (10, 10)))
    assert np.array_equal(first, fill(image, mask))


@every_fill
def test_empty_mask_returns_an_equal_copy(fill):
    image = noise(8, 9)
    assert np.array_equal(fill(image, np.zeros((8, 9), bool)), image)


@every_fill
def test_full_mask_hides_the_image(fill):
    image = noise(32, 32)
    filled = fill(image, np.ones((32, 32), bool))
    assert np.mean((filled == image).all(-1)) < 0.05


@pytest.mark.parametrize("fill", [ZeroFill(), TeleaFill(), PatchMatchFill()], ids=lambda fill: fill.name)
def test_nothing_of_the_object_shines_through(fill):
    mask = box_mask([[8, 6, 30, 24]], (40, 30))
    one, other = noise(30, 40), noise(30, 40)
    other[mask] = 255 - other[mask]
    assert np.array_equal(fill(one, mask), fill(other, mask))


@every_fill
def test_wrong_input_is_refused(fill):
    image, mask = noise(4, 5), np.zeros((4, 5), bool)
    with pytest.raises(TypeError, match="uint8"):
        fill(image.astype(float), mask)
    with pytest.raises(TypeError, match="bool"):
        fill(image, mask.astype(np.uint8))
    with pytest.raises(ValueError, match=r"\[4, 5, 3\] and \[5, 4\]"):
        fill(image, mask.T)
    with pytest.raises(ValueError, match=r"\[4, 5\]"):
        fill(image[..., 0], mask)


def test_zero_mean_and_blur_are_what_they_say():
    image, mask = noise(20, 20), box_mask([[3, 3, 9, 9], [12, 12, 15, 18]], (20, 20))
    assert not ZeroFill()(image, mask)[mask].any()
    colours = np.unique(MeanFill()(image, mask)[mask], axis=0)
    assert np.array_equal(colours, [np.rint(image[mask].astype(float).mean(0))])
    assert BlurFill(0.2)(image, mask)[mask].std() < BlurFill(0.05)(image, mask)[mask].std() < image[mask].std()


def test_telea_and_patchmatch_continue_a_plain_ground():
    image, mask = np.full((30, 30, 3), 80, np.uint8), box_mask([[10, 10, 20, 20]], (30, 30))
    image[mask] = 255
    for fill in (TeleaFill(), PatchMatchFill()):
        assert np.abs(fill(image, mask).astype(int) - 80).max() <= 4


def test_a_fill_of_ones_own_is_one_class():
    @dataclass(frozen=True)
    class RedFill(Fill):
        name: ClassVar[str] = "red"

        def paint(self, image, mask):
            return np.array([255, 0, 0], np.uint8)

    image, mask = noise(3, 3), np.eye(3, dtype=bool)
    assert (RedFill()(image, mask)[mask] == [255, 0, 0]).all()
    assert np.array_equal(RedFill()(image, mask)[~mask], image[~mask])


@pytest.mark.parametrize("make", [lambda: BlurFill(0), lambda: TeleaFill(-1), lambda: PatchMatchFill(0)])
def test_parameters_out_of_range_name_the_key(make):
    with pytest.raises(ConfigError, match=r"`(sigma|radius|patch_size)` of"):
        make()


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

"""What a network sees of an image."""

import numpy as np

from synth.fills import box_mask
from synth.fills.network import _View


def view(box, size, max_side, multiple=8):
    image = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return _View(image, box_mask([box], size), max_side, multiple)


def test_a_large_hole_is_shown_with_half_its_own_size_around_it():
    rows, columns = view([100, 90, 200, 110], (400, 300), max_side=64).window
    assert (columns.start, columns.stop) == (75, 225)
    assert rows.stop - rows.start == 64


def test_every_pixel_of_a_smaller_image_that_holds_a_part_of_the_hole_belongs_to_it():
    seen = view([31, 47, 270, 251], (300, 300), max_side=64)
    assert seen.size == (64, 64)
    pixels = np.arange(300) * 64 // 300
    rows, columns = (np.isin(np.arange(64), pixels[first:last]) for first, last in ((47, 251), (31, 270)))
    assert np.array_equal(seen.mask, rows[:, None] & columns)


def test_what_is_padded_goes_on_as_the_reflection_of_what_is_there():
    seen = view([10, 10, 30, 30], (45, 61), max_side=64, multiple=16)
    assert seen.pixels.shape == (64, 48, 3)
    assert np.array_equal(seen.pixels[61:, :45], seen.pixels[58:61, :45][::-1])
    assert np.array_equal(seen.pixels[:, 45:], seen.pixels[:, 42:45][:, ::-1])
    assert not np.array_equal(seen.pixels[63], seen.pixels[61])

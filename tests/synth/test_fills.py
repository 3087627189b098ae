"""Every fill changes the mask and nothing else, always in the same way."""

import pickle
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.errors import ConfigError
from synth import fills, load
from synth.fills import BlurFill, Fill, MeanFill, NavierStokesFill, PatchMatchFill, TeleaFill, ZeroFill, box_mask

FILLS = [ZeroFill(), MeanFill(), BlurFill(), TeleaFill(), NavierStokesFill(), PatchMatchFill()]
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


def test_the_seed_of_patchmatch_decides():
    image, mask = noise(30, 40), box_mask([[5, 5, 25, 20]], (40, 30))
    assert not np.array_equal(PatchMatchFill(seed=1)(image, mask), PatchMatchFill()(image, mask))


@every_fill
def test_empty_mask_returns_an_equal_copy(fill):
    image = noise(8, 9)
    assert np.array_equal(fill(image, np.zeros((8, 9), bool)), image)


@every_fill
def test_full_mask_hides_the_image(fill):
    image = noise(32, 32)
    filled = fill(image, np.ones((32, 32), bool))
    assert np.mean((filled == image).all(-1)) < 0.05


@pytest.mark.parametrize(
    "fill", [ZeroFill(), TeleaFill(), NavierStokesFill(), PatchMatchFill()], ids=lambda fill: fill.name
)
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


def test_blur_is_close_to_the_direct_computation():
    smooth = cv2.resize(noise(12, 16), (160, 120), interpolation=cv2.INTER_CUBIC)
    for sigma, bound in ((0.03, 0), (0.05, 0), (0.1, 4), (0.3, 6)):
        direct = cv2.GaussianBlur(smooth, (0, 0), sigma * 160).astype(int)
        assert np.abs(BlurFill(sigma)(smooth, np.ones((120, 160), bool)) - direct).max() <= bound


@settings(max_examples=15, deadline=None)
@given(box=st.tuples(*[st.integers(0, 70)] * 4), seed=st.integers(0, 99), radius=st.sampled_from([1, 3, 4.5]))
def test_marching_fills_need_no_more_than_the_rim_of_the_hole(box, seed, radius):
    left, right = sorted(box[:2])
    top, bottom = sorted(box[2:])
    image, mask = noise(70, 70, seed), np.zeros((70, 70), bool)
    mask[top : bottom + 1, left : right + 1] = np.random.default_rng(seed).random((70, 70))[top:71, left:71][
        : bottom + 1 - top, : right + 1 - left
    ] < (0.5 if seed % 2 else 2)
    if mask.any() and not mask.all():
        whole = {
            TeleaFill: cv2.inpaint(image, mask.astype(np.uint8), radius, cv2.INPAINT_TELEA),
            NavierStokesFill: cv2.inpaint(image, mask.astype(np.uint8), radius, cv2.INPAINT_NS),
        }
        for fill, expected in whole.items():
            assert np.array_equal(fill(radius)(image, mask), expected)


def test_marching_fills_and_patchmatch_continue_a_plain_ground():
    image, mask = np.full((30, 30, 3), 80, np.uint8), box_mask([[10, 10, 20, 20]], (30, 30))
    image[mask] = 255
    for fill in (TeleaFill(), NavierStokesFill(), PatchMatchFill()):
        assert np.abs(fill(image, mask).astype(int) - 80).max() <= 4


@every_fill
def test_a_batch_is_the_single_fills_in_order(fill):
    sizes = [(20, 30), (7, 9), (20, 30), (12, 12), (5, 5)]
    images = [noise(*size, seed) for seed, size in enumerate(sizes)]
    masks = [np.random.default_rng(seed).random(size) < seed / 3 for seed, size in enumerate(sizes)]
    for filled, image, mask in zip(fill.batch(images, masks), images, masks, strict=True):
        assert np.array_equal(filled, fill(image, mask))
    assert fill.batch([], []) == []
    with pytest.raises(ValueError, match="zip"):
        fill.batch(images, masks[1:])


@every_fill
def test_fills_survive_the_way_to_a_worker_and_keep_their_public_path(fill):
    assert pickle.loads(pickle.dumps(fill)) == fill  # noqa: S301 (our own bytes)
    assert type(fill).__module__ == "synth.fills"
    assert getattr(fills, type(fill).__name__) is type(fill)


@dataclass(frozen=True)
class ColourFill(Fill):
    """A fill of one's own."""

    name: ClassVar[str] = "colour"
    red: int = 255

    def paint(self, image, mask):
        return np.array([self.red, 0, 0], np.uint8)


def test_a_fill_of_ones_own_is_one_class_and_its_yaml_key(data, drawn_class_path, tmp_path, monkeypatch):
    own = ModuleType("my_fills")
    own.ColourFill = ColourFill
    monkeypatch.setitem(sys.modules, "my_fills", own)
    monkeypatch.setattr(ColourFill, "__module__", "my_fills")
    yaml = tmp_path / "job.yaml"
    yaml.write_text(
        f"data: {{class_path: {drawn_class_path}, init_args: {{root: {data.root}}}}}\noutput: {tmp_path / 'out'}\n"
        "pairs: {train: [train]}\nfill: {class_path: my_fills.ColourFill, init_args: {red: 200}}\n"
    )
    fill = load(yaml).fill
    assert fill == ColourFill(200)
    image, mask = noise(3, 3), np.eye(3, dtype=bool)
    assert (fill(image, mask)[mask] == [200, 0, 0]).all()
    assert np.array_equal(fill(image, mask)[~mask], image[~mask])


@pytest.mark.parametrize("painted", [np.zeros((4, 6, 3)), np.zeros((3, 6, 3), np.uint8), np.zeros(4, np.uint8)])
def test_a_fill_that_paints_something_else_is_told(painted):
    class OddFill(ZeroFill):
        def paint(self, image, mask):
            return painted

    with pytest.raises(ConfigError, match=r"`fill` OddFill painted \w+ \[.*\] for an image \[4, 6, 3\]"):
        OddFill()(np.zeros((4, 6, 3), np.uint8), np.ones((4, 6), bool))


@pytest.mark.parametrize(
    "make", [lambda: BlurFill(0), lambda: TeleaFill(-1), lambda: NavierStokesFill(0), lambda: PatchMatchFill(0)]
)
def test_parameters_out_of_range_name_the_key(make):
    with pytest.raises(ConfigError, match=r"`(sigma|radius|patch_size)` of"):
        make()

"""Areas of unions against painted pixels, in parts of any size, and the memory that they take."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth import coverage
from synth.coverage import of_boxes, of_masks
from synth.selection import Rejection, candidates

WIDTH, HEIGHT = 24, 18
box = st.tuples(st.integers(0, 23), st.integers(0, 17), st.integers(1, 12), st.integers(1, 12)).map(
    lambda b: (b[0], b[1], min(b[0] + b[2], WIDTH), min(b[1] + b[3], HEIGHT))
)
images = st.lists(st.lists(box, min_size=1, max_size=4), min_size=1, max_size=4)


def painted(boxes):
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    for x1, y1, x2, y2 in boxes:
        mask[y1:y2, x1:x2] = True
    return mask


def by_boxes(classes):
    corners = np.array([box for boxes in classes for box in boxes], dtype=float)
    kinds = np.repeat(np.arange(len(classes)), [len(boxes) for boxes in classes])
    return of_boxes(corners[None], kinds[None], len(classes))


def by_masks(classes):
    flat = [painted(boxes).ravel().astype(int) for boxes in classes]
    return of_masks([np.flatnonzero(np.diff(mask, prepend=0)) for mask in flat], WIDTH * HEIGHT)


@pytest.mark.parametrize("cells", [by_boxes, by_masks])
@pytest.mark.parametrize("numbers", [1, 60, 2**20])
@settings(max_examples=30, deadline=None)
@given(classes=images)
def test_unions_equal_painted_pixels_in_parts_of_any_size(cells, numbers, classes):
    members = np.array(list(np.ndindex((2,) * len(classes))), dtype=bool)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coverage, "NUMBERS", numbers)
        areas, shares = cells(classes).unions(members[None])
    masks = [painted(boxes) for boxes in classes]
    for row, chosen in enumerate(members):
        union = painted([box for boxes, wanted in zip(classes, chosen, strict=True) if wanted for box in boxes])
        assert areas[0, row] == union.sum()
        assert shares[0, row].tolist() == pytest.approx([(union & mask).sum() / mask.sum() for mask in masks])


def test_images_beside_each_other_are_cut_each_on_its_own():
    corners = np.array([[[0.0, 0, 4, 4], [2, 2, 6, 6]], [[0, 0, 1, 9], [5, 5, 7, 9]]])
    cells = of_boxes(corners, np.array([[0, 1], [1, 0]]), 2)
    areas, shares = cells.unions(np.broadcast_to(np.eye(2, dtype=bool), (2, 2, 2)))
    assert areas.tolist() == [[16, 16], [8, 9]]
    assert shares.tolist() == [[[1, 0.25], [0.25, 1]], [[1, 0], [0, 1]]]


def peak(function):
    """Bytes that a call takes at most."""
    tracemalloc.start()
    try:
        found = function()
        return tracemalloc.get_traced_memory()[1], found
    finally:
        tracemalloc.stop()


def test_the_memory_of_a_crowded_image_is_bounded():
    """At once, the cells of 400 boxes and 30 classes alone would fill 150 MB, and four times that while judged."""
    rng = np.random.default_rng(0)
    sides = rng.uniform(2, 120, (400, 2)).round(2)
    corners = (rng.random((400, 2)) * ([640, 480] - sides)).round(2)
    boxes, labels = np.concatenate([corners, corners + sides], axis=1), rng.integers(0, 30, 400)
    used, found = peak(lambda: candidates(boxes, labels, (640, 480)))
    assert used < 80e6
    assert len(found) == 30
    assert any(isinstance(each, Rejection) for each in found)


def test_the_memory_of_ragged_masks_is_bounded():
    rng = np.random.default_rng(0)
    edges = [np.flatnonzero(rng.random(2_000_000) < 0.01) for _ in range(20)]
    members = np.eye(20, dtype=bool)[None]
    used, (areas, _) = peak(lambda: of_masks(edges, 2_000_000).unions(members))
    assert used < 100e6  # the cells alone would fill 58 MB, and three times that while they are judged
    whole = [np.append(edge, 2_000_000) if len(edge) % 2 else edge for edge in edges]
    assert areas[0].tolist() == [(edge[1::2] - edge[::2]).sum() for edge in whole]

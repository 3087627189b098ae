import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from datamodules.scenes.picture import SceneObject


def shared_part(one, other):
    (x, y, w, h), (u, v, s, t) = one.box, other.box
    area = max(0, min(x + w, u + s) - max(x, u)) * max(0, min(y + h, v + t) - max(y, v))
    return area / (s * t)


def test_every_object_lies_wholly_inside_and_is_large_enough_to_name(drawn):
    for scene, _ in drawn:
        side = scene.picture.width
        for one in scene.objects:
            x, y, width, height = one.box
            assert min(x, y) >= 0
            assert max(x + width, y + height) <= side
            assert max(width, height) >= 0.15 * side


def test_boxes_are_tight_around_masks(drawn):
    for scene, _ in drawn[:80]:
        for one in scene.objects:
            rows, columns = np.nonzero(one.mask)
            assert one.box == (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)


def test_masks_do_not_overlap(drawn):
    for scene, _ in drawn:
        assert sum(one.mask.astype(int) for one in scene.objects).max() == 1


def test_objects_rarely_hide_one_another(drawn):
    overlaps = [
        shared_part(one, other) >= 0.4
        for scene, _ in drawn
        for one in scene.objects
        for other in scene.objects
        if one is not other
    ]
    assert np.mean(overlaps) < 0.02


def test_pictures_hold_what_was_cast(drawn):
    names = {one.name for scene, _ in drawn for one in scene.objects}
    assert len(names) > 50
    assert len({scene.place.name for scene, _ in drawn}) > 12


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_run_lengths_are_cocos(mask):
    pytest.importorskip("pycocotools")
    from pycocotools import mask as coco

    runs = SceneObject("dog", (), None, "ground", mask, (0, 0, 1, 1)).run_lengths()
    assert sum(runs) == mask.size
    height, width = mask.shape
    decoded = coco.decode(coco.frPyObjects({"size": [height, width], "counts": runs}, height, width))
    assert (decoded.astype(bool) == mask).all()

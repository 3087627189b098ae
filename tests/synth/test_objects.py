"""How many objects of a class are left once a region is filled."""

import json

import numpy as np
import pytest

from datamodules.tables import Tables
from synth.objects import visible
from synth.selection import Removal, SelectionConfig, select

DOG, CAT, MAN = range(3)


def outline(box):
    x, y, width, height = box
    corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
    return json.dumps([[value for corner in corners for value in corner]])


@pytest.fixture
def image(tmp_path):
    """Writes the tables of an image of 60 x 40 pixels with a dog before a few others."""

    def write(*others):
        objects = [(DOG, (0, 0, 20, 20), 0), *others]
        categories, boxes, crowds = zip(*objects, strict=True)
        return Tables.write(
            tmp_path / "tables",
            images={"image_id": [7], "file": ["a.png"], "split": [0], "width": [60], "height": [40]},
            captions={"caption_id": [], "image": [], "text": []},
            objects={
                "image": [0] * len(objects),
                "category": categories,
                "box": boxes,
                "crowd": crowds,
                "segmentation": [outline(box) for box in boxes],
            },
            class_names=("dog", "cat", "man"),
            splits=["train"],
            fingerprint="one",
        )

    return write


@pytest.mark.parametrize("region", ["boxes", "masks"])
def test_objects_that_the_hole_swallows_are_not_counted(image, region):
    cats = [(CAT, box, 0) for box in [(2, 2, 4, 4), (14, 5, 8, 8), (30, 2, 30, 30), (19, 19, 4, 4)]]
    tables = image(*cats, (MAN, (30, 33, 5, 5), 0))
    removal = next(select(tables, np.array([0]), SelectionConfig(region=region)))[0]
    assert removal.removed == {DOG}
    assert visible(tables, 0, removal) == {CAT: 2, MAN: 1}  # the first lies in the hole, of the second the centre


def test_crowds_and_boxes_without_area_are_not_counted_and_a_class_counts_as_one_at_least(image):
    tables = image(
        (CAT, (30, 0, 10, 10), 0), (CAT, (50, 50, 9, 9), 0), (CAT, (30, 20, 0, 5), 0), (MAN, (40, 9, 9, 9), 1)
    )
    removal = Removal(frozenset({DOG}), frozenset({CAT, MAN}), np.array([[0.0, 0, 20, 20]]), DOG)
    assert visible(tables, 0, removal) == {CAT: 1, MAN: 1}
    hidden = Removal(frozenset({DOG}), frozenset({CAT}), np.array([[0.0, 0, 60, 40]]), DOG)
    assert visible(tables, 0, hidden) == {CAT: 1}

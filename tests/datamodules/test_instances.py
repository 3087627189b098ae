import copy
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.errors import AnnotationError
from datamodules.instances import fit_boxes


def boxes(tiny):
    return tiny.instances["annotations"]


FAULTS = {
    "a captions json": (lambda t: t.instances.pop("categories"), "not a COCO instances file.*`categories`"),
    "no annotation list": (lambda t: t.instances.update(annotations=5), "not a COCO instances file"),
    "unknown class": (
        lambda t: t.instances["categories"][0].update(name="dogs"),
        r"instances.json: category 'dogs' is none of the 3 known classes \(nearest: dog\)",
    ),
    "unlisted category": (
        lambda t: boxes(t)[1].update(category_id=5),
        r"annotation 2 has the category id 5.*\(1 such",
    ),
    "unlisted image": (lambda t: boxes(t)[1].update(image_id=31), "annotation 2 belongs to image 31, which"),
    "same annotation twice": (lambda t: boxes(t)[1].update(id=1), "annotation id 1 occurs 2 times"),
    "no image id": (lambda t: boxes(t)[1].pop("image_id"), "not a COCO instances file.*image_id"),
    "no box": (lambda t: boxes(t)[1].pop("bbox"), "annotation number 1 lacks the key `bbox`"),
    "three numbers": (
        lambda t: boxes(t)[1].update(bbox=[1, 2, 3]),
        r"annotation 2 of image 30 has the `bbox` \[1, 2, 3\]",
    ),
    "box of words": (lambda t: boxes(t)[1].update(bbox=[1, 2, 3, "x"]), r"the `bbox` \[1, 2, 3, 'x'\]"),
    "box is not finite": (
        lambda t: boxes(t)[1].update(bbox=[1, float("nan"), 1, 1]),
        "annotation 2, image 30 .*is not finite",
    ),
    "negative side": (
        lambda t: boxes(t)[1].update(bbox=[5, 1, -1, 1]),
        r"instances.json: the box \[5.0, 1.0, -1.0, 1.0\] of annotation 2, image 30 \(8 x 6\), has a negative side",
    ),
    "box outside": (
        lambda t: boxes(t)[1].update(bbox=[5, 1, 4.1, 1]),
        r"annotation 2, image 30 \(8 x 6\), lies outside the image \(1 such",
    ),
    "box left of the image": (lambda t: boxes(t)[1].update(bbox=[-1.1, 1, 4, 1]), "lies outside the image"),
    "width is no number": (
        lambda t: t.instances["images"][0].update(width="8"),
        "instances.json: widths must be 64-bit integers, not '8'",
    ),
    "of other images": (
        lambda t: t.instances.update(images=t.instances["images"][1:]),
        r"None of the 1 images of split 'val' \(first id 10\) is in the instances files .*instances.json.*`instances`",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), FAULTS.values(), ids=FAULTS)
def test_an_annotation_fault_is_told_in_one_sentence(refused, spoil, message):
    refused(spoil, message)


def test_an_annotation_of_two_files_is_named_with_both(tiny):
    (tiny.folder / "again.json").write_text(json.dumps(tiny.instances))
    with pytest.raises(
        AnnotationError, match=r"instances.json and .*again.json: annotation id 1 occurs 2 times \(and 3"
    ):
        tiny.read(("instances.json", "again.json"))


def test_several_instances_files_are_merged(tiny):
    rest = copy.deepcopy(tiny.instances)
    tiny.instances["annotations"] = tiny.instances["annotations"][:1]
    rest["annotations"] = rest["annotations"][1:]
    rest["categories"] = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
    (tiny.folder / "rest.json").write_text(json.dumps(rest))
    merged = tiny.write().read(("instances.json", "rest.json"))
    assert merged.boxes.tolist() == [[1.1, 1.2, 3.3, 0], [0, 0, 8, 6], [0, 5, 1.5, 1]]
    assert merged.categories.tolist() == [1, 2, 0]


def side(low, high):
    return st.floats(low, high, allow_nan=False, width=32)


@given(st.lists(st.tuples(side(-1, 11), side(-1, 11), side(0, 12), side(0, 12)), min_size=1, max_size=6))
def test_a_box_is_cut_to_what_lies_in_the_image_or_refused(values):
    array = np.array(values)
    count = len(array)
    sizes = np.full((count, 2), 10, np.int32)

    def bad(row, fault, count):
        return AnnotationError(f"{values[row]} {fault}, {count}")

    if any(x + w > 11 or y + h > 11 for x, y, w, h in values):
        with pytest.raises(AnnotationError, match="outside"):
            fit_boxes(array, sizes, bad)
        return
    for (x, y, w, h), fitted in zip(values, fit_boxes(array, sizes, bad), strict=True):
        if x >= 0 and y >= 0 and x + w <= 10 and y + h <= 10:
            assert fitted.tolist() == [x, y, w, h]
        left, top = min(max(x, 0), 10), min(max(y, 0), 10)
        right, bottom = min(max(x + w, 0), 10), min(max(y + h, 0), 10)
        assert fitted == pytest.approx([left, top, right - left, bottom - top], abs=1e-9)

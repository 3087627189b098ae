import os

import pytest

from datamodules.errors import MissingPathError


@pytest.mark.parametrize(
    ("pattern", "first"),
    [
        ("val2014/COCO_val2014_{:012d}.jpg", "val2014/COCO_val2014_000000000030.jpg"),
        ("COCO_val2014_{:012d}.jpg", "COCO_val2014_000000000030.jpg"),
        ("train2017/{:012d}.jpg", "train2017/000000000030.jpg"),
        ("val2017/{:012d}.jpg", "val2017/000000000030.jpg"),
        ("{:012d}.jpg", "000000000030.jpg"),
    ],
)
def test_images_of_either_release_are_found(tiny, pattern, first):
    tiny.draw(pattern, root="other")
    tables = tiny.read(root="other")
    assert tables.files[0] == first
    assert all((tiny.folder / "other" / file).is_file() for file in tables.files)


def test_moved_images_are_found_again_and_deleted_ones_are_missed(tiny):
    tiny.read()
    os.rename(tiny.folder / "images/val2014", tiny.folder / "images/elsewhere")
    with pytest.raises(MissingPathError, match="3 of 3 images"):
        tiny.read()
    tiny.draw("{:012d}.jpg")
    assert tiny.read().files[0] == "000000000030.jpg"
    os.remove(tiny.folder / "images/000000000020.jpg")
    with pytest.raises(MissingPathError, match=r"1 of 3 images .*first val2014/COCO_val2014_000000000020.jpg"):
        tiny.read()

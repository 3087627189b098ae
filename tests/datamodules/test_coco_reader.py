import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules import coco_reader
from datamodules.coco_reader import read_coco
from datamodules.errors import AnnotationError, ConfigError, MissingPathError, UserError

CLASSES = ("person", "dog", "frisbee")
SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"
SAMPLE = SHARED / "coco-sample"


def test_images_and_captions_keep_the_order_of_the_file(tiny, capsys):
    tables = tiny.read()
    assert tables.image_ids.tolist() == [30, 10, 20]
    assert tables.files[0] == "val2014/COCO_val2014_000000000030.jpg"
    assert tables.splits == ("train", "val")
    assert tables.rows("train").tolist() == [0, 2]
    assert tables.widths.tolist() == [8, 8, 8]
    assert tables.caption_ids.tolist() == [301, 300, 100, 200, 201, 202]
    assert tables.texts[1] == "Un chien à la plage"
    assert tables.caption_offsets.tolist() == [0, 2, 3, 6]
    assert tables.class_names == CLASSES
    assert capsys.readouterr().out == ""


def test_objects_are_grouped_by_image_named_by_class_and_cut_at_the_border(tiny):
    tables = tiny.read()
    assert tables.object_images.tolist() == [0, 2, 2]
    assert [CLASSES[c] for c in tables.categories] == ["dog", "frisbee", "person"]
    assert tables.boxes.tolist() == [[1.1, 1.2, 3.3, 0], [0, 0, 8, 6], [0, 5, 1.5, 1]]
    assert tables.crowds.tolist() == [False, True, False]
    assert tables.segmentations[:] == ["", '{"size":[6]}', "[[1,2.5]]"]


def test_captions_without_boxes_are_a_data_set_whose_sizes_come_from_the_files(tiny):
    (tiny.folder / "images/val2014/COCO_val2014_000000000010.jpg").write_bytes(b"no image at all")
    tables = tiny.read(instances=())
    assert len(tables.texts) == 6
    assert tables.boxes.shape == (0, 4)
    assert tables.object_offsets.tolist() == [0, 0, 0, 0]
    assert tables.widths.tolist() == [8, 0, 8]
    assert tables.heights.tolist() == [6, 0, 6]


def test_sizes_that_the_json_lacks_come_from_the_files(tiny):
    for entry in tiny.instances["images"]:
        del entry["width"]
    tiny.instances["images"] = [entry for entry in tiny.instances["images"] if entry["id"] != 20]
    tiny.instances["annotations"] = [entry for entry in tiny.instances["annotations"] if entry["image_id"] != 20]
    assert tiny.write().read().widths.tolist() == [8, 8, 8]
    assert tiny.read(check_files=False).widths.tolist() == [0, 0, 0]


def test_image_files_are_not_needed_when_unchecked(tiny):
    assert tiny.read(root="nowhere", check_files=False).files[1] == "val2014/COCO_val2014_000000000010.jpg"


def test_a_second_call_parses_nothing_and_a_changed_file_is_parsed(tiny, monkeypatch):
    parse, calls = coco_reader._parse, []
    monkeypatch.setattr(coco_reader, "_parse", lambda *a: calls.append(a) or parse(*a))
    first = tiny.read()
    assert tiny.read().fingerprint == first.fingerprint
    assert len(calls) == 1
    tiny.karpathy["images"][0]["sentences"][0]["raw"] = "A cat runs ."
    assert tiny.write().read().texts[0] == "A cat runs ."
    assert len(calls) == 2


def test_the_fingerprint_speaks_of_the_annotations_alone(tiny):
    tiny.draw("{:012d}.jpg", root="other")
    assert tiny.read().fingerprint == tiny.read(root="other").fingerprint
    assert tiny.read().files[0] != tiny.read(root="other").files[0]


def test_an_unwritable_cache_fails_before_anything_is_parsed(tiny, monkeypatch):
    monkeypatch.setattr(coco_reader, "_parse", lambda *a: pytest.fail("parsed"))
    (tiny.folder / "cache").write_text("")
    with pytest.raises(ConfigError, match="cache_dir"):
        tiny.read()


def test_every_error_is_one_that_the_command_line_prints_alone():
    assert all(issubclass(kind, UserError) for kind in (AnnotationError, ConfigError, MissingPathError))


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    if not SAMPLE.is_dir():
        pytest.skip("../shared/data/coco-sample is absent")
    folder = SAMPLE / "annotations"
    sources = [folder / "instances.json", folder / "instances_boxes_only.json"]
    parsed = [json.loads(path.read_text()) for path in (folder / "karpathy_sample.json", *sources)]
    names = [category["name"] for category in parsed[1]["categories"]]
    cache = tmp_path_factory.mktemp("cache")
    return read_coco(folder / "karpathy_sample.json", sources, SAMPLE / "images", names, cache), parsed


@pytest.mark.real
def test_real_images_and_captions_equal_the_json(sample):
    tables, (karpathy, *instances) = sample
    sizes = {i["id"]: (i["width"], i["height"]) for part in instances for i in part["images"]}
    assert len(tables) == 373
    assert tables.image_ids.tolist() == [image["cocoid"] for image in karpathy["images"]]
    assert [(w, h) for w, h in zip(tables.widths, tables.heights, strict=True)] == [sizes[i] for i in tables.image_ids]
    assert list(tables.texts) == [s["raw"] for image in karpathy["images"] for s in image["sentences"]]
    assert {name: len(tables.rows(name)) for name in tables.splits} == {
        "train": 87,
        "restval": 203,
        "val": 42,
        "test": 41,
    }
    with Image.open(SAMPLE / "images" / tables.files[5]) as image:
        assert image.size == (tables.widths[5], tables.heights[5])


@pytest.mark.real
def test_real_objects_equal_the_json(sample):
    tables, (karpathy, *instances) = sample
    listed = {image["cocoid"]: row for row, image in enumerate(karpathy["images"])}
    names = {category["id"]: category["name"] for category in instances[0]["categories"]}
    annotations = [a for part in instances for a in part["annotations"]]
    assert len(tables.categories) == len(annotations) == 3112
    assert tables.crowds.sum() == sum(a["iscrowd"] for a in annotations)
    expected = sorted(annotations, key=lambda a: listed[a["image_id"]])
    assert tables.object_images.tolist() == [listed[a["image_id"]] for a in expected]
    assert [tables.class_names[c] for c in tables.categories] == [names[a["category_id"]] for a in expected]
    assert np.abs(tables.boxes - [a["bbox"] for a in expected]).max() < 1e-9
    outlines = [json.loads(text or "[]") for text in tables.segmentations]
    assert outlines == [a["segmentation"] for a in expected]


@pytest.mark.real
def test_the_real_test_split_is_read_without_boxes_or_images(tmp_path):
    path = SHARED / "coco-karpathy" / "dataset_coco_test.json"
    if not path.is_file():
        pytest.skip("../shared/data/coco-karpathy is absent")
    tables = read_coco(path, [], tmp_path, CLASSES, tmp_path, check_files=False)
    assert (len(tables), len(tables.texts), len(tables.boxes)) == (5000, 25_000, 0)
    first = json.loads(path.read_text())["images"][0]
    assert tables.image_ids[0] == first["cocoid"]
    assert tables.texts[:5] == [sentence["raw"] for sentence in first["sentences"]]

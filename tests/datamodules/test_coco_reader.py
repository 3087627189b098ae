import copy
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from datamodules import coco_reader
from datamodules.coco_reader import read_coco
from datamodules.errors import AnnotationError, ConfigError, MissingPathError, UserError
from datamodules.instances import InstanceColumns, fit_boxes
from datamodules.sources import rows_of

CLASSES = ("person", "dog", "frisbee")
SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"
SAMPLE = SHARED / "coco-sample"

KARPATHY = {
    "dataset": "coco",
    "images": [
        {
            "filepath": "val2014",
            "filename": f"COCO_val2014_{image_id:012d}.jpg",
            "cocoid": image_id,
            "imgid": row,
            "split": split,
            "sentences": [{"raw": text, "tokens": [], "imgid": row, "sentid": sentid} for sentid, text in captions],
        }
        for row, (image_id, split, captions) in enumerate(
            [
                (30, "train", [(301, "A dog runs ."), (300, "Un chien à la plage")]),
                (10, "val", [(100, "Nobody here.")]),
                (20, "train", [(200, "A man"), (201, "A frisbee"), (202, "Both")]),
            ]
        )
    ],
}
INSTANCES = {
    "images": [{"id": n, "width": 8, "height": 6} for n in (10, 20, 30, 99)],
    "annotations": [
        {"id": 1, "image_id": 20, "category_id": 90, "bbox": [0, 0, 8, 6], "iscrowd": 1, "segmentation": {"size": [6]}},
        {"id": 2, "image_id": 30, "category_id": 18, "bbox": [1.1, 1.2, 3.3, 0], "iscrowd": 0, "segmentation": []},
        {"id": 3, "image_id": 20, "category_id": 1, "bbox": [-0.5, 5, 2, 1.5], "segmentation": [[1, 2.5]]},
        {"id": 4, "image_id": 99, "category_id": 1, "bbox": [0, 0, 1, 1]},
    ],
    "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}, {"id": 90, "name": "frisbee"}],
}


@dataclass
class Annotations:
    """A tiny data set on disk."""

    folder: Path
    karpathy: dict
    instances: dict

    def write(self):
        (self.folder / "karpathy.json").write_text(json.dumps(self.karpathy))
        (self.folder / "instances.json").write_text(json.dumps(self.instances))
        return self

    def read(self, instances=("instances.json",), root="images", **options):
        return read_coco(
            self.folder / "karpathy.json",
            [self.folder / name for name in instances],
            self.folder / root,
            CLASSES,
            self.folder / "cache",
            **options,
        )

    def draw(self, pattern="val2014/COCO_val2014_{:012d}.jpg", root="images"):
        for entry in self.karpathy["images"]:
            path = self.folder / root / pattern.format(entry["cocoid"])
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 6)).save(path)


@pytest.fixture
def tiny(tmp_path):
    annotations = Annotations(tmp_path, copy.deepcopy(KARPATHY), copy.deepcopy(INSTANCES)).write()
    annotations.draw()
    return annotations


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


def test_several_instances_files_are_merged(tiny):
    rest = copy.deepcopy(tiny.instances)
    tiny.instances["annotations"] = tiny.instances["annotations"][:1]
    rest["annotations"] = rest["annotations"][1:]
    rest["categories"] = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
    (tiny.folder / "rest.json").write_text(json.dumps(rest))
    merged = tiny.write().read(("instances.json", "rest.json"))
    assert merged.boxes.tolist() == [[1.1, 1.2, 3.3, 0], [0, 0, 8, 6], [0, 5, 1.5, 1]]
    assert merged.categories.tolist() == [1, 2, 0]


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


def test_images_without_cocoid_are_known_by_imgid_where_no_box_refers_to_them(tiny):
    for entry in tiny.karpathy["images"]:
        del entry["cocoid"], entry["filepath"]
    tiny.write()
    assert tiny.read(instances=(), check_files=False).image_ids.tolist() == [0, 1, 2]
    with pytest.raises(AnnotationError, match="image number 0 lacks the key `cocoid`"):
        tiny.read()


def test_captions_without_ids_are_numbered(tiny):
    for entry in tiny.karpathy["images"]:
        for sentence in entry["sentences"]:
            del sentence["sentid"]
    assert tiny.write().read().caption_ids.tolist() == [0, 1, 2, 3, 4, 5]


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


def images(tiny):
    return tiny.karpathy["images"]


def boxes(tiny):
    return tiny.instances["annotations"]


def edit(entry, **values):
    entry.update(values)


FAULTS = {
    "karpathy: other layout": (lambda t: t.karpathy.pop("images"), r"karpathy.json .*`karpathy`.*no list of images"),
    "karpathy: no image": (lambda t: images(t).clear(), "no list of images"),
    "karpathy: a captions json": (lambda t: images(t)[0].pop("split"), "not in Karpathy's layout.*`split`: expected"),
    "karpathy: later image lacks key": (lambda t: images(t)[2].pop("filename"), "image number 2 lacks .*`filename`"),
    "karpathy: split is no text": (lambda t: edit(images(t)[1], split=["val"]), r"splits must be texts, not \['val'\]"),
    "karpathy: id is no number": (
        lambda t: edit(images(t)[1], cocoid="10"),
        "image ids must be 64-bit integers, not '10'",
    ),
    "karpathy: id is a fraction": (
        lambda t: edit(images(t)[1], cocoid=1.5),
        "image ids must be 64-bit integers, not 1.5",
    ),
    "karpathy: id is huge": (
        lambda t: edit(images(t)[1], cocoid=2**63),
        "image ids must be 64-bit integers, not 9223372036",
    ),
    "karpathy: same image twice": (lambda t: edit(images(t)[1], cocoid=30), "image id 30 occurs 2 times"),
    "karpathy: same caption twice": (
        lambda t: edit(images(t)[1]["sentences"][0], sentid=301),
        "caption id 301 occurs 2 times",
    ),
    "karpathy: one caption lacks its id": (
        lambda t: images(t)[1]["sentences"][0].pop("sentid"),
        "caption number 2 lacks the key `sentid`",
    ),
    "karpathy: image without caption": (lambda t: edit(images(t)[1], sentences=[]), "image 10 has no caption"),
    "karpathy: caption of another image": (
        lambda t: edit(images(t)[1]["sentences"][0], imgid=77),
        r"image 10 \(`imgid` 1\) holds a caption whose `imgid` is another",
    ),
    "karpathy: empty caption": (
        lambda t: edit(images(t)[2]["sentences"][1], raw=" \n"),
        "caption 201 of image 20 has no text",
    ),
    "karpathy: no raw": (lambda t: images(t)[2]["sentences"][1].pop("raw"), "caption number 4 lacks the key `raw`"),
    "instances: a captions json": (lambda t: t.instances.pop("categories"), "not a COCO instances file.*`categories`"),
    "instances: no annotation list": (lambda t: edit(t.instances, annotations=5), "not a COCO instances file"),
    "instances: unknown class": (
        lambda t: edit(t.instances["categories"][0], name="dogs"),
        r"instances.json: category 'dogs' is none of the 3 known classes \(nearest: dog\)",
    ),
    "instances: unlisted category": (
        lambda t: edit(boxes(t)[1], category_id=5),
        r"annotation 2 has the category id 5.*\(1 such",
    ),
    "instances: unlisted image": (lambda t: edit(boxes(t)[1], image_id=31), "annotation 2 belongs to image 31, which"),
    "instances: same annotation twice": (lambda t: edit(boxes(t)[1], id=1), "annotation id 1 occurs 2 times"),
    "instances: no image id": (lambda t: boxes(t)[1].pop("image_id"), "not a COCO instances file.*image_id"),
    "instances: no box": (lambda t: boxes(t)[1].pop("bbox"), "annotation number 1 lacks the key `bbox`"),
    "instances: three numbers": (
        lambda t: edit(boxes(t)[1], bbox=[1, 2, 3]),
        r"annotation 2 of image 30 has the `bbox` \[1, 2, 3\]",
    ),
    "instances: box of words": (lambda t: edit(boxes(t)[1], bbox=[1, 2, 3, "x"]), r"the `bbox` \[1, 2, 3, 'x'\]"),
    "instances: box is not finite": (
        lambda t: edit(boxes(t)[1], bbox=[1, float("nan"), 1, 1]),
        "annotation 2, image 30 .*is not finite",
    ),
    "instances: negative side": (
        lambda t: edit(boxes(t)[1], bbox=[5, 1, -1, 1]),
        r"instances.json: the box \[5.0, 1.0, -1.0, 1.0\] of annotation 2, image 30 \(8 x 6\), has a negative side",
    ),
    "instances: box outside": (
        lambda t: edit(boxes(t)[1], bbox=[5, 1, 4.1, 1]),
        r"annotation 2, image 30 \(8 x 6\), lies outside the image \(1 such",
    ),
    "instances: box left of the image": (lambda t: edit(boxes(t)[1], bbox=[-1.1, 1, 4, 1]), "lies outside the image"),
    "instances: width is no number": (
        lambda t: edit(t.instances["images"][0], width="8"),
        "instances.json: widths must be 64-bit integers, not '8'",
    ),
    "instances: of other images": (
        lambda t: edit(t.instances, images=t.instances["images"][1:]),
        r"None of the 1 images of split 'val' \(first id 10\) is in the instances files .*instances.json.*`instances`",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), FAULTS.values(), ids=FAULTS)
def test_an_annotation_fault_is_told_in_one_sentence(tiny, spoil, message):
    spoil(tiny)
    with pytest.raises(AnnotationError, match=message) as error:
        tiny.write().read()
    assert str(tiny.folder) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["karpathy", "instances"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"images": [\n{"cocoid": 1},\n{"coc', r"is not valid JSON at line 3, column 2"),
        (b"", "is not valid JSON at line 1"),
        (b"\x1f\x8b\x08\xff", "is not text but binary"),
        (b"[1, 2]", "has no list of images|is not a COCO instances file"),
    ],
)
def test_a_broken_json_is_named_with_its_key_and_line(tiny, name, content, message):
    (tiny.folder / f"{name}.json").write_bytes(content)
    with pytest.raises(AnnotationError, match=rf"{name}.json \(config key `{name}`\) ({message})"):
        tiny.read()


def test_an_annotation_of_two_files_is_named_with_both(tiny):
    (tiny.folder / "again.json").write_text(json.dumps(tiny.instances))
    with pytest.raises(
        AnnotationError, match=r"instances.json and .*again.json: annotation id 1 occurs 2 times \(and 3"
    ):
        tiny.read(("instances.json", "again.json"))


def test_missing_paths_are_absolute_named_with_their_key_and_the_nearest_name(tiny, monkeypatch):
    monkeypatch.chdir(tiny.folder)

    def read(karpathy="karpathy.json", instances="instances.json", root="images"):
        return read_coco(Path(karpathy), [Path(instances)], Path(root), CLASSES, Path("cache"))

    there = str(tiny.folder)
    with pytest.raises(
        MissingPathError, match=rf"no file {there}/karpaty.json .*`karpathy`\): did you mean karpathy.json"
    ):
        read(karpathy="karpaty.json")
    with pytest.raises(MissingPathError, match=r"`instances`\): did you mean instances.json"):
        read(instances="instance.json")
    with pytest.raises(MissingPathError, match=rf"no folder {there}/nowhere .*`image_root`\): set `image_root` to"):
        read(root="nowhere")
    with pytest.raises(MissingPathError, match=rf"not even {there}/image \(.*did you mean images"):
        read(root="image/val2014")
    with pytest.raises(MissingPathError, match=rf"{there}/images .*`karpathy`\) is not a file"):
        read(karpathy="images")
    with pytest.raises(MissingPathError, match=rf"{there}/karpathy.json .*`image_root`\) is not a folder"):
        read(root="karpathy.json")


def test_an_unwritable_cache_fails_before_anything_is_parsed(tiny, monkeypatch):
    monkeypatch.setattr(coco_reader, "_parse", lambda *a: pytest.fail("parsed"))
    (tiny.folder / "cache").write_text("")
    with pytest.raises(ConfigError, match="cache_dir"):
        tiny.read()


def test_every_error_is_one_that_the_command_line_prints_alone():
    assert all(issubclass(kind, UserError) for kind in (AnnotationError, ConfigError, MissingPathError))


@given(st.lists(st.integers(0, 20), max_size=12), st.lists(st.integers(0, 25), max_size=12))
def test_rows_of_equals_a_search(ids, wanted):
    found = rows_of(np.array(ids, np.int64), np.array(wanted, np.int64))
    assert found.tolist() == [ids.index(value) if value in ids else -1 for value in wanted]


def side(low, high):
    return st.floats(low, high, allow_nan=False, width=32)


@given(st.lists(st.tuples(side(-1, 11), side(-1, 11), side(0, 12), side(0, 12)), min_size=1, max_size=6))
def test_a_box_is_cut_to_what_lies_in_the_image_or_refused(values):
    array = np.array(values)
    count = len(array)
    instances = InstanceColumns(
        paths=(Path("a.json"),),
        image_ids=np.array([1]),
        sizes=np.array([[10, 10]], np.int32),
        annotation_ids=np.arange(count),
        object_image_ids=np.ones(count, np.int64),
        categories=np.zeros(count, np.int16),
        boxes=array,
        crowds=np.zeros(count, np.uint8),
        segmentations=np.array([""] * count, object),
        origins=np.zeros(count, np.int16),
    )
    sizes = np.full((count, 2), 10, np.int32)
    if any(x + w > 11 or y + h > 11 for x, y, w, h in values):
        with pytest.raises(AnnotationError, match="outside"):
            fit_boxes(instances, np.arange(count), sizes)
        return
    for (x, y, w, h), fitted in zip(values, fit_boxes(instances, np.arange(count), sizes), strict=True):
        if x >= 0 and y >= 0 and x + w <= 10 and y + h <= 10:
            assert fitted.tolist() == [x, y, w, h]
        left, top = min(max(x, 0), 10), min(max(y, 0), 10)
        right, bottom = min(max(x + w, 0), 10), min(max(y + h, 0), 10)
        assert fitted == pytest.approx([left, top, right - left, bottom - top], abs=1e-9)


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

"""A folder of images and captions: equal to COCO's path on the same pictures, and strict about what lines say."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import synth
from datamodules import FolderDataModule, ScenesDataModule
from datamodules.errors import AnnotationError, ConfigError, MissingPathError
from datamodules.folder_reader import drawn_splits
from datamodules.phrases import CocoMatcher, RuleChunker
from datamodules.scenes import ScenesConfig
from synth import SynthesisConfig
from synth.fills import MeanFill

NUMBERS = ["image_ids", "widths", "heights", "caption_images", "object_images", "categories", "boxes", "crowds"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Scenes as they are read from COCO's layout, which begin with the validation split."""
    folder = tmp_path_factory.mktemp("scenes")
    data = ScenesDataModule(
        folder / "scenes",
        ScenesConfig(train=30, val=8, test=12, resolution=64),
        matcher=CocoMatcher(RuleChunker()),
        cache_dir=folder / "cache",
        batch_size=16,
        num_workers=0,
    )
    data.prepare_data()
    return data


def lines_of(scenes, boxes):
    """Give the images of Scenes as lines; the boxes with them, or nowhere."""
    tables = scenes.tables
    for row, file in enumerate(tables.files):
        said = slice(*tables.caption_offsets[row : row + 2])
        seen = slice(*tables.object_offsets[row : row + 2])
        line = {
            "file_name": file,
            "text": tables.texts[said],
            "split": tables.splits[tables.split_codes[row]],
            "image_id": int(tables.image_ids[row]),
        }
        if boxes:
            names = [tables.class_names[index] for index in tables.categories[seen]]
            line["objects"] = {"bbox": tables.boxes[seen].tolist(), "categories": names}
        yield line


def as_folder(scenes, root, lines, **options):
    """Write lines beside links to the images of Scenes, and return the data module."""
    for number, line in enumerate(lines):
        place = root / line["file_name"]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(scenes.image_path(number).absolute())
    (root / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = {"matcher": scenes.matcher, "cache_dir": root / "cache", "batch_size": 16, "num_workers": 0} | options
    return FolderDataModule(root, **options)


def assert_equal_tables(one, other, *more):
    assert one.class_names == other.class_names
    assert one.splits == other.splits
    for name in ("files", "texts", *more):
        assert list(getattr(one, name)) == list(getattr(other, name)), name
    for name in [*NUMBERS, "split_codes"]:
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


def test_tables_are_those_of_scenes(scenes, tmp_path):
    data = as_folder(scenes, tmp_path, list(lines_of(scenes, boxes=True)))
    data.prepare_data()
    assert_equal_tables(data.tables, scenes.tables)
    assert len(data.tables.boxes) > 100
    assert np.array_equal(data.mentions(), scenes.mentions())
    assert data.image_path(3).samefile(scenes.image_path(3))


def test_boxes_of_an_instances_file_are_found_by_the_names_of_the_images(scenes, tmp_path):
    given = json.loads((scenes.root / "annotations" / "instances.json").read_text())
    files = dict(zip(scenes.tables.image_ids.tolist(), scenes.tables.files, strict=True))
    for image in given["images"]:
        image["file_name"] = "./" + files[image["id"]]
        image["id"] += 1000
    for annotation in given["annotations"]:
        annotation["image_id"] += 1000
    given["images"].append({"id": 5, "file_name": "unknown.png", "width": 9, "height": 9})
    given["annotations"].insert(0, {"id": 0, "image_id": 5, "category_id": 1, "bbox": [0, 0, 1, 1]})
    (tmp_path / "boxes.json").write_text(json.dumps(given))
    lines = list(lines_of(scenes, boxes=False))
    data = as_folder(scenes, tmp_path / "folder", lines, instances=tmp_path / "boxes.json")
    assert_equal_tables(data.tables, scenes.tables, "segmentations")


def test_counterfactuals_are_those_of_scenes(scenes, tmp_path):
    folder = as_folder(scenes, tmp_path / "folder", list(lines_of(scenes, boxes=True)))
    splits = {"pairs": {"train": ["train"]}, "queries": {"test": ["test"]}, "captions_per_image": "all"}
    made = []
    for name, data in {"scenes": scenes, "mine": folder}.items():
        synth.run(SynthesisConfig(data=data, output=tmp_path / name, fill=MeanFill(), **splits), alone=True)
        paths = sorted((tmp_path / name).glob("*/metadata.jsonl"))
        rows = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
        keys = ("source_image_id", "text", "removed", "kept", "removed_boxes")
        made.append(sorted(json.dumps([row[key] for key in keys]) for row in rows))
    assert made[0] == made[1]
    assert len(made[0]) > 50


def test_folders_with_metadata_of_their_own_are_splits(scenes, tmp_path):
    lines = list(lines_of(scenes, boxes=True))
    data = as_folder(scenes, tmp_path, lines)
    (tmp_path / "metadata.jsonl").unlink()
    for line in lines:
        line["file_name"] = line["file_name"].removeprefix(f"{line['split']}/")
        with (tmp_path / line["split"] / "metadata.jsonl").open("a") as file:
            file.write(json.dumps({key: value for key, value in line.items() if key != "split"}) + "\n\n")
    tables = data.tables
    assert set(tables.splits) == set(scenes.tables.splits)
    own = {file: tables.splits[code] for file, code in zip(tables.files, tables.split_codes, strict=True)}
    assert own == {file: file.split("/")[0] for file in scenes.tables.files}


@pytest.fixture
def photos(tmp_path):
    """Two images of 20 x 10 pixels and the lines about them; calling it with lines reads the folder."""
    root = tmp_path / "photos"
    root.mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (20, 10)).save(root / name)

    def read(*lines, **options):
        texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
        (root / "metadata.jsonl").write_text("".join(f"{text}\n" for text in texts))
        matcher = CocoMatcher(RuleChunker())
        return FolderDataModule(root, matcher=matcher, cache_dir=tmp_path / "cache", **options).tables

    read.root = root
    return read


def said(name="a.png", **more):
    return {"file_name": name, "text": "A dog."} | more


def box(*sides, name="dog"):
    return {"bbox": [list(sides)], "categories": [name]}


def test_what_may_be_left_out(photos):
    tables = photos(said(text=["A dog.", "A cat."], objects=box(19.5, 0, 1, 10)), said("b.png"), shares={"train": 1})
    assert tables.image_ids.tolist() == [0, 1]
    assert tables.caption_ids.tolist() == [0, 1, 2]
    assert tables.caption_images.tolist() == [0, 0, 1]
    assert tables.splits == ("train",)
    assert tables.boxes.tolist() == [[19.5, 0, 0.5, 10]]  # cut at the border
    assert tables.widths.tolist() == [20, 20]


def test_changed_lines_are_read_anew(photos):
    first = photos(said(), said("b.png"))
    again = photos(said(), said("b.png", text="Two cats."))
    assert list(again.texts) == ["A dog.", "Two cats."]
    assert again.fingerprint != first.fingerprint
    assert photos(said(), said("b.png"), split_seed=1).fingerprint != first.fingerprint


FAULTS = {
    "broken json": ("{", "line 2 .* is no JSON"),
    "no object": ("[1]", "line 2 .* is list and no object"),
    "no file name": ({"text": "A dog."}, "line 2 .* has the `file_name` None"),
    "another folder": (said("../a.png"), "line 2 .*not below its folder"),
    "the folder itself": (said("."), "line 2 .*not below its folder"),
    "absolute": (said("/a.png"), "line 2 .*not below its folder"),
    "no captions": (said("b.png", text=[]), "line 2 .* has no caption in its list"),
    "a number": (said("b.png", text=7), "line 2 .* has the caption 7 "),
    "a number among them": (said("b.png", text=["A dog.", 7]), "line 2 .* has the caption 7 "),
    "an empty caption": (said("b.png", text=" "), "line 2 .* has the caption ' ' "),
    "twice": (said("./a.png"), "line 2 .* names the image a.png, as does .*line 1 "),
    "the same id": (said("b.png", image_id=3), "line 2 .* has the `image_id` 3, as has .*line 1 "),
    "no id": (said("b.png", image_id=None), "line 2 .* has no `image_id`, which other lines have"),
    "an odd id": (said("b.png", image_id="3"), "line 2 .* has the `image_id` '3'"),
    "no split": (said("b.png", image_id=4, split=None), "line 2 .* has no `split`, which other lines have"),
    "an odd split": (said("b.png", split=2), "line 2 .* has the `split` 2"),
    "a class": (said("b.png", objects=box(0, 0, 1, 1, name="dogs")), "line 2 .*'dogs' is none of the 80.*nearest: dog"),
    "a class number": (said("b.png", objects=box(0, 0, 1, 1, name=17)), "line 2 .*category 17 is none of the 80"),
    "no names": (said("b.png", objects={"bbox": [[0, 0, 1, 1]]}), "line 2 .*two lists of one length"),
    "more names": (said("b.png", objects={"bbox": [], "categories": ["dog"]}), "line 2 .*two lists of one length"),
    "three sides": (said("b.png", objects=box(0, 0, 1)), r"line 2 .* has the `bbox` \[0, 0, 1\]"),
    "outside": (
        said("b.png", image_id=4, split="train", objects=box(10, 0, 12, 5)),
        r"line 2 .*\[10.0, 0.0, 12.0, 5.0\] of b.png \(20 x 10\) lies outside the image",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_line_is_told_in_one_sentence(photos, fault):
    line, message = FAULTS[fault]
    with pytest.raises(AnnotationError, match=message) as error:
        photos(said(image_id=3, split="train"), line)
    assert str(photos.root / "metadata.jsonl") in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_images_are_counted_and_the_first_is_named(photos):
    with pytest.raises(MissingPathError, match=r"line 2 .* c.png, .*\(2 of 3 images"):
        photos(said(), said("c.png"), said("d.png"))
    photos(said(), said("b.png"))
    (photos.root / "b.png").unlink()
    with pytest.raises(MissingPathError, match=r"line 2 .* b.png, .*\(1 of 2 images"):
        photos(said(), said("b.png"))


def test_missing_files_are_told(photos, tmp_path):
    with pytest.raises(AnnotationError, match="describes no image"):
        photos()
    with pytest.raises(MissingPathError, match=r"boxes.json.*`instances`"):
        photos(said(), instances=tmp_path / "boxes.json")
    (photos.root / "metadata.jsonl").unlink()
    with pytest.raises(MissingPathError, match=r"no metadata.jsonl in .*`root`"):
        FolderDataModule(photos.root).read()
    with pytest.raises(MissingPathError, match=r"no folder .*`root`"):
        FolderDataModule(photos.root / "here").read()


def test_an_instances_file_has_to_fit(photos, tmp_path):
    content = {"images": [{"id": 1, "file_name": "x.png"}], "annotations": [], "categories": []}
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    with pytest.raises(AnnotationError, match=r"names none of the images .* such as a.png, .* first is 'x.png'"):
        photos(said(), instances=tmp_path / "boxes.json")
    with pytest.raises(AnnotationError, match=r"line 1 .* has `objects`, but `instances` gives the boxes"):
        photos(said(objects=box(0, 0, 1, 1)), instances=tmp_path / "boxes.json")


def test_a_training_without_a_split_for_it_is_told(photos, tmp_path):
    lines = [said(split="test"), said("b.png", split="test")]
    photos(*lines)
    data = FolderDataModule(
        photos.root, matcher=CocoMatcher(RuleChunker()), cache_dir=tmp_path / "cache", num_workers=0
    )
    with pytest.raises(ConfigError, match=r"No image belongs to train or restval \(key `train_splits`\).* are test"):
        data.train_dataloader()


@pytest.mark.parametrize("shares", [{}, {"train": 0}, {"train": 1, "val": -0.1}, {"train": float("nan")}])
def test_shares_that_are_none_are_told(shares):
    with pytest.raises(ConfigError, match="`shares` is"):
        FolderDataModule("photos", shares=shares)


@given(st.lists(st.integers(0, 10**6), unique=True, min_size=1, max_size=40), st.integers(0, 3), st.randoms())
def test_splits_are_drawn_by_name_alone(numbers, seed, draws):
    files, shares = [f"{number}.jpg" for number in numbers], {"train": 0.5, "val": 0.2, "test": 0.3}
    splits = dict(zip(files, drawn_splits(files, shares, seed), strict=True))
    for name, share in shares.items():
        assert abs(list(splits.values()).count(name) - share * len(files)) <= 1
    draws.shuffle(files)
    assert dict(zip(files, drawn_splits(files, shares, seed), strict=True)) == splits


def test_other_seeds_draw_other_splits():
    files = [f"{number}.jpg" for number in range(50)]
    assert drawn_splits(files, {"train": 1, "test": 1}, 0) != drawn_splits(files, {"train": 1, "test": 1}, 1)

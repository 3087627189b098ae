import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.errors import ConfigError
from datamodules.scenes import ScenesConfig, write_scenes
from datamodules.scenes.writer import SceneDrawer

SMALL = {"train": 6, "val": 2, "test": 4, "resolution": 48}


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def load(root, name):
    return json.loads((root / "annotations" / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "scenes"
    write_scenes(ScenesConfig(**SMALL), root, progress=False)
    return root


def test_the_same_config_gives_the_same_bytes(written, tmp_path):
    write_scenes(ScenesConfig(**SMALL), tmp_path / "again", progress=False)
    assert content(tmp_path / "again") == content(written)


def test_another_seed_gives_other_pictures(written, tmp_path):
    write_scenes(ScenesConfig(**SMALL, seed=1), tmp_path / "other", progress=False)
    name = "images/train/000000000001.png"
    assert content(tmp_path / "other")[name] != content(written)[name]


def test_a_picture_depends_on_split_and_index_alone(written):
    drawer = SceneDrawer(ScenesConfig(**SMALL))
    scene, captions = drawer.draw("test", 3)
    assert np.array_equal(scene.picture, Image.open(written / "images" / "test" / "000000000012.png"))
    assert [caption.text for caption in captions] == [
        s["raw"] for s in load(written, "dataset")["images"][11]["sentences"]
    ]


def test_every_picture_is_there_in_its_split(written):
    images = load(written, "dataset")["images"]
    assert [image["split"] for image in images] == ["train"] * 6 + ["val"] * 2 + ["test"] * 4
    for image in images:
        picture = Image.open(written / "images" / image["filepath"] / image["filename"])
        assert (picture.size, picture.mode) == ((48, 48), "RGB")
    assert len(list((written / "images").rglob("*.png"))) == 12


def test_captions_have_karpathys_layout(written):
    sentences = [s for image in load(written, "dataset")["images"] for s in image["sentences"]]
    assert [s["sentid"] for s in sentences] == list(range(1, 61))
    first = load(written, "dataset")["images"][0]
    assert first["sentids"] == [1, 2, 3, 4, 5]
    assert all(s["imgid"] == first["imgid"] for s in first["sentences"])
    assert all(s["tokens"] == s["raw"].lower().rstrip(".").replace(",", "").split() for s in sentences)


def test_mentions_are_a_part_of_what_is_there(written):
    there = {}
    for one in load(written, "instances")["annotations"]:
        there.setdefault(one["image_id"], set()).add(one["category_id"])
    mentions = load(written, "mentions")
    for image in load(written, "dataset")["images"]:
        for sentid in image["sentids"]:
            assert set(mentions[str(sentid)]) <= there[image["cocoid"]]


def test_pycocotools_reads_boxes_and_masks(written):
    coco = pytest.importorskip("pycocotools.coco").COCO(str(written / "annotations" / "instances.json"))
    assert len(coco.getCatIds()) == 80
    assert coco.getCatIds(catNms=["toothbrush"]) == [90]
    for one in coco.loadAnns(coco.getAnnIds()):
        rows, columns = np.nonzero(coco.annToMask(one))
        assert one["bbox"] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        assert one["area"] == len(rows)


def test_a_finished_data_set_is_left_alone(written):
    before = {path: path.stat().st_mtime_ns for path in written.rglob("*")}
    write_scenes(ScenesConfig(**SMALL), written, progress=False)
    assert {path: path.stat().st_mtime_ns for path in written.rglob("*")} == before


def test_another_config_at_the_same_place_is_refused_with_both_values(written):
    with pytest.raises(ConfigError, match=r"scenes\.rho = 0\.95, but 0\.3 is asked for"):
        write_scenes(ScenesConfig(**SMALL, rho=0.3), written, progress=False)


def test_an_interrupted_run_leaves_nothing_and_is_redone(written, tmp_path, monkeypatch):
    draw = SceneDrawer.draw

    def draw_three(drawer, split, index):
        if index == 3:
            raise KeyboardInterrupt
        return draw(drawer, split, index)

    monkeypatch.setattr(SceneDrawer, "draw", draw_three)
    with pytest.raises(KeyboardInterrupt):
        write_scenes(ScenesConfig(**SMALL), tmp_path / "scenes", progress=False)
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    write_scenes(ScenesConfig(**SMALL), tmp_path / "scenes", progress=False)
    assert content(tmp_path / "scenes") == content(written)


@pytest.mark.parametrize("name", ["thesis.tex", "images/train2014/real.jpg", "annotations/instances.json"])
def test_a_folder_with_something_else_is_not_touched(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigError, match="holds something other than Scenes"):
        write_scenes(ScenesConfig(**SMALL), tmp_path, progress=False)
    assert (tmp_path / name).read_text() == "mine"


def test_an_empty_folder_is_filled(written, tmp_path):
    write_scenes(ScenesConfig(**SMALL), tmp_path, progress=False)
    assert content(tmp_path) == content(written)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be written to .*file/scenes"):
        write_scenes(ScenesConfig(**SMALL), tmp_path / "file" / "scenes", progress=False)

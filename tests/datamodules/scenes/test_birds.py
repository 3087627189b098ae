import csv
import json
import re
from pathlib import Path
from random import Random

import numpy as np
import pytest
from jsonargparse import ArgumentParser
from PIL import Image

from datamodules import BirdCaptionsDataModule, BirdScenesDataModule, GroupedDataModule, WaterbirdsDataModule
from datamodules.errors import AnnotationError, ConfigError, MissingPathError
from datamodules.scenes.birds.captions import bird_caption
from datamodules.scenes.birds.config import BirdCaptionsConfig, BirdScenesConfig
from datamodules.scenes.birds.picture import BirdDrawer
from datamodules.scenes.birds.sources import PaintedPlaces
from datamodules.scenes.birds.vocabulary import KINDS, PLACES, bird_vocabulary
from datamodules.scenes.birds.waters import WATERS
from datamodules.scenes.birds.writer import write_bird_captions, write_bird_scenes
from datamodules.scenes.places import PAINTERS
from datamodules.waterbirds import LABELS
from datamodules.waterbirds import PLACES as ATTRIBUTES

SHARED = Path(__file__).parents[3] / ".." / "shared" / "data"
SMALL = {"train": 40, "val": 8, "test": 8, "resolution": 48}


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("birds") / "scenes"
    write_bird_scenes(BirdScenesConfig(**SMALL), root, progress=False)
    return root


@pytest.fixture(scope="module")
def birds():
    drawer = BirdDrawer(BirdScenesConfig())
    return [drawer.draw(number % 2, number // 2 % 2, Random(f"bird {number}")) for number in range(200)]


def test_waterbirds_itself_reads_what_is_written(scenes):
    data = WaterbirdsDataModule(scenes, masks=scenes / "segmentations")
    data.setup()
    sizes = BirdScenesConfig(**SMALL)
    for split in ("train", "val", "test"):
        assert data.table.counts(split).tolist() == sizes.group_sizes(split)
    assert data.train_group_counts.tolist() == [29, 2, 0, 9]
    for row in range(0, 56, 11):
        mask = np.asarray(Image.open(data.mask_path(row)).convert("L"))
        assert data.read_image(row).size == mask.shape == (48, 48)
        assert set(np.unique(mask)) == {0, 255}
    with (scenes / "metadata.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["img_id", "img_filename", "y", "split", "place", "place_filename"]
    kinds = {species.name.title(): species.kind for species in bird_vocabulary().species}
    assert all(kinds[row["img_filename"].split("/")[0][4:]] == int(row["y"]) for row in rows)
    assert (LABELS, ATTRIBUTES) == (KINDS, PLACES)


def test_a_config_builds_it(scenes):
    parser = ArgumentParser()
    parser.add_subclass_arguments(GroupedDataModule, "data")
    flags = [f"root={scenes}", "birds.train=40", "birds.match=0.5", "sampling=group_balanced", "errors=null"]
    config = parser.parse_args(["--data=datamodules.BirdScenesDataModule", *(f"--data.{flag}" for flag in flags)])
    data = parser.instantiate(config).data
    assert (data.birds.train, data.birds.match, data.birds.val) == (40, 0.5, 1199)
    assert (data.sampling, data.masks) == ("group_balanced", scenes / "segmentations")


def test_groups_of_a_split_lie_in_no_order(scenes):
    groups = WaterbirdsDataModule(scenes).table.groups[:40]
    assert (np.diff(groups) != 0).sum() > 4


def test_the_same_config_gives_the_same_bytes_and_another_seed_others(scenes, tmp_path):
    write_bird_scenes(BirdScenesConfig(**SMALL), tmp_path / "again", progress=False)
    assert contents(tmp_path / "again") == contents(scenes)
    write_bird_scenes(BirdScenesConfig(**SMALL, seed=1), tmp_path / "other", progress=False)
    ours, others = ({path.read_bytes() for path in root.glob("0*/*.png")} for root in (scenes, tmp_path / "other"))
    assert len(ours | others) == 2 * 56


def test_a_finished_set_is_left_alone_and_another_config_refused(scenes):
    before = contents(scenes)
    BirdScenesDataModule(scenes, BirdScenesConfig(**SMALL)).prepare_data()
    with pytest.raises(ConfigError, match=r"birds\.match = 0\.95, but 0\.5"):
        BirdScenesDataModule(scenes, BirdScenesConfig(**SMALL, match=0.5)).prepare_data()
    with pytest.raises(ConfigError, match=r"birds\.match = 0\.95, but 0\.7"):
        write_bird_captions(BirdCaptionsConfig(**SMALL), scenes, progress=False)
    assert contents(scenes) == before


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="something other than BirdScenes"):
        write_bird_scenes(BirdScenesConfig(**SMALL), tmp_path, progress=False)


def test_a_writer_that_fails_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(BirdDrawer, "draw", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_bird_scenes(BirdScenesConfig(**SMALL), tmp_path / "birds", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_birds_are_small_visible_and_marked_by_their_masks(birds):
    shares = np.array([bird.mask.mean() for bird in birds])
    assert shares.min() > 0.005
    assert shares.max() < 0.2
    assert {bird.species.kind for bird in birds[::2]} == {0}
    assert {bird.place_kind for bird in birds[2::4]} == {1}


def test_a_mask_covers_what_the_bird_changes():
    bird = BirdDrawer(BirdScenesConfig()).draw(1, 0, Random(4))
    place, _ = PaintedPlaces(bird_vocabulary()).paint(0, 64, Random(4))
    changed = (np.asarray(bird.picture) != np.asarray(place)).any(axis=-1)
    assert (changed & bird.mask).sum() > 0.95 * bird.mask.sum()
    assert (changed & ~bird.mask).sum() < 0.5 * bird.mask.sum()  # soft edges


def test_where_a_bird_is_and_how_large_tells_nothing_of_its_place(birds):
    centres = np.array([np.argwhere(bird.mask).mean(axis=0) for bird in birds]) / 64
    places = np.array([bird.place_kind for bird in birds])
    assert np.abs(centres[places == 0].mean(axis=0) - centres[places == 1].mean(axis=0)).max() < 0.1


def test_captions_are_true(birds):
    words = bird_vocabulary()
    said = {name: (*place.phrases, *place.nouns) for name, place in words.place_words.items()}
    rng = Random(0)
    for bird in birds:
        text = f" {bird_caption(bird, rng).lower()}"
        assert KINDS[1 - bird.species.kind] not in text
        assert PLACES[1 - bird.place_kind] not in text.replace("landbird", "").replace("waterbird", "")
        for species in words.species:
            assert f" {species.name}" not in text or species.name == bird.species.name
        true = {*said[bird.place], *said[PLACES[bird.place_kind]]}
        for phrase in {one for phrases in said.values() for one in phrases} - true:
            assert not re.search(rf"\b{phrase}\b", text) or any(phrase in one and one in text for one in true)
        assert "{" not in text
        assert " a o" not in text


def test_the_vocabulary_is_whole():
    words = bird_vocabulary()
    assert {place.painter for place in words.places} <= set(PAINTERS) | set(WATERS)
    assert set(words.place_words) == {place.name for place in words.places} | set(PLACES)
    assert sum(species.glyph is not None and species.kind == 1 for species in words.species) == 5
    glyphs = [species.glyph for species in words.species if species.glyph]
    assert len(set(glyphs)) == len(glyphs) == 13
    assert all(species.words for species in words.species)


def test_captioned_birds_are_read_like_coco(tmp_path):
    config = BirdCaptionsConfig(train=40, val=10, test=10, resolution=48, captions=3)
    data = BirdCaptionsDataModule(tmp_path / "captions", config, cache_dir=tmp_path / "cache")
    data.prepare_data()
    assert [len(data.tables.rows(split)) for split in ("train", "val", "test")] == [40, 10, 10]
    assert len(data.tables.texts) == 180
    assert data.read_image(59).size == (48, 48)
    assert len(data.tables.categories) == 0
    note = json.loads((tmp_path / "captions" / "birds.json").read_text())
    assert note["config"]["match"] == 0.7


def test_captioned_birds_match_as_said_in_every_split():
    assert BirdCaptionsConfig().group_sizes("train") == [2100, 900, 900, 2100]
    assert BirdCaptionsConfig().group_sizes("test") == [105, 45, 45, 105]


@pytest.mark.parametrize("sizes", [(0.2, 0.25), (0.8, 0.85)])
def test_birds_are_as_large_as_said(sizes):
    drawer = BirdDrawer(BirdScenesConfig(resolution=96, bird_size=sizes))
    seen = [np.argwhere(drawer.draw(1, 1, Random(seed)).mask) for seed in range(30)]
    longest = max(int((where.max(0) - where.min(0)).max()) + 1 for where in seen)  # of birds that are seen whole
    assert sizes[0] * 96 - 4 < longest <= sizes[1] * 96 + 1


@pytest.mark.parametrize(
    "options",
    [
        {"train": -1},
        {"train": 0, "val": 0, "test": 0},
        {"match": 1.5},
        {"resolution": 20},
        {"seed": -1},
        {"bird_size": (0.5, 0.2)},
    ],
)
def test_values_that_cannot_work_are_refused(options):
    with pytest.raises(ConfigError, match=r"birds\."):
        BirdScenesConfig(**options)


def test_captions_need_a_number():
    with pytest.raises(ConfigError, match=r"birds\.captions"):
        BirdCaptionsConfig(captions=0)


@pytest.fixture
def stamps(tmp_path):
    cut = Image.new("RGBA", (40, 30))
    cut.paste((200, 0, 0, 255), (5, 5, 30, 25))
    cut.save(tmp_path / "bird.png")
    lines = ["file,description,coco_class", "bird.png,A Silver Gull.,bird", "bird.png,An owl.,bird"]
    (tmp_path / "index.csv").write_text("\n".join([*lines, "none.png,A rubber duck.,", "none.png,An emu.,bird"]))
    return tmp_path


def test_cut_outs_belong_to_the_species_that_their_description_names(stamps):
    drawer = BirdDrawer(BirdScenesConfig(stamps=str(stamps)))
    assert [species.name for species in drawer.species] == ["gull", "owl"]
    assert drawer.draw(1, 1, Random(0)).species.name == "gull"


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ("description,", "text,", AnnotationError, "line 1 .*'description'"),
        ("An owl", "A pelican", AnnotationError, "no landbird or no waterbird"),
        ("bird.png,An owl", "lost.png,An owl", MissingPathError, r"line 3 .*lost\.png"),
        ("bird.png,An owl", "photo.png,An owl", AnnotationError, r"line 3 .*photo\.png, which is no cut-out"),
    ],
)
def test_bad_cut_outs_are_told(stamps, old, new, error, message):
    Image.new("RGB", (40, 30)).save(stamps / "photo.png")
    index = stamps / "index.csv"
    index.write_text(index.read_text().replace(old, new))
    with pytest.raises(error, match=message) as raised:
        BirdDrawer(BirdScenesConfig(stamps=str(stamps)))
    assert "birds.stamps" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,place\na.png,sky\n", "line 2 .*'sky'"),
        ("file,place\nlost.png,land\n", r"line 2 .*lost\.png"),
        ("file,place\na.png,land\n", "no place water"),
    ],
)
def test_bad_backgrounds_are_told(tmp_path, text, message):
    Image.new("RGB", (60, 50)).save(tmp_path / "a.png")
    (tmp_path / "index.csv").write_text(text)
    with pytest.raises(AnnotationError, match=message) as raised:
        BirdDrawer(BirdScenesConfig(backgrounds=str(tmp_path)))
    assert "birds.backgrounds" in str(raised.value)


def test_a_missing_folder_is_told(tmp_path):
    with pytest.raises(MissingPathError, match=r"no folder .*none .*birds\.stamps"):
        BirdDrawer(BirdScenesConfig(stamps=str(tmp_path / "none")))
    with pytest.raises(MissingPathError, match=r"holds no index\.csv: set `birds\.backgrounds` to the folder"):
        BirdDrawer(BirdScenesConfig(backgrounds=str(tmp_path)))


@pytest.mark.real
@pytest.mark.skipif(not (SHARED / "tuxpaint-stamps").is_dir(), reason="../shared/data/tuxpaint-stamps is absent")
def test_photographs_of_birds_before_photographs_of_places():
    folders = {"stamps": str(SHARED / "tuxpaint-stamps"), "backgrounds": str(SHARED / "backgrounds")}
    drawer = BirdDrawer(BirdScenesConfig(resolution=96, **folders))
    names = {kind: {species.name for species in drawer.species if species.kind == kind} for kind in (0, 1)}
    assert {"duck", "gull", "penguin", "heron", "pelican"} <= names[1]
    assert {"owl", "turkey", "vulture", "ostrich"} <= names[0]
    bird = drawer.draw(1, 0, Random(0))
    assert bird.picture.size == (96, 96)
    assert bird.place == "land"
    assert bird.mask.any()

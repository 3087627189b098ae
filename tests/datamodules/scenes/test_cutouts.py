from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image, ImageDraw

from datamodules.errors import AnnotationError, MissingPathError
from datamodules.scenes import ScenesConfig
from datamodules.scenes.cutouts import CutoutFolder, OpenMoji
from datamodules.scenes.vocabulary import vocabulary
from datamodules.scenes.writer import SceneDrawer

STAMPS = Path(__file__).parents[4] / "shared" / "data" / "tuxpaint-stamps"
WORDS = vocabulary()


def write_folder(folder, rows, header="file,note,coco_class"):
    Image.new("RGBA", (40, 40)).save(folder / "empty.png")
    Image.new("RGB", (40, 40), "red").save(folder / "solid.png")
    disc = Image.new("RGBA", (40, 40))
    ImageDraw.Draw(disc).ellipse((10, 5, 29, 34), fill="red")
    disc.save(folder / "disc.png")
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "index.csv").write_text("\n".join([header, *rows]) + "\n")
    return CutoutFolder(folder, WORDS, 100)


@pytest.mark.parametrize("name", [name for name, entry in WORDS.classes.items() if entry.glyphs])
def test_every_glyph_shows_something(name):
    source = OpenMoji(WORDS, 64)
    for seed in range(6):
        picture = source.pick(name, Random(seed)).picture
        alpha = np.asarray(picture.getchannel("A"))
        assert picture.getbbox() == (0, 0, *picture.size)
        assert (alpha > 128).mean() > 0.08
        assert max(picture.size) >= 1.9 * WORDS.classes[name].size * 64


def test_colours_that_are_said_are_seen():
    source, seen = OpenMoji(WORDS, 64), {}
    for seed in range(40):
        cutout = source.pick("umbrella", Random(seed))
        seen[cutout.colour] = np.asarray(cutout.picture).reshape(-1, 4)[:, :3]
    assert {"red", "blue", "green"} <= set(seen)
    for colour, channel in (("red", 0), ("green", 1), ("blue", 2)):
        lit = seen[colour][seen[colour].max(axis=1) > 150].mean(axis=0)
        assert lit.argmax() == channel


def test_water_is_not_drawn_with_a_boat():
    source = OpenMoji(WORDS, 64)
    glyph_colours = {source.pick("boat", Random(seed)).nouns[0].one for seed in range(30)}
    assert {"sailboat", "ship"} <= glyph_colours
    for seed in range(30):
        cutout = source.pick("boat", Random(seed))
        if cutout.nouns[0].one == "sailboat":
            pixels = np.asarray(cutout.picture).reshape(-1, 4).astype(int)
            water = (np.abs(pixels[:, :3] - [0x92, 0xD3, 0xF5]).max(axis=1) < 8) & (pixels[:, 3] > 128)
            assert water.mean() < 0.01


def test_a_folder_gives_its_files(tmp_path):
    source = write_folder(tmp_path, ["disc.png,round,apple", "empty.png,no class,", "disc.png,again,dog"])
    assert source.classes == ("dog", "apple")
    cutout = source.pick("apple", Random(0))
    assert cutout.picture.size == (20, 30)
    assert cutout.nouns == WORDS.classes["apple"].nouns


def test_the_fingerprint_follows_the_pixels(tmp_path):
    before = write_folder(tmp_path, ["disc.png,,apple"]).fingerprint
    Image.new("RGBA", (40, 40)).save(tmp_path / "disc.png")
    disc = Image.new("RGBA", (40, 40))
    ImageDraw.Draw(disc).ellipse((10, 5, 29, 34), fill="blue")
    disc.save(tmp_path / "disc.png")
    assert CutoutFolder(tmp_path, WORDS, 100).fingerprint != before


@pytest.mark.parametrize(
    ("row", "error", "words"),
    [
        ("absent.png,,apple", MissingPathError, "line 3 .*lists absent.png"),
        ("disc.png,,unicorn", AnnotationError, "line 3 .*has class 'unicorn'"),
        ("solid.png,,apple", AnnotationError, "line 3 .*lists solid.png, .*is no cut-out"),
        ("empty.png,,apple", AnnotationError, "line 3 .*lists empty.png, .*is no cut-out"),
        ("broken.png,,apple", AnnotationError, "line 3 .*lists broken.png, .*cannot be read"),
    ],
)
def test_a_bad_row_is_named_with_its_line(tmp_path, row, error, words):
    with pytest.raises(error, match=rf"{words}.*\.$") as caught:
        write_folder(tmp_path, ["disc.png,,apple", row])
    assert "scenes.cutouts" in str(caught.value)


def test_a_missing_column_is_named(tmp_path):
    with pytest.raises(AnnotationError, match=r"line 1 .*scenes\.cutouts.* 0 columns 'coco_class'"):
        write_folder(tmp_path, ["disc.png,"], header="file,note")


def test_a_missing_folder_or_index_is_named(tmp_path):
    with pytest.raises(MissingPathError, match=r"no folder .*nowhere .*scenes\.cutouts"):
        CutoutFolder(tmp_path / "nowhere", WORDS, 100)
    with pytest.raises(MissingPathError, match=r"holds no index\.csv: set `scenes\.cutouts` to the folder"):
        CutoutFolder(tmp_path, WORDS, 100)


def test_an_index_that_is_no_text_is_told(tmp_path):
    (tmp_path / "index.csv").write_bytes(b"file,coco_class\n\xff,dog\n")
    with pytest.raises(AnnotationError, match="is no text"):
        CutoutFolder(tmp_path, WORDS, 100)


@pytest.mark.real
def test_photographic_cutouts_can_be_drawn():
    if not STAMPS.is_dir():
        pytest.skip("../shared/data/tuxpaint-stamps is absent")
    drawer = SceneDrawer(ScenesConfig(cutouts=str(STAMPS), rho=1.0))
    assert ("zebra", "giraffe") in drawer.model.pairs["outdoors"]
    for index in range(20):
        scene, captions = drawer.draw("train", index)
        assert {one.name for one in scene.objects} <= set(drawer.source.classes)
        assert len(captions) == 5

"""A whole synthesis on the drawn data set, from config to folder."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import synth
from datamodules.errors import AnnotationError, ConfigError, MissingPathError, UnreadableImageError
from synth import SynthesisConfig, job, workspace
from synth.captions import PromptCaptions
from synth.fills import BlurFill, MeanFill, ZeroFill
from synth.progress import Meter
from synth.rules import Rule
from synth.selection import SelectionConfig

BASE = 2**40
SPLITS = {"pairs": {"train": ["train", "restval"]}, "queries": {"val": ["val"], "test": ["test"]}}


@pytest.fixture
def config(data, tmp_path):
    return SynthesisConfig(data=data, output=tmp_path / "out", fill=ZeroFill(), **SPLITS)


def test_pairs_lose_the_object_and_its_words(config, rows):
    summary = synth.run(config)
    tables, matcher = config.data.tables, config.data.matcher
    written = rows(config.output, "train")
    assert len(written) == summary.splits["train"].kept == 3
    for row in written:
        source = tables.image_ids.tolist().index(row["source_image_id"])
        candidate = row["image_id"] - BASE - 256 * row["source_image_id"]
        assert row["caption_id"] == BASE + 256 * row["source_caption_id"] + candidate
        caption = tables.caption_ids.tolist().index(row["source_caption_id"])
        assert tables.caption_images[caption] == source
        assert row["source_text"] == tables.texts[caption]
        named = {matcher.class_names[i] for i in np.flatnonzero(matcher.mentions([row["text"]])[0])}
        assert matcher.class_names[candidate] in row["removed"]
        assert not named & set(row["removed"])
        assert named & set(row["kept"])
        assert_black_boxes(config, row, source)
    assert written[0]["fill"] == "zero"
    assert (written[0]["fill_version"], written[0]["caption_strategy"], written[0]["seed"]) == (1, "noun_phrases", 0)


def assert_black_boxes(config, row, source):
    before = np.array(config.data.read_image(source))
    after = np.asarray(Image.open(config.output / "train" / row["file_name"]))
    for x, y, width, height in (map(int, box) for box in row["removed_boxes"]):
        before[y : y + height, x : x + width] = 0
    assert np.array_equal(before, after)


def test_queries_have_one_removal_for_every_image_and_no_caption(config, rows):
    synth.run(config)
    for split, images in (("val", {105}), ("test", {106, 107})):
        written = rows(config.output, split)
        assert {row["source_image_id"] for row in written} == images
        for row in written:
            assert (row["text"], row["source_text"], row["caption_id"], row["source_caption_id"]) == ("", "", -1, -1)
            assert row["removed"]
            assert row["kept"]
            assert row["image_id"] >= BASE


def test_the_protocol_has_config_and_counts(config):
    summary = synth.run(config)
    protocol = json.loads((config.output / "protocol.json").read_text())
    assert protocol["config"]["data"] == {
        "class_path": f"{type(config.data).__module__}.DrawnData",
        "fingerprint": "drawn",
        "matcher": "words-1",
    }
    assert protocol["config"]["fill"] == {"class_path": "synth.fills.ZeroFill", "version": 1}
    assert protocol["config"]["pairs"] == SPLITS["pairs"]
    train = protocol["counts"]["train"]
    assert (train["images"], train["used"], train["kept"]) == (5, 3, 3)
    assert train["dropped"] == {rule.value: 0 for rule in synth.report.IMAGE_RULES} | {
        "few_classes": 1,
        "no_kept_word": 1,
    }
    assert (train["candidates"], train["rejected"]["nothing_kept"]) == (10, 1)
    assert train["images"] == train["used"] + sum(train["dropped"].values())
    assert summary.splits["train"].dropped[Rule.NO_KEPT_WORD] == 1


def test_same_seed_same_bytes_whatever_the_workers(config, tmp_path, rows, contents):
    BlurFill()(np.zeros((600, 800, 3), np.uint8), np.ones((600, 800), bool))  # wakes OpenCV's threads before the fork
    config = replace(config, fill=BlurFill())
    synth.run(config)
    synth.run(replace(config, output=tmp_path / "again", workers=2))
    assert contents(config.output) == contents(tmp_path / "again")
    texts = set()
    for seed in range(6):
        synth.run(replace(config, output=tmp_path / f"seed{seed}", seed=seed))
        texts.add(tuple(row["text"] for row in rows(tmp_path / f"seed{seed}", "train")))
    assert len(texts) > 1


def test_an_image_is_treated_alike_in_any_company(config, tmp_path, draw_data, rows):
    synth.run(config)
    captions = ["Two dogs chase a frisbee.", "A dog plays", "On the grass"]
    alone = draw_data("alone", [("a", "train", ["dog", "frisbee"], captions)])
    only = replace(config, data=alone, output=tmp_path / "out2", pairs={"train": ["train"]}, queries={})
    synth.run(only)
    assert rows(only.output, "train") == rows(config.output, "train")[:1]


def test_an_edited_caption_that_still_names_a_removed_class_is_not_used(config):
    class Stubborn(type(config.data.matcher)):
        def mentions(self, captions):
            return np.ones((len(captions), len(self.class_names)), dtype=bool)

    config.data.matcher = Stubborn()
    with pytest.raises(ConfigError, match=r"edit still names a removed class \(3\)"):
        synth.run(config)


def test_dilation_grows_the_filled_box(config, tmp_path, rows):
    synth.run(replace(config, dilation=2))
    row = rows(config.output, "val")[0]
    x, y, width, height = map(int, row["removed_boxes"][0])
    pixels = np.asarray(Image.open(config.output / "val" / row["file_name"]))
    assert not pixels[y - 2 : y + height + 2, x - 2 : x + width + 2].any()
    assert pixels[y - 3, x : x + width].any()


def test_the_progress_of_the_fills_is_shown(config, monkeypatch, capsys):
    monkeypatch.setattr(job, "Meter", lambda visible: Meter(visible, every=0.0))
    synth.run(config, alone=True)
    lines = [line.split(",")[0] for line in capsys.readouterr().err.splitlines() if "fill" in line]
    expected = {"train": 3, "val": 1, "test": 2}
    assert lines == [f"{name}: fill: {n + 1} of {total}" for name, total in expected.items() for n in range(total)]


def test_max_images_draws_some(config):
    summary = synth.run(replace(config, max_images=4))
    assert summary.splits["train"].images == 4
    assert summary.splits["val"].images == 1


def test_a_finished_set_is_left_alone(config, monkeypatch):
    first = synth.run(config)
    before = {path: path.stat().st_mtime_ns for path in config.output.rglob("*")}
    monkeypatch.setattr(job, "_make", None)
    again = synth.run(replace(config, workers=3))
    assert (first.made, again.made) == (True, False)
    assert {name: counts.as_json() for name, counts in again.splits.items()} == {
        name: counts.as_json() for name, counts in first.splits.items()
    }
    assert {path: path.stat().st_mtime_ns for path in config.output.rglob("*")} == before


def test_a_set_that_another_run_ends_just_before_the_lock_is_left_alone(config, monkeypatch):
    real = workspace.claimed

    def claimed_late(output):
        monkeypatch.setattr(workspace, "claimed", real)
        synth.run(config, alone=True)
        return real(output)

    monkeypatch.setattr(workspace, "claimed", claimed_late)
    assert not synth.run(config, alone=True).made
    assert not (config.output / ".run").exists()


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"seed": 1}, "`seed` 0 instead of 1"),
        ({"fill": MeanFill()}, "`fill.class_path` 'synth.fills.ZeroFill' instead of 'synth.fills.MeanFill'"),
        ({"selection": SelectionConfig(alpha2=0.9)}, "`selection.alpha2` 0.8 instead of 0.9"),
        ({"seed": 1, "dilation": 2}, "`dilation` 0 instead of 2, `seed` 0 instead of 1"),
        ({"seed": 1, "dilation": 2, "feather": 3, "max_images": 9}, ", 1 more key;"),
        ({"queries": {"val": ["val"]}}, "`queries.test`"),
        ({"caption": PromptCaptions()}, "`captions.class_path`"),
    ],
)
def test_another_config_is_refused_with_the_key_that_differs(config, change, key):
    synth.run(config)
    with pytest.raises(ConfigError) as caught:
        synth.run(replace(config, **change))
    assert key in str(caught.value)


@pytest.mark.parametrize("protocol", ['{"tcp": true}', "[]", '{"config": []}', "{"])
def test_a_foreign_protocol_is_refused(config, protocol):
    config.output.mkdir()
    (config.output / "protocol.json").write_text(protocol)
    with pytest.raises(ConfigError, match=r"protocol\.json .* no protocol of this program"):
        synth.run(config)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_takes_nothing_from_the_generator_of_a_model(config, workers):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    synth.run(replace(config, workers=workers))
    assert torch.equal(torch.rand(1), expected)


def test_unreadable_images_are_named_and_counted_up_to_the_limit(config, capsys, rows):
    (config.data.root / "a.png").write_bytes(b"no image")
    with pytest.raises(UnreadableImageError, match=r"`max_unreadable` 0 of `data`.*a\.png"):
        synth.run(config)
    config.data.max_unreadable = 1
    summary = synth.run(config)
    assert summary.splits["train"].dropped[Rule.UNREADABLE] == 1
    assert summary.splits["train"].kept == len(rows(config.output, "train")) == 2
    assert "a.png" in capsys.readouterr().err


def test_an_image_of_another_size_is_refused(config):
    Image.new("RGB", (5, 5)).save(config.data.root / "a.png")
    with pytest.raises(AnnotationError, match=r"a\.png has 5 x 5 pixels, but its annotation says 48 x 40"):
        synth.run(config)


def test_bad_surroundings_are_told_before_any_work(config, tmp_path, draw_data, monkeypatch):
    with pytest.raises(MissingPathError, match="no folder"):
        synth.run(replace(config, output=tmp_path / "missing" / "out"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"`output` file/a/out cannot be written"):
        synth.run(replace(config, output=Path("file/a/out")))
    with pytest.raises(ConfigError, match="`restvall`, but the data set has train, restval, val, test"):
        synth.run(replace(config, pairs={"train": ["restvall"]}))
    config.output.mkdir()
    (config.output / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="exists and is no synthetic set"):
        synth.run(config)
    assert (config.output / "thesis.txt").exists()
    boxless = draw_data("boxless", [("a", "train", [], ["A dog"])])
    with pytest.raises(ConfigError, match="no boxes"):
        synth.run(SynthesisConfig(boxless, tmp_path / "o", pairs={"train": ["train"]}))


def test_an_empty_split_says_why(tmp_path, draw_data):
    lonely = draw_data("lonely", [("a", "train", ["dog"], ["A dog"]), ("b", "train", ["dog", "cat"], ["Grass"])])
    with pytest.raises(ConfigError, match=r"none of its 2 images .*fewer than two classes \(1\)") as caught:
        synth.run(SynthesisConfig(lonely, tmp_path / "o", pairs={"train": ["train"]}))
    assert "captions name no removable class (1)" in str(caught.value)
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_the_image_folder_loader_reads_the_set(config, tmp_path, rows):
    from datasets import load_dataset

    synth.run(config)
    loaded = load_dataset("imagefolder", data_dir=str(config.output), cache_dir=str(tmp_path / "cache"))
    assert {name: len(split) for name, split in loaded.items()} == {"train": 3, "validation": 1, "test": 2}
    assert loaded["train"][0]["text"] == rows(config.output, "train")[0]["text"]
    assert loaded["train"][0]["image"].size == (48, 40)


@pytest.mark.slow
def test_the_card_tells_loaders_the_splits(config, tmp_path):
    from datasets import load_dataset

    synth.run(replace(config, pairs={"with-words": ["train", "restval"]}))
    loaded = load_dataset(str(config.output), cache_dir=str(tmp_path / "cache"))
    assert {name: len(split) for name, split in loaded.items()} == {"with_words": 3, "val": 1, "test": 2}

"""Configs that cannot work, and the command that reads them."""

import json
import runpy
import sys
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest

import datamodules
import synth
from datamodules.errors import ConfigError
from synth import SynthesisConfig
from synth.config import check_source


def test_bad_configs_name_key_and_cure(data, tmp_path):
    config = SynthesisConfig(data, tmp_path / "out", pairs={"train": ["train"]}, queries={"test": ["test"]})
    wrong = {
        r"`batch_size` is 0": {"batch_size": 0},
        r"`feather` is -2": {"feather": -2},
        r"`queries_per_image` is 'some'": {"queries_per_image": "some"},
        r"`dilation` is -1": {"dilation": -1},
        r"`max_images` is 0": {"max_images": 0},
        r"both empty": {"pairs": {}, "queries": {}},
        r"'\.\./up'": {"pairs": {"../up": ["train"]}},
        r"comes from no split": {"queries": {"val": []}},
        r"both write a split `test`": {"pairs": {"test": ["val"]}},
    }
    for text, change in wrong.items():
        with pytest.raises(ConfigError, match=text):
            replace(config, **change)


@pytest.mark.parametrize(
    ("image_id", "classes", "fits"), [(2**40 - 1, 256, True), (2**40, 80, False), (-1, 80, False), (7, 257, False)]
)
def test_ids_that_new_ids_cannot_hold_are_refused(image_id, classes, fits):
    names, ids = [str(number) for number in range(classes)], {"image_ids": [image_id], "caption_ids": [0]}
    tables = SimpleNamespace(splits=["train"], categories=[0], class_names=names, **ids)
    config = SimpleNamespace(splits={"train": ["train"]}, data=SimpleNamespace(tables=tables))
    with nullcontext() if fits else pytest.raises(ConfigError, match=f"`data` needs .* has ids .* {classes} classes"):
        check_source(config)


@pytest.fixture
def yaml(data, tmp_path, drawn_class_path):
    path = tmp_path / "job.yaml"
    path.write_text(
        f"data: {{class_path: {drawn_class_path}, init_args: {{root: {data.root}}}}}\n"
        f"output: {tmp_path / 'out'}\nfill: {{class_path: MeanFill}}\npairs: {{train: [train]}}\n"
    )
    return path


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["synth", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("synth", run_name="__main__")
    return caught.value.code


def test_the_command_makes_the_set_and_shows_the_table(yaml, tmp_path, monkeypatch, capsys):
    assert command(monkeypatch, "--config", yaml, "--seed", "3", "--fill", "ZeroFill") == 0
    printed = capsys.readouterr().err
    assert "images looked at" in printed
    assert "fewer than two classes" in printed
    protocol = json.loads((tmp_path / "out" / "protocol.json").read_text())
    assert (protocol["config"]["seed"], protocol["config"]["fill"]["class_path"]) == (3, "synth.fills.ZeroFill")


def test_a_yaml_can_be_run_from_elsewhere(yaml, tmp_path):
    synth.run_file(yaml)
    assert (tmp_path / "out" / "protocol.json").is_file()


def test_a_data_module_is_known_by_its_name(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(
        f"data: {{class_path: ScenesDataModule, init_args: {{root: {tmp_path}}}}}\npairs: {{train: [train]}}\n"
    )
    config = synth.load(["--config", str(path), "--output", "out", "--data.scenes.train", "7"])
    assert isinstance(config.data, datamodules.ScenesDataModule)
    assert config.data.scenes.train == 7


def test_a_misspelled_key_of_a_data_module_is_the_only_complaint(tmp_path, capsys):
    path = tmp_path / "job.yaml"
    path.write_text("data: {class_path: CocoDataModule, init_args: {image_rot: x, karpathy: k, instances: [i]}}\n")
    with pytest.raises(SystemExit):
        synth.load(path)
    complaint = "in class datamodules.CocoDataModule, there is no key `image_rot`; did you mean image_root?"
    assert capsys.readouterr().err == f"error: key `data`: {complaint}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "texts"),
    [
        (["--selection.alpha1", "7"], 1, ["`selection.alpha1` is 7.0"]),
        (["--trainer.devises", "2"], 1, ["`trainer`", "devises"]),
        (["--captions_per_image", "some"], 2, ["captions_per_image", "one", "all"]),
        (["--pairs", "{train: [trian]}"], 1, ["`trian`", "train, restval, val, test"]),
        (["--fill", "MaenFill"], 2, ["MaenFill", "MeanFill"]),
        (["--sead", "1"], 2, ["sead", "seed"]),
        (["--pairs", "[train]"], 2, ["key `pairs`", "expected dict"]),
        (["--data", "CocoDatamodul"], 2, ["key `data`", "CocoDatamodul", "did you mean CocoDataModule"]),
        (["--data", "drawn_data.DrawnDatum"], 2, ["key `data`", "DrawnDatum"]),
        (["--output", "/dev/null/set/out"], 1, ["`output`", "/dev/null/set"]),
    ],
)
def test_mistakes_get_one_sentence(yaml, monkeypatch, capsys, arguments, code, texts):
    assert command(monkeypatch, "--config", yaml, *arguments) == code
    printed = capsys.readouterr().err
    assert len(printed.strip().splitlines()) == 1
    assert "Traceback" not in printed
    for text in texts:
        assert text in printed

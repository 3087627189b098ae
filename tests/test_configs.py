"""The configs are complete, and every command that one begins with runs: for a few steps, on a few pictures."""

from __future__ import annotations

import csv
import json
import math
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from datamodules.scenes.birds import BirdScenesConfig, write_bird_scenes
from synth.__main__ import main as synth
from train import main

PROJECT = Path(__file__).parents[1]
CONFIGS = sorted((PROJECT / "configs").glob("*.yaml"))
TABLE = [f"{family}_{data}" for family in ("vsepp", "clip", "blip") for data in ("coco", "flickr30k", "scenes")]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
BIRDS = {"train": 24, "val": 10, "test": 10}
SMALL: dict[str, dict[str, Any]] = {
    "CLIP": {
        "pretrained": None,
        "model_config": {
            "embed_dim": 16,
            "vision_cfg": {
                "image_size": 32,
                "timm_model_name": "test_byobnet",
                "timm_pool": "avg",
                "timm_proj": "linear",
            },
            "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
        },
    },
    "SpuriousAwareCLIP": {
        "pretrained": None,
        "model_config": {
            "embed_dim": 16,
            "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8},
            "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
        },
        "templates": ["a {}.", "a photo of a {}."],
    },
    "VSEPP": {"image_model": "test_resnet", "image_weights": None, "image_size": 32, "word_dim": 8, "embed_dim": 16},
    "BLIP": {
        "pretrained": None,
        "tokenizer": [
            *SPECIAL,
            *(f"{before}{letter}" for letter in "abcdefghijklmnopqrstuvwxyz" for before in ("", "##")),
        ],
        "image_size": 32,
        "queue_size": 20,
        "rerank_top_k": 10,
        "config": {
            "image_text_hidden_size": 8,
            "vision_config": {
                "image_size": 32,
                "patch_size": 16,
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
            },
            "text_config": {
                "vocab_size": 64,
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "max_position_embeddings": 40,
            },
        },
    },
}


def _head(path: Path) -> str:
    """Return the comment that a config begins with, commands that go over several lines in one."""
    lines = path.read_text().split("\nname:")[0].splitlines()
    return re.sub(r"\n +(?=--)", " ", "\n".join(line.removeprefix("#") for line in lines))


def _commands(path: Path) -> list[str]:
    return re.findall(r"python (train\.py .+?)(?: {2,}.*)?$", _head(path), re.M)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, two_layouts: Any) -> Path:
    """A folder with a few Scenes and their counterfactuals, which lie there in COCO's layout, others in Flickr30k's."""
    folder = tmp_path_factory.mktemp("world")
    scenes = {"train": 24, "val": 10, "test": 10, "resolution": 64}
    source = {"root": str(folder / "scenes"), "scenes": scenes, "cache_dir": str(folder / "cache")}
    synthesis = {
        "data": {"class_path": "datamodules.ScenesDataModule", "init_args": source},
        "output": str(folder / "synthetic"),
        "pairs": {"train": ["train"]},
        "queries": {"val": ["val"], "test": ["test"]},
        "fill": {"class_path": "MeanFill"},
    }
    (folder / "synthesis.yaml").write_text(yaml.safe_dump(synthesis))
    assert synth(["--config", str(folder / "synthesis.yaml")]) == 0
    write_bird_scenes(BirdScenesConfig(**BIRDS), folder / "birds", progress=False)
    (folder / "configs").symlink_to(PROJECT / "configs")
    (folder / "flickr").symlink_to(two_layouts.root)
    small = _arguments(
        {"data": {"init_args": _flickr(folder)}, "output": str(folder / "flickr_synthetic"), "workers": 0}
    )
    assert synth(["--config", str(PROJECT / "configs" / "synth" / "flickr30k.yaml"), *small]) == 0
    return folder


def _flickr(world: Path) -> dict[str, Any]:
    """Return the keys of Flickr30kDataModule that say where its files are."""
    places = {"image_root": "flickr30k_images", "karpathy": "dataset_flickr30k.json", "entities": "entities"}
    found = {key: str(world / "flickr" / name) for key, name in places.items()}
    return {**found, "unrelated": None, "cache_dir": str(world / "cache")}


def _small(path: Path, world: Path) -> dict[str, Any]:
    """Return what makes a run of the config one of a few seconds, and nothing else of it another."""
    given = _given(path)
    scenes = world / "scenes"
    places = {
        "BirdCaptionsDataModule": {
            "root": str(world / "bird_captions"),
            "birds": BIRDS,
            "synthetic": None,
        },
        "BirdScenesDataModule": {"root": str(world / "birds"), "birds": BIRDS},
        "WaterbirdsDataModule": {"root": str(world / "birds")},
        "Flickr30kDataModule": {**_flickr(world), "synthetic": str(world / "flickr_synthetic")},
        "ScenesDataModule": {"root": str(scenes), "scenes": {"train": 24, "val": 10, "test": 10, "resolution": 64}},
        "CocoDataModule": {
            "image_root": str(scenes / "images"),
            "karpathy": str(scenes / "annotations" / "dataset.json"),
            "instances": [str(scenes / "annotations" / "instances.json")],
        },
    }
    sizes: dict[str, Any] = {"batch_size": 8, "eval_batch_size": 16, "num_workers": 0}
    if not _has_groups(given):
        sizes |= {"synthetic": str(world / "synthetic"), "cache_dir": str(world / "cache")}
    if given["data"]["init_args"].get("eval_fold_size"):
        sizes["eval_fold_size"] = 5
    return {
        "runs": str(world / "runs"),
        "synthesis": None,
        "trainer": {
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_progress_bar": False,
            "max_epochs": 1,
            "limit_train_batches": 2,
            "log_every_n_steps": 1,
        },
        "model": {"init_args": SMALL[given["model"]["class_path"]]},
        "data": {"init_args": {**sizes, **places[given["data"]["class_path"]]}},
    }


def _given(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(path.read_text())
    return values


def _has_groups(given: dict[str, Any]) -> bool:
    """Say whether the data of a config has groups, and neither captions nor synthetic pairs."""
    return "sampling" in given["data"]["init_args"]


def _scores(given: dict[str, Any]) -> list[str]:
    """Return names of scores that a run of the config logs."""
    if _has_groups(given):
        return ["worst_group", "average", "adjusted_average", "group/landbird-land"]
    return ["i2t/R@5", "ODmAP@1"] if given["data"]["init_args"].get("synthetic") else ["i2t/R@5"]


def _arguments(values: dict[str, Any], prefix: str = "--") -> list[str]:
    """Return values as arguments of the command line, dicts below `init_args` whole."""
    found: list[str] = []
    for key, value in values.items():
        if isinstance(value, dict) and prefix.count(".") < 2:
            found += _arguments(value, f"{prefix}{key}.")
        else:
            found += [f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)]
    return found


def test_there_is_one_for_every_family_and_data_set() -> None:
    page = (PROJECT / "configs" / "README.md").read_text()
    names = {path.stem for path in CONFIGS}
    assert names >= {*TABLE, "demo"}
    for name in names:
        of_another_source = any(name.startswith(f"{one}_") for one in TABLE)
        assert f"`{name}.yaml`" in page or of_another_source, name


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_it_says_what_decides_the_run(path: Path) -> None:
    given = yaml.safe_load(path.read_text())
    assert given["name"] == path.stem
    assert given["trainer"]["max_epochs"] > 0
    assert {"optimizer", "lr", "lr_halving_epochs"} <= given["model"]["init_args"].keys()
    assert {"batch_size", "eval_batch_size"} <= given["data"]["init_args"].keys()
    assert any(f"--config configs/{path.name}" in command for command in _commands(path))


@pytest.mark.parametrize("name", TABLE)
def test_it_begins_with_the_commands_of_all_three_runs(name: str) -> None:
    path = PROJECT / "configs" / f"{name}.yaml"
    both, alone, none = _commands(path)
    assert [label in _head(path) for label in ("D + D'", "D alone", "zero-shot")] == [True] * 3
    assert both == f"train.py fit --config configs/{name}.yaml"
    assert alone == f"{both} --name {name}_control --data.init_args.control true"
    assert none == f"train.py test --config configs/{name}.yaml"


def test_the_runs_on_scenes_share_one_data_set() -> None:
    made = yaml.safe_load((PROJECT / "configs" / "synth" / "scenes.yaml").read_text())
    for path in [path for path in CONFIGS if path.stem.endswith("_scenes") or path.stem == "demo"]:
        given = yaml.safe_load(path.read_text())
        assert given["synthesis"] == "configs/synth/scenes.yaml"
        assert {key: given["data"]["init_args"][key] for key in ("root", "scenes")} == made["data"]["init_args"]
        assert given["data"]["init_args"]["synthetic"] == made["output"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "command"),
    [
        pytest.param(path, command, id=f"{path.stem} {number}")
        for path in CONFIGS
        for number, command in enumerate(_commands(path))
        if "DATE" not in command  # the checkpoint of a run
    ],
)
def test_its_commands_run(path: Path, command: str, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    verb, *words = shlex.split(command)[1:]
    small = _small(path, world)
    before = set((world / "runs").glob("*/*"))
    assert main([verb, *words, *_arguments(small)]) == 0
    (folder,) = set((world / "runs").glob("*/*")) - before
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["train/loss"]) for row in rows if row.get("train/loss")]
    assert len(losses) == (2 if verb == "fit" else 0)
    assert all(math.isfinite(loss) for loss in losses)
    scores = [float(rows[-1][f"{'val' if verb == 'fit' else verb}/{name}"]) for name in _scores(_given(path))]
    assert all(0 <= score <= 100 for score in scores)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["clip", "blip"])
def test_a_query_bank_goes_over_any_config(family: str, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    overlay = PROJECT / "configs" / "controls" / "querybank.yaml"
    (command,) = re.findall(r"train\.py test (.+?) --ckpt_path", " ".join(_head(overlay).split()))
    path = PROJECT / "configs" / f"{family}_scenes.yaml"
    before = set((world / "runs").glob("*/*"))
    words = shlex.split(command.replace("clip_scenes", path.stem))
    assert main(["test", *words, *_arguments(_small(path, world))]) == 0
    (folder,) = set((world / "runs").glob("*/*")) - before
    with (folder / "metrics.csv").open() as file:
        (scores,) = csv.DictReader(file)
    assert 0 <= float(scores["test/ODmAP@1"]) <= 100
    assert "test/reranked/ODmAP@1" not in scores


@pytest.mark.slow
def test_just_train_twice_trains_on_the_errors_that_predict_has_written(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world)
    path = PROJECT / "configs" / "spurious_birds.yaml"
    small = _arguments(_small(path, world))
    before = set((world / "runs").glob("*/*"))
    split = "--data.init_args.predict_split", "train"
    assert main(["predict", "--config", str(path), *split, *small]) == 0
    (folder,) = set((world / "runs").glob("*/*")) - before
    errors = {name: len(list(csv.DictReader((folder / f"{name}.csv").open()))) for name in ("predictions", "errors")}
    assert errors["predictions"] == BIRDS["train"]
    assert 0 < errors["errors"] < BIRDS["train"]
    assert not list(folder.glob("embeddings*"))
    again = "--data.init_args.errors", str(folder / "errors.csv"), "--data.init_args.error_weight", "5"
    control = "--config", "configs/controls/erm.yaml"
    assert main(["fit", "--config", str(path), *control, *again, *small]) == 0

"""Settings of studies, the rows they can have, and what decides a cell's result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from datamodules.errors import ConfigError, MissingPathError
from datamodules.sampling import MixedBatchSampler
from experiments.study.cells import Cell, cells_of
from experiments.study.rows import row, rows
from experiments.study.settings import SHIPPED, Settings, merged, read

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "dataset": "Scenes",
    "source": {
        "class_path": "datamodules.ScenesDataModule",
        "init_args": {"root": "$WORK/scenes", "scenes": {"rho": 1}},
    },
    "oracle": {"init_args": {"root": "$WORK/even", "scenes": {"rho": 0}}},
    "synthesis": {"pairs": {"train": ["train"]}, "queries": {"val": ["val"], "test": ["test"]}},
    "ratio": 0.4,
    "ratios": [0.1],
    "fills": {"zero": {"class_path": "ZeroFill"}},
    "margin": 0.5,
    "overlay": {"trainer": {"max_epochs": 2}},
    "models": {
        "clip": {"label": "CLIP", "config": "clip.yaml", "overlay": {"trainer": {"max_epochs": 3}}, "zero_shot": True},
        "blip": {"label": "BLIP", "config": "clip.yaml"},
    },
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("clip.yaml").write_text("model: {class_path: CLIP}\n")
    return tmp_path


def settings(place: Path, **changes: Any) -> Settings:
    path = place / "mine.yaml"
    path.write_text(yaml.safe_dump({**SETTINGS, **changes}))
    return read(path)


def cell(place: Path, name: str, seed: int = 0, work: str = "work", **changes: Any) -> Cell:
    held = settings(place, **changes)
    return Cell(held, "clip", row(held, name), seed, Path(work))


def data_of(overlay: dict[str, Any] | None) -> dict[str, Any]:
    assert overlay is not None
    arguments: dict[str, Any] = overlay["data"]["init_args"]
    return arguments


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_settings_name_configs_and_classes_that_are_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    held = read(path)
    assert list(held.models) == ["vsepp", "clip", "blip"]
    for model in held.models:
        for name in rows(held):
            made = Cell(held, model, row(held, name), 0, Path("work"))
            own = yaml.safe_load(made.config)["data"]
            assert own["class_path"] == made.test["data"]["class_path"].removeprefix("datamodules.")
            assert data_of(made.test)["synthetic"] == "work/synthetic/standard"
    assert {"control", "synthetic"} < rows(held).keys()


def test_every_row_is_tested_on_the_same_queries_and_gallery(place: Path) -> None:
    tests = {name: data_of(cell(place, name).test) for name in rows(settings(place))}
    assert len({json.dumps(arguments) for arguments in tests.values()}) == 1
    assert tests["oracle"]["scenes"] == {"rho": 1}


def test_rows_train_on_what_they_say(place: Path) -> None:
    assert cell(place, "zero_shot").fit is None
    assert data_of(cell(place, "control").fit)["control"] is True
    synthetic = data_of(cell(place, "synthetic", seed=7).fit)
    assert (synthetic["ratio"], synthetic["seed"], synthetic["synthetic"]) == (0.4, 7, "work/synthetic/standard")
    assert (synthetic["control"], synthetic["mixing"], synthetic["pair_with_source"]) == (False, "concat", False)
    shares = data_of(cell(place, "per_batch").fit)
    assert (shares["mixing"], shares["synthetic_per_batch"]) == ("per_batch", None)
    oracle = data_of(cell(place, "oracle").fit)
    assert (oracle["control"], oracle["root"], oracle["scenes"]) == (True, "work/even", {"rho": 0})
    assert oracle["synthetic"] == "work/synthetic/oracle"
    margin = cell(place, "paired_margin").fit
    assert data_of(margin)["pair_with_source"] is True
    assert margin is not None
    assert margin["model"]["init_args"]["counterfactual_weight"] == 0.5
    ratio = data_of(cell(place, "ratio_0.1").fit)
    assert ratio == {**data_of(cell(place, "synthetic").fit), "trained_ratio": 0.1}  # so its steps, too
    querybank = cell(place, "querybank_control")
    assert querybank.fit is None
    assert querybank.parent == cell(place, "control")


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_fixed_share_takes_the_steps_of_its_control(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    held = read(path)
    for model in held.models:
        sampled = []
        for name in ("control", "per_batch"):
            made = Cell(held, model, row(held, name), 0, Path("work"))
            data = data_of(merged(yaml.safe_load(made.config), made.fit))
            given = {"batch_size": data["batch_size"], "mode": data["mixing"], "control": data["control"]}
            share = data["synthetic_per_batch"]
            sampled.append(len(MixedBatchSampler(100_000, 40_000, synthetic_per_batch=share, **given)))
        whole_pairs = 0.5 / (data["batch_size"] * 100_000 / 140_000)
        assert sampled[1] == pytest.approx(sampled[0], rel=whole_pairs + 0.001)


def test_the_papers_mixing_holds_whatever_a_config_says(place: Path) -> None:
    (place / "clip.yaml").write_text("data: {init_args: {pair_with_source: true, control: true, mixing: per_batch}}\n")
    made = cell(place, "synthetic")
    data = data_of(merged(yaml.safe_load(made.config), made.fit))
    assert (data["pair_with_source"], data["control"], data["mixing"]) == (False, False, "concat")
    own = {"data": {"init_args": {"pair_with_source": True}}}
    assert data_of(cell(place, "synthetic", overlay=own).fit)["pair_with_source"] is True


def test_overlays_follow_each_other(place: Path) -> None:
    held = settings(place)
    for model, epochs in (("clip", 3), ("blip", 2)):
        fit = Cell(held, model, row(held, "synthetic"), 0, Path("work")).fit
        assert fit is not None
        assert fit["trainer"] == {"logger": False, "max_epochs": epochs}


def test_a_set_of_its_own_has_pairs_alone_and_its_change(place: Path) -> None:
    made = cell(place, "fill_zero").syntheses
    assert list(made) == ["standard", "fill_zero"]
    assert made["fill_zero"]["fill"] == {"class_path": "ZeroFill"}
    assert made["fill_zero"]["queries"] == {"val": ["val"]}
    assert made["standard"]["queries"] == {"val": ["val"], "test": ["test"]}
    assert "fill" not in made["standard"]
    assert cell(place, "oracle").syntheses["oracle"]["data"]["init_args"]["root"] == "work/even"


def test_the_hash_follows_what_decides_the_result_alone(place: Path) -> None:
    first = cell(place, "synthetic").hash
    for work in ("elsewhere", ".", "train", "größe/x"):
        assert cell(place, "synthetic", work=work).hash == first
    assert cell(place, "synthetic", margin=0.7).hash == first
    changes: dict[str, Any] = {
        "ratio": 0.2,
        "overlay": {"trainer": {"max_steps": 9}},
        "synthesis": {"pairs": {"train": ["val"]}},
    }
    others = [cell(place, "synthetic", **{key: value}).hash for key, value in changes.items()]
    bank = cell(place, "querybank_control").hash
    (place / "clip.yaml").write_text("model: {class_path: CLIP}  # as before\n")
    assert cell(place, "synthetic").hash == first
    (place / "clip.yaml").write_text("model: {class_path: SigLIP}\n")
    others += [cell(place, "synthetic").hash, cell(place, "synthetic", seed=1).hash, cell(place, "control").hash]
    assert len({first, *others}) == 7
    assert cell(place, "querybank_control").hash != bank  # its checkpoint would be another


def test_a_config_that_changes_while_a_study_runs_changes_none_of_its_cells(place: Path) -> None:
    made = cell(place, "querybank_control")
    first = made.hash
    (place / "clip.yaml").write_text("model: {class_path: SigLIP}\n")
    assert (made.hash, made.config) == (first, "model: {class_path: CLIP}\n")
    assert made.parent is not None
    assert made.parent.spec["config"] == {"model": {"class_path": "CLIP"}}


@pytest.mark.parametrize("key", ["model", "data", "trainer"])
def test_a_config_that_names_a_file_is_refused_since_that_may_change(place: Path, key: str) -> None:
    (place / "clip.yaml").write_text(f"{key}: parts/{key}.yaml\n")
    with pytest.raises(ConfigError, match=rf"clip\.yaml: `{key}` is the file parts/{key}\.yaml: write what it holds"):
        _ = cell(place, "synthetic").hash


def test_dates_and_numbers_as_keys_have_a_hash(place: Path) -> None:
    hashes = []
    for day in ("2025-01-31", "2025-02-01"):
        (place / "clip.yaml").write_text(f"name: {day}\nmodel: {{class_path: CLIP, init_args: {{1: a, b: c}}}}\n")
        hashes.append(cell(place, "synthetic").hash)
    assert hashes[0] != hashes[1]


def test_a_record_of_other_settings_is_refused(place: Path) -> None:
    made = cell(place, "control")
    assert made.read(place) is None
    folder = made.folder(place)
    folder.mkdir(parents=True)
    (folder / "cell.json").write_text(json.dumps({"hash": made.hash, "spec": made.spec, "scores": {}}))
    assert made.read(place) is not None
    with pytest.raises(ConfigError, match=r"clip/control/seed0 was made with other settings \(`fit` differs\)"):
        cell(place, "control", ratio=0.1).read(place)
    (folder / "cell.json").write_text("{")
    with pytest.raises(ConfigError, match="is damaged: delete"):
        made.read(place)


def test_zero_shot_is_there_once_where_there_are_weights(place: Path) -> None:
    made = cells_of(settings(place), ["clip", "blip"], ["zero_shot", "control"], 2, Path("work"))
    names = ["clip/zero_shot/seed0", "clip/control/seed0", "blip/control/seed0", "clip/control/seed1"]
    assert [one.name for one in made] == [*names, "blip/control/seed1"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ratoi": 0.4}, "has no key `ratoi`, did you mean ratio"),
        ({"models": {"clip": {"label": "CLIP"}}}, "`models.clip` lacks the key `config`"),
        (
            {"models": {"clip": "clip.yaml"}},
            "`models` is {'clip': 'clip.yaml'}, but must be a mapping of mappings with",
        ),
        ({"models": {"clip": {"label": "CLIP", "config": 5}}}, "`models.clip`: `config` is 5, but must be a path"),
        ({"models": None}, "`models` is None, but must be a mapping of mappings"),
        ({"ratio": "4e-1"}, "`ratio` is '4e-1', but must be a number above 0, as 0.4"),
        ({"ratios": 0.4}, r"`ratios` is 0\.4, but must be a list of numbers"),
        ({"margin": True}, "`margin` is True, but must be a number"),
        ({"ratio": -1}, "`ratio` is -1, but must be a number above 0"),
        ({"ratios": [0.1, 0]}, r"`ratios` is \[0\.1, 0\], but must be a list of numbers above 0"),
        ({"fills": {"a": "TeleaFill"}}, "`fills` is {'a': 'TeleaFill'}, but must be a mapping of mappings"),
        ({"models": {}}, "`models` is empty"),
        ({"models": {7: {"label": "CLIP", "config": "clip.yaml"}}}, "`models` has the name 7, but folders are called"),
        ({"fills": {"../a": {}}}, r"`fills` has the name '\.\./a', but folders are called by it"),
        ({"synthesis": {"queries": ["test"]}}, r"`synthesis\.queries` is \['test'\], but must be a mapping"),
        ({"synthesis": {"queries": None}}, r"`synthesis\.queries` is None, but must be a mapping"),
        ({"dilations": [1.5]}, r"`dilations` is \[1\.5\], but must be a list of whole numbers"),
        ({"fills": None}, "`fills` is None, but must be a mapping"),
        ({"captions": {"prompts": "PromptCaptions"}}, "but must be a mapping of mappings"),
        ({"models": {"clip": {"label": "CLIP", "config": "no.yaml"}}}, r"`models.clip.config` is no\.yaml"),
    ],
)
def test_slips_in_settings_are_told(place: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises((ConfigError, MissingPathError), match=said):
        settings(place, **change)


def test_a_models_config_that_is_no_yaml_is_told(place: Path) -> None:
    made = cell(place, "control")
    (place / "clip.yaml").write_text("model: {class_path: CLIP\n")
    with pytest.raises(ConfigError, match=r"^clip\.yaml is no yaml \("):
        _ = made.hash


def test_slips_in_names_are_told(place: Path) -> None:
    with pytest.raises(ConfigError, match="`--models` has 'clpi', did you mean clip"):
        settings(place).model("clpi")
    with pytest.raises(ConfigError, match="has no row 'controll', did you mean control"):
        row(settings(place), "controll")
    with pytest.raises(MissingPathError, match=r"which is no file; shipped are .*scenes-small"):
        read(place / "none.yaml")
    (place / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="is no mapping"):
        read(place / "list.yaml")

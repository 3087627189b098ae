"""The command `maps`, from its arguments to its files, with models of which it is known where they look."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.errors import AnnotationError, ConfigError, MissingPathError, UnreadableImageError
from experiments import maps
from experiments.__main__ import EXPERIMENTS
from experiments.__main__ import main as run_experiment
from experiments.drawing import Card, Panel, sheet
from experiments.subjects import Subject


@pytest.fixture
def run(birds: Path, load_colours: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setattr(maps, "load_model", load_colours)

    def start(*options: str) -> Path:
        fixed = ["--data", str(birds), "--prompt", "a {}", "--to", str(tmp_path / "maps")]
        assert maps.main([*fixed, *options]) == 0
        return tmp_path / "maps"

    return start


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_model_that_looks_at_birds_alone_has_more_mass_inside(run: Any, capsys: Any) -> None:
    folder = run("--ckpt", "before", "--ckpt", "after", "--shown", "5")
    scores = {(row["checkpoint"], row["of"]): row for row in table(folder / "scores.csv")}
    groups = [f"{bird}-{place}" for bird in ("landbird", "waterbird") for place in ("land", "water")]
    assert list(scores) == [(model, of) for model in ("before", "after") for of in ("all", *groups)]
    before, after = (float(scores[model, "all"]["mass_inside"]) for model in ("before", "after"))
    assert before < after - 15
    assert after > 80
    assert float(scores["before", "all"]["chance"]) == pytest.approx(100 * 36 / 256)
    assert (
        float(scores["after", "all"]["mass_inside_low"]) <= after <= float(scores["after", "all"]["mass_inside_high"])
    )
    assert [scores["after", of]["maps"] for of in ("all", *groups)] == ["24", "6", "6", "6", "6"]
    with_ground, against_ground = (float(scores["before", group]["mass_inside"]) for group in groups[:2])
    assert with_ground < against_ground  # land speaks for landbirds, water does not
    each = table(folder / "images.csv")
    assert len(each) == 48
    assert np.mean([100 * float(row["mass_inside"]) for row in each[24:]]) == pytest.approx(after)
    printed = capsys.readouterr().out
    assert "Grad-CAM at features" in printed
    assert "Mass inside, after against before: +" in printed
    page = (folder / "maps.html").read_text()
    assert page.count("<article>") == 5
    assert page.count("<figure>") == 15  # the image, and a map of each model
    assert Image.open(folder / "maps.png").width > 3 * 224


def test_groups_take_turns_and_the_seed_decides(run: Any) -> None:
    first = table(run("--ckpt", "after", "--images", "8") / "images.csv")
    assert sorted(row["of"] for row in first) == sorted([row["of"] for row in first[:4]] * 2)
    assert len({row["of"] for row in first}) == 4
    assert table(run("--ckpt", "after", "--images", "8") / "images.csv") == first
    assert table(run("--ckpt", "after", "--images", "8", "--seed", "1") / "images.csv") != first
    one = table(run("--ckpt", "after", "--classes", "waterbird") / "images.csv")
    assert {row["text"] for row in one} == {"waterbird"}


def test_without_masks_maps_are_drawn_and_not_scored(run: Any, birds: Path, tmp_path: Path, capsys: Any) -> None:
    folder = run("--ckpt", "after", "--ckpt", "before", "--data.init_args.masks", "null", "--images", "4")
    rows = table(folder / "scores.csv")
    assert {row["mass_inside"] for row in rows} == {"nan"}
    assert {row["maps"] for row in rows} == {"0"}
    assert "nan %" not in (folder / "maps.html").read_text()
    printed = capsys.readouterr().out
    assert "too few maps" in printed
    assert "the data names no masks (key `masks`)" in printed


def test_masks_of_0_and_1_are_masks_too(run: Any, tmp_path: Path) -> None:
    expected = table(run("--ckpt", "after") / "scores.csv")
    for path in (tmp_path / "masks").iterdir():
        Image.fromarray(np.asarray(Image.open(path)) // 255).save(path)
    assert table(run("--ckpt", "after") / "scores.csv") == expected


def test_a_class_that_is_called_all_is_counted_once() -> None:
    findings = maps.Findings("before")
    subjects = [Subject(row, row, "all", "a photo of all") for row in range(3)]
    region = torch.zeros(3, 4, 4, dtype=torch.bool)
    region[:, :2] = True
    maps._note(findings, subjects, torch.ones(3, 4, 4), region)
    assert [(row.of, row.maps, row.mass_inside) for row in maps._rows(findings, subjects)] == [("all", 3, 50.0)] * 2


def test_masks_that_do_not_fit_or_are_missing_are_named(run: Any, tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "masks" / "3.png")
    with pytest.raises(AnnotationError, match=r"3\.png is \(4, 4\) pixels"):
        run("--ckpt", "after")
    (tmp_path / "masks" / "3.png").unlink()
    with pytest.raises(UnreadableImageError, match=r"3\.png"):
        run("--ckpt", "after")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--classes", "landbirt"], "did you mean landbird"),
        (["--split", "dev"], "the splits of the data are train, val, test"),
        (["--captions"], "the images of `--data` have none"),
        (["--method", "rollout"], "no self-attention"),
        (["--layer", "feature"], "did you mean features"),
        (["--to", "/dev/null/maps"], "`--to` /dev/null/maps cannot be written"),
        (["--ckpt", "after"], "`--ckpt` is given twice for what tables call after"),
    ],
)
def test_mistakes_are_told_in_a_sentence(run: Any, options: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        run("--ckpt", "after", *options)


def test_a_place_that_cannot_be_written_is_told_before_the_work(run: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(maps, "examine", lambda *_: pytest.fail("the work began"))
    with pytest.raises(ConfigError, match="cannot be written"):
        run("--ckpt", "after", "--to", "/dev/null/maps")


def test_a_model_that_diverged_is_told(run: Any, load_colours: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_colours("after")
    monkeypatch.setattr(maps, "load_model", lambda _: model)
    broken = model.encode_images
    monkeypatch.setattr(model, "encode_images", lambda pixels: broken(pixels) * torch.nan)
    with pytest.raises(ConfigError, match="Colours makes of images what is not finite"):
        run("--ckpt", "after")


def test_a_sheet_holds_no_more_than_100_images() -> None:
    panel = Panel(np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.float32), np.zeros((2, 2), bool), "")
    few, many = (sheet([Card("", [panel])] * count) for count in (100, 120))
    assert few.size == many.size


@pytest.mark.parametrize(
    "words", [["--ckpt"], ["--ckpt", "after", "--image", "3"], ["--ckpt", "after", "--images", "0"]]
)
def test_options_that_do_not_exist_end_with_status_2(run: Any, words: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        run(*words)
    assert exit_info.value.code == 2


def test_data_and_checkpoints_that_are_not_there_are_named(tmp_path: Path, birds: Path) -> None:
    with pytest.raises(MissingPathError, match=r"none\.yaml is to be read for its `data`"):
        maps.main(["--ckpt", "x.ckpt", "--data", str(tmp_path / "none.yaml")])
    with pytest.raises(MissingPathError, match=r"`--ckpt` is x\.ckpt"):
        maps.main(["--ckpt", "x.ckpt", "--data", str(birds)])
    with pytest.raises(ConfigError, match="has no section `model`"):
        maps.main(["--ckpt", str(birds), "--data", str(birds)])


def test_experiments_are_listed_and_run_by_name(capsys: Any) -> None:
    assert run_experiment([]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in EXPERIMENTS)
    with pytest.raises(ConfigError, match=r"no experiment `map`, did you mean maps\?$"):
        run_experiment(["map"])
    with pytest.raises(SystemExit) as exit_info:
        run_experiment(["maps", "--help"])
    assert exit_info.value.code == 0


@pytest.mark.slow
def test_scenes_and_a_clip_of_open_clip(tmp_path: Path, capsys: Any) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(f"""
model:
  class_path: CLIP
  init_args:
    model_config:
      embed_dim: 8
      vision_cfg: {{image_size: 32, patch_size: 8, width: 16, head_width: 8, layers: 2}}
      text_cfg: {{context_length: 24, width: 16, heads: 2, layers: 1}}
data:
  class_path: ScenesDataModule
  init_args:
    root: {tmp_path}/scenes
    scenes: {{train: 4, val: 4, test: 30, resolution: 64}}
    synthetic: {tmp_path}/was_never_made
    num_workers: 0
""")
    fixed = ["maps", "--ckpt", str(config), "--data", str(config), "--images", "12", "--to", str(tmp_path / "maps")]
    for options in ([], ["--captions"], ["--method", "rollout"], ["--layer", "model.visual.ln_pre"]):
        assert run_experiment([*fixed, *options]) == 0
        scores = table(tmp_path / "maps" / "scores.csv")
        assert scores[0]["maps"] == "12"
        assert 0 < float(scores[0]["mass_inside"]) < 100
    assert "Grad-CAM at model.visual.transformer.resblocks.1.ln_1" in capsys.readouterr().out
    words = ["spurious_words", "--ckpt", str(config), "--data", str(config), "--resamples", "50"]
    assert run_experiment([*words, "--to", str(tmp_path / "words.csv")]) == 0
    rows = table(tmp_path / "words.csv")
    assert all(row["name"] != row["word"] for row in rows)
    assert len({row["name"] for row in rows}) > 5

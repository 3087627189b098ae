"""The door, as users use it: every verb, what it leaves on disk, resuming, a backbone of one's own, and slips."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import wandb
import yaml
from torch import Tensor

from lightning_modules import CLIP, RetrievalModule
from metrics import per_query
from metrics.__main__ import main as compare_files
from metrics.statistics import bootstrap
from train import main

PROJECT = Path(__file__).parents[1]


def readme_block(marker: str) -> str:
    """The code block of the README that follows a marker."""
    text = (PROJECT / "README.md").read_text().split(f"<!-- {marker} -->\n```", 1)[1]
    return text.split("\n", 1)[1].split("\n```", 1)[0]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the configs of a small run over Scenes; the first `fit` draws and synthesises."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "my_backbone.py").write_text(readme_block("backbone"))
    sys.path.insert(0, str(folder))
    scenes = {"train": 24, "val": 11, "test": 12, "resolution": 64}  # 11: no two processes have equal shares
    source = {
        "class_path": "ScenesDataModule",
        "init_args": {"root": str(folder / "scenes"), "scenes": scenes, "cache_dir": str(folder / "cache")},
    }
    synthesis = {
        "data": source | {"class_path": "datamodules.ScenesDataModule"},
        "output": str(folder / "synthetic"),
        "pairs": {"train": ["train"]},
        "queries": {"val": ["val"], "test": ["test"]},
        "fill": {"class_path": "MeanFill"},
    }
    run = {
        "name": "tiny",
        "runs": str(folder / "runs"),
        "synthesis": str(folder / "synth.yaml"),
        "trainer": {
            "max_epochs": 2,
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "log_every_n_steps": 1,
            "logger": {"class_path": "lightning.pytorch.loggers.WandbLogger", "init_args": {"project": "tests"}},
        },
        "model": {"class_path": "my_backbone.BagOfColours"},
        "data": {
            "class_path": "ScenesDataModule",
            "init_args": source["init_args"]
            | {"synthetic": str(folder / "synthetic"), "batch_size": 16, "eval_batch_size": 32, "num_workers": 0},
        },
    }
    clip = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "timm_model_name": "test_byobnet", "timm_pool": "avg", "timm_proj": "linear"},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    arguments = {"model_config": clip, "lr": 1e-3, "lr_halving_epochs": 1, "optimizer_args": {"betas": [0.9, 0.98]}}
    (folder / "clip.yaml").write_text(yaml.safe_dump({"model": {"class_path": "CLIP", "init_args": arguments}}))
    (folder / "synth.yaml").write_text(yaml.safe_dump(synthesis))
    (folder / "run.yaml").write_text(yaml.safe_dump(run))
    del run["model"]
    (folder / "no_model.yaml").write_text(yaml.safe_dump(run))
    return folder


def _run(world: Path, verb: str, *arguments: str, config: str = "run.yaml") -> tuple[int, Path]:
    """Run a verb and return its status and the folder that it made."""
    before = set((world / "runs" / "tiny").glob("*"))
    status = main([verb, "--config", str(world / config), *arguments])
    new = sorted(set((world / "runs" / "tiny").glob("*")) - before)
    assert len(new) <= 1
    return status, new[0] if new else world


@pytest.fixture(scope="module")
def fitted(world: Path) -> tuple[Path, str]:
    """The folder of a finished `fit`, and what it printed."""
    with pytest.MonkeyPatch.context() as patch:
        page = io.StringIO()
        patch.setattr(sys, "stdout", page)
        status, folder = _run(world, "fit")
    assert status == 0
    wandb.finish()  # as the end of a process does
    return folder, page.getvalue()


def _columns(folder: Path) -> dict[str, list[float]]:
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {key: [float(row[key]) for row in rows if row[key]] for key in rows[0]}


def test_fit_leaves_a_record(fitted: tuple[Path, str], world: Path) -> None:
    folder, _ = fitted
    assert yaml.safe_load((folder / "config.yaml").read_text())["trainer"]["max_epochs"] == 2
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    (run,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    assert all(key in run.read_bytes() for key in (b"train/loss", b"val/rsum", b"val/ODmAP@1"))
    assert (world / "synthetic" / "protocol.json").is_file()


def test_fit_logs_stable_keys(fitted: tuple[Path, str]) -> None:
    columns = _columns(fitted[0])
    for key in ("train/loss", "val/rsum", "val/i2t/R@1", "val/t2i/R@10", "val/ODmAP@1", "val/ODmAP@10"):
        assert columns[key], key
    for key in ("val/random/ODmAP@1", "val/own_captions/ODmAP@5", "val/ODmAP/queries", "val/ODmAP/gallery"):
        assert columns[key], key
    for key in ("val/hallucinated@5", "val/hubs/distinct@1", "val/hubs/skewness@10", "val/t2i/median_rank"):
        assert columns[key], key
    assert not any(key.endswith(("/low", "/high")) for key in columns)
    assert columns["val/ODmAP/gallery"] == [55.0, 55.0]
    assert columns["train/loss"][-1] < columns["train/loss"][0]


def test_the_checkpoints_are_those_of_the_last_and_of_the_best_epoch(fitted: tuple[Path, str]) -> None:
    sums = _columns(fitted[0])["val/rsum"]
    epochs = {path.stem: torch.load(path, weights_only=True)["epoch"] for path in fitted[0].glob("checkpoints/*")}
    assert epochs == {"last": 1, "best": sums.index(max(sums))}


def test_fit_closes_with_a_table(fitted: tuple[Path, str]) -> None:
    folder, printed = fitted
    for words in ("val scores in per cent", "random ranking", "own captions", "ODmAP@1/5/10"):
        assert words in printed
    columns = _columns(folder)
    last = next(line for line in printed.splitlines() if "epoch 1 (last" in line)
    numbers = [float(number) for number in re.findall(r"\d+\.\d", last)]
    keys = [f"val/{name}@{k}" for name in ("i2t/R", "t2i/R", "ODmAP", "hallucinated") for k in (1, 5, 10)]
    assert numbers == [pytest.approx(columns[key][-1], abs=0.051) for key in [*keys, "val/rsum"]]


@pytest.fixture(scope="module")
def tested(world: Path, fitted: tuple[Path, str]) -> tuple[Path, Path, str]:
    """The folders of a finished `test` and of its results per query, and what it printed."""
    checkpoint = fitted[0] / "checkpoints" / "best.ckpt"
    with pytest.MonkeyPatch.context() as patch:
        page = io.StringIO()
        patch.setattr(sys, "stdout", page)
        status, folder = _run(world, "test", "--ckpt_path", str(checkpoint))
    assert status == 0
    wandb.finish()
    return folder, checkpoint.parent / f"best-test-{folder.name}", page.getvalue()


def test_test_logs_retrieved_captions(tested: tuple[Path, Path, str]) -> None:
    folder, beside, _ = tested
    (path,) = folder.glob("wandb/offline-run-*/files/media/table/test/retrieved_*.table.json")
    found = json.loads(path.read_text())
    assert [row[0] for row in found["data"]] == per_query.read(beside / "odmap.parquet").ids  # few enough for all
    assert all(isinstance(row[found["columns"].index("caption 5")], str) for row in found["data"])
    assert all(row[1] == row[2] == "Image" for row in found["data"])  # a table's artifact has them


def test_test_searches_the_captions_of_all_splits(tested: tuple[Path, Path, str]) -> None:
    folder, _, printed = tested
    columns = _columns(folder)
    assert columns["test/ODmAP/gallery"] == [(24 + 11 + 12) * 5]
    assert 0 <= columns["test/ODmAP@1"][0] <= 100
    assert printed.count("test scores in per cent") == 1
    assert "95 % from" in printed
    assert "DataLoader" not in printed


def test_test_saves_the_results_of_every_query_beside_the_checkpoint(tested: tuple[Path, Path, str]) -> None:
    folder, beside, _ = tested
    columns = _columns(folder)
    for file, prefix in (("odmap", ""), ("i2t", "i2t/"), ("t2i", "t2i/")):
        found = per_query.read(beside / f"{file}.parquet")
        interval = bootstrap(found.values(found.measures), found.groups)
        for name, mean, low in zip(found.measures, interval.mean, interval.low, strict=True):
            assert columns[f"test/{prefix}{name}"][0] == pytest.approx(mean, abs=1e-3), name
            assert columns[f"test/{prefix}{name}/low"][0] == pytest.approx(low, abs=1e-3), name


def test_odmap_is_broken_down_by_class(tested: tuple[Path, Path, str]) -> None:
    _, beside, _ = tested
    odmap = per_query.read(beside / "odmap.parquet")
    assert odmap.about["gallery"] == (24 + 11 + 12) * 5
    assert all(removed and not set(removed) & set(kept) for removed, kept in _pairs(odmap))
    with (beside / "removed_classes.csv").open() as file:
        counts = {row["removed"]: int(row["queries"]) for row in csv.DictReader(file)}
    assert counts == Counter(name for removed, _ in _pairs(odmap) for name in removed)
    with (beside / "class_pairs_matrix.csv").open() as file:
        matrix = list(csv.reader(file))
    assert len(matrix) == len(matrix[0]) == 81
    filled = {(row[0], matrix[0][place]) for row in matrix[1:] for place in range(1, 81) if row[place]}
    assert filled == {(one, other) for removed, kept in _pairs(odmap) for one in removed for other in kept}


def test_two_models_are_compared_query_by_query(world: Path, fitted: tuple[Path, str], tested, capsys) -> None:
    _, folder = _run(world, "test", "--ckpt_path", _last(fitted[0]))
    beside = fitted[0] / "checkpoints" / f"last-test-{folder.name}"
    capsys.readouterr()
    assert compare_files(["compare", str(tested[1]), str(beside), "--csv", str(world / "compared.csv")]) == 0
    with (world / "compared.csv").open() as file:
        rows = {f"{row['file']}/{row['measure']}": row for row in csv.DictReader(file)}
    for key, name in (("odmap/ODmAP@1", "ODmAP@1"), ("t2i/R@10", "t2i/R@10")):
        expected = _columns(folder)[f"test/{name}"][0] - _columns(tested[0])[f"test/{name}"][0]
        assert float(rows[key]["difference"]) == pytest.approx(expected, abs=1e-3)


def _pairs(found: per_query.PerQuery) -> list[tuple[list[str], list[str]]]:
    """Return the removed and the kept classes of every query."""
    return list(zip(found.table["removed"].to_pylist(), found.table["kept"].to_pylist(), strict=True))


@pytest.mark.slow
def test_folds_and_extended_positives_are_scored(world: Path, fitted: tuple[Path, str]) -> None:
    split = [
        image
        for image in json.loads((world / "scenes" / "annotations" / "dataset.json").read_text())["images"]
        if image["split"] == "test"
    ]
    i2t = {image["cocoid"]: image["sentids"] for image in split}
    t2i = {sentence: [image["cocoid"]] for image in split for sentence in image["sentids"]}
    (world / "own_image_to_caption.json").write_text(json.dumps(i2t))
    (world / "own_caption_to_image.json").write_text(json.dumps(t2i))
    given = (
        "--data.init_args.eval_fold_size",
        "5",
        "--data.init_args.positives",
        json.dumps({"own": str(world / "own")}),
    )
    columns = _columns(_run(world, "test", "--ckpt_path", _last(fitted[0]), *given)[1])
    for key in ("i2t/R@1", "i2t/R@5", "t2i/R@10"):
        assert columns[f"test/own/{key}"] == pytest.approx(columns[f"test/{key}"], abs=1e-4)
        assert columns[f"test/folds/{key}"][0] >= columns[f"test/{key}"][0] * 0.5
    assert 0 < columns["test/own/i2t/mAP@R"][0] < 100
    with pytest.warns(UserWarning, match="No scores `own/...`: None of the 12 queries"):
        status, folder = _run(world, "validate", "--ckpt_path", _last(fitted[0]), *given)
    assert status == 0
    assert not any("/own/" in key for key in _columns(folder))


def test_validate_repeats_the_score_of_the_last_epoch(world: Path, fitted: tuple[Path, str]) -> None:
    status, folder = _run(world, "validate", "--ckpt_path", str(fitted[0] / "checkpoints" / "last.ckpt"))
    assert status == 0
    for key in ("val/rsum", "val/ODmAP@5"):
        assert _columns(folder)[key][-1] == pytest.approx(_columns(fitted[0])[key][-1], abs=1e-4)


def test_predict_saves_the_embeddings_of_images_and_captions(world: Path, fitted: tuple[Path, str]) -> None:
    status, folder = _run(world, "predict", "--ckpt_path", str(fitted[0] / "checkpoints" / "last.ckpt"))
    assert status == 0
    rows = torch.load(folder / "embeddings-0.pt", weights_only=True)
    assert rows["embeddings"].shape == (12 + (24 + 11 + 12) * 5, 32)
    assert (rows["caption_ids"] == -1).sum() == 12
    assert len(rows["image_ids"].unique()) == 24 + 11 + 12


@pytest.fixture(scope="module")
def clip(world: Path, fitted: tuple[Path, str]) -> tuple[str, ...]:
    """What turns the runs of this world into runs of a small CLIP with BatchNorm."""
    return "--config", str(world / "clip.yaml")


def _last(folder: Path) -> str:
    return str(folder / "checkpoints" / "last.ckpt")


def _weights(folder: Path) -> dict[str, Tensor]:
    return torch.load(_last(folder), weights_only=True)["state_dict"]


@pytest.mark.slow
def test_same_seed_same_numbers_and_resuming_changes_nothing(world: Path, clip: tuple[str, ...]) -> None:
    _, whole = _run(world, "fit", *clip)
    _, first = _run(world, "fit", *clip, "--trainer.max_epochs", "1")
    status, resumed = _run(world, "fit", *clip, "--ckpt_path", _last(first))
    assert status == 0
    expected, found = _columns(whole), _columns(resumed)
    assert found["val/rsum"] == expected["val/rsum"][1:]
    assert found["train/loss"] == expected["train/loss"][len(expected["train/loss"]) // 2 :]
    final = _weights(whole)
    assert all(torch.equal(tensor, final[key]) for key, tensor in _weights(resumed).items())
    assert any(not torch.equal(tensor, final[key]) for key, tensor in _weights(first).items())


@pytest.mark.slow
def test_bf16_trains_and_its_checkpoint_is_scored_without_the_config_of_the_model(
    world: Path, clip: tuple[str, ...]
) -> None:
    short = ("--trainer.precision", "bf16-mixed", "--trainer.limit_train_batches", "3")
    frozen = ("--model.init_args.freeze", '["model.visual.trunk.stem.*"]', "--model.init_args.micro_batch_size", "6")
    status, folder = _run(world, "fit", *clip, *short, *frozen)
    assert status == 0
    assert len(_columns(folder)["train/loss"]) == 6
    assert {tensor.dtype for key, tensor in _weights(folder).items() if key.endswith("weight")} == {torch.float32}
    trained = torch.load(_last(folder), weights_only=True)
    assert trained["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(1e-3 / 4)
    scores = []
    for config in ("run.yaml", "no_model.yaml"):  # another model, and none
        status, tested = _run(world, "test", "--ckpt_path", _last(folder), config=config)
        assert status == 0
        scores.append(_columns(tested)["test/rsum"])
    assert scores[0] == scores[1] != []
    rebuilt = RetrievalModule.load_from_checkpoint(_last(folder))
    assert isinstance(rebuilt, CLIP)
    assert (rebuilt.freeze_patterns, rebuilt.micro_batch_size) == (("model.visual.trunk.stem.*",), 6)


def _run_pair(world: Path, verb: str, *arguments: str) -> Path:
    """Run a verb in two processes and return the folder that it made."""
    command = [sys.executable, str(PROJECT / "train.py"), verb, "--config", str(world / "run.yaml"), *arguments]
    command += ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--name", f"pair-{verb}"]
    environment = {**os.environ, "PYTHONPATH": str(world), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=world, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Run folder: ") == 1
    assert "warning" not in done.stderr.lower()
    (folder,) = (world / "runs" / f"pair-{verb}").iterdir()
    return folder


@pytest.mark.slow
@pytest.mark.ddp
def test_two_processes_train_and_score_as_one(world: Path, clip: tuple[str, ...]) -> None:
    folder = _run_pair(world, "fit", *clip, "--trainer.max_epochs", "1")
    status, alone = _run(world, "validate", *clip, "--ckpt_path", _last(folder))
    pair = _run_pair(world, "validate", *clip, "--ckpt_path", _last(folder))
    assert status == 0
    expected, trained, scored = _columns(alone), _columns(folder), _columns(pair)
    scores = [key for key in expected if key.startswith("val/")]
    assert len(scores) >= 40
    for key in scores:
        assert scored[key] == pytest.approx(expected[key], abs=1e-3), key
        assert key.endswith(("/low", "/high")) or trained[key] == pytest.approx(expected[key], abs=1e-3), key
    for name in ("odmap", "i2t", "t2i"):
        one, two = (
            per_query.read(folder / "checkpoints" / f"last-val-{run.name}" / f"{name}.parquet") for run in (alone, pair)
        )
        assert one.ids == two.ids
        assert np.allclose(one.values(one.measures), two.values(two.measures))


def test_ratio_zero_trains_on_original_pairs_alone(world: Path, fitted: tuple[Path, str]) -> None:
    status, folder = _run(world, "fit", "--data.init_args.ratio", "0", "--trainer.max_epochs", "1")
    assert status == 0
    assert len(_columns(folder)["train/loss"]) == 24 * 5 // 16


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data.init_args.ratio", "-1"], ["ratio", "-1"]),
        (["--data.init_args.ratio", "5"], ["ratio", "5", "allow"]),
        (["--data.init_args.ratios", "5"], ["ratios", "did you mean ratio?"]),
        (["--data", "ScenesDataModul"], ["ScenesDataModul", "did you mean ScenesDataModule"]),
        (["--trainer.max_epoch", "5"], ["did you mean trainer.max_epochs"]),
        (["--trainer.strategy", "ddpp"], ["`trainer`", "'ddpp'"]),
        (["--model.init_args.lr", "-1"], ["`model.init_args.lr: -1.0`", "Invalid learning rate"]),
        (["--model", "CLIP", "--model.init_args.architecture", "ViT-B32"], ["'ViT-B32'", "did you mean ViT-B-32"]),
        (["--data.init_args.synthetic", "nowhere", "--synthesis", "null"], ["nowhere", "python -m synth"]),
        (["--synthesis", "nowhere.yaml"], ["`synthesis` is nowhere.yaml", "is no file"]),
        (["--ckpt_path", "nowhere.ckpt"], ["nowhere.ckpt", "is no file"]),
        (["--ckpt_path", "last"], ["`ckpt_path` is last", "is no file"]),
        (["--ckpt_path", str(PROJECT / "pyproject.toml")], ["pyproject.toml", "damaged or foreign"]),
    ],
)
def test_slips_get_one_sentence(
    world: Path, fitted: tuple[Path, str], capfd, arguments: list[str], words: list[str]
) -> None:
    capfd.readouterr()
    before = set((world / "runs" / "tiny").iterdir())
    try:
        status, _ = _run(world, "fit", *arguments)
    except SystemExit as exit_info:
        status = exit_info.code
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert status in (1, 2)
    assert len(errors) == 1
    for word in words:
        assert word in errors[0]
    assert all(any(folder.iterdir()) for folder in set((world / "runs" / "tiny").iterdir()) - before)


def test_a_run_without_a_model_says_what_is_missing(world: Path, capfd: pytest.CaptureFixture[str]) -> None:
    status, _ = _run(world, "fit", config="no_model.yaml")
    assert status == 1
    assert "There is no `model`: give its `class_path`" in capfd.readouterr().err


def test_help_needs_no_heavy_package(tmp_path: Path) -> None:
    code = (
        "import sys, train; assert train.main(['--help']) == 0;"
        "assert not {'torch', 'lightning', 'wandb', 'spacy'} & set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for verb in ("fit", "validate", "test", "predict"):
        assert f"python train.py {verb}" in done.stdout


def test_a_backbone_of_ones_own_fits_20_lines() -> None:
    lines = readme_block("backbone").split("class BagOfColours")[1].splitlines()
    assert len([line for line in lines if line.strip()]) <= 20


@pytest.mark.parametrize("path", sorted((PROJECT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_configs_that_users_see_are_valid(path: Path, capsys, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["fit", "--config", str(path), "--runs", str(tmp_path), "--print_config"])
    assert exit_info.value.code in (0, None)
    printed = yaml.safe_load(capsys.readouterr().out)
    given = yaml.safe_load(path.read_text())
    assert printed["model"]["init_args"].items() >= given["model"]["init_args"].items()
    assert printed["data"]["init_args"].keys() >= given["data"]["init_args"].keys()

"""A study in Weights & Biases, read back from what an offline run has written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb
import yaml
from PIL import Image

from datamodules.scenes import ScenesConfig, ScenesDataModule
from experiments.study.wandb_log import log_study
from metrics import per_query
from synth.__main__ import main as synth

SCENES = {"train": 8, "val": 4, "test": 12, "resolution": 48}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The section `data` of a config: a few Scenes and their counterfactuals."""
    folder = tmp_path_factory.mktemp("data")
    arguments = {"root": str(folder / "scenes"), "scenes": SCENES, "cache_dir": str(folder / "cache")}
    synthesis = {
        "data": {"class_path": "datamodules.ScenesDataModule", "init_args": arguments},
        "output": str(folder / "synthetic"),
        "queries": {"test": ["test"]},
        "fill": {"class_path": "MeanFill"},
    }
    (folder / "synthesis.yaml").write_text(yaml.safe_dump(synthesis))
    assert synth(["--config", str(folder / "synthesis.yaml")]) == 0
    arguments |= {"synthetic": str(folder / "synthetic"), "num_workers": 0}
    return {"class_path": "ScenesDataModule", "init_args": arguments}


def _module(data: dict[str, Any]) -> ScenesDataModule:
    return ScenesDataModule(**{**data["init_args"], "scenes": ScenesConfig(**SCENES)})


class Cell(SimpleNamespace):
    """A cell as the runner leaves it."""

    def write(self, root: Path, data: dict[str, Any], right: bool) -> Cell:
        made = _module(data)._synthetic("test")
        assert made is not None
        folder = self.folder(root)
        for name in ("fit/1", "fit/2"):
            (folder / name).mkdir(parents=True)
        (folder / "data.yaml").write_text(yaml.safe_dump({"data": data}))
        head = "epoch,step,train/loss,val/ODmAP@1,val/rsum"
        (folder / "fit" / "1" / "metrics.csv").write_text(f"{head}\n0,1,3.5,,\n0,9,,10.5,100\n1,11,,99,99\n")
        (folder / "fit" / "2" / "metrics.csv").write_text(f"{head}\n1,12,,{20.5 + self.seed},110\n")  # resumed
        captions = _module(data).tables.caption_ids
        count = len(made)
        columns = {
            "query_id": made.image_ids,
            "source_image_id": made.source_image_ids,
            "removed": [["dog", "cat"]] * count,
            "retrieved_ids": [captions[[row, row + 1, row + 2]].tolist() for row in range(count)],
            "relevant": [[right, False, right]] * count,
            "ODmAP@1": [100.0 * right] * count,
        }
        about: dict[str, Any] = {"group": "source_image_id", "measures": ["ODmAP@1"], "about": {}}
        per_query.write(folder / "out" / "odmap.parquet", columns, query_id="query_id", **about)
        self.read = lambda root: {"results": "out"}
        return self


def _cell(row: str, seed: int) -> Cell:
    name = f"clip/{row}/seed{seed}"
    return Cell(
        name=name,
        model="clip",
        seed=seed,
        row=SimpleNamespace(name=row, label=row.title()),
        settings=SimpleNamespace(models={"clip": SimpleNamespace(label="CLIP")}),
        folder=lambda root: root / "cells" / name,
        data=lambda root: root / "cells" / name / "data.yaml",
        read=lambda root: None,
    )


@pytest.mark.slow
def test_an_offline_run_has_table_curves_and_pictures(
    data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staged"))  # what the tables' artifacts are made of
    monkeypatch.setenv("WANDB_MODE", "offline")
    wandb.init(project="other", dir=tmp_path)  # which the study's own run leaves alone
    root = tmp_path / "study"
    cells = [_cell("synthetic", 1).write(root, data, right=False), _cell("synthetic", 0).write(root, data, right=True)]
    cells += [_cell("control", 0).write(root, data, right=False), _cell("oracle", 0)]
    table = tmp_path / "table1.csv"
    table.write_text("model,row,measure,mean,p_value\nclip,control,ODmAP@1,31.5,\nclip,synthetic,ODmAP@1,42,0.001\n")
    log_study("tests", "table1-tiny", table, cells, root, queries=3, captions=2)
    assert f"Weights & Biases stays offline, below {root / 'wandb'}: WANDB_MODE is offline" in capsys.readouterr().out
    assert list((root / "wandb").glob("offline-run-*/*.wandb"))
    staged = [path.read_bytes() for path in (tmp_path / "staged").rglob("*") if path.is_file()]
    tables = [json.loads(content) for content in staged if b'"column_types"' in content]

    def held(column: str) -> dict[str, Any]:
        return next(found for found in tables if column in found["columns"])

    assert held("p_value")["data"] == [
        ["clip", "control", "ODmAP@1", 31.5, None],
        ["clip", "synthetic", "ODmAP@1", 42, 0.001],
    ]
    lines = {tuple(map(tuple, found["data"])) for found in tables if "lineKey" in found["columns"]}
    both = "clip/synthetic/seed1", "clip/synthetic/seed0", "clip/control/seed0"
    odmap = zip(both, (21.5, 20.5, 20.5), strict=True)
    assert tuple((step, name, value) for name, last in odmap for step, value in ((0, 10.5), (1, last))) in lines
    assert tuple((step, name, value) for name in both for step, value in ((0, 100), (1, 110))) in lines
    assert len(lines) == 2  # the measures that were logged
    _check_retrieved(held("caption 1"), _module(data), {hashlib.sha256(one).hexdigest(): one for one in staged})


def _check_retrieved(found: dict[str, Any], module: ScenesDataModule, files: dict[str, bytes]) -> None:
    import io

    assert found["columns"][:6] == ["model", "trained on", "query id", "query image", "source image", "removed"]
    assert [row[:2] for row in found["data"]] == [["CLIP", "Control"]] * 3 + [["CLIP", "Synthetic"]] * 3
    made = module._synthetic("test")
    assert made is not None
    texts = module.tables.texts
    first, last = found["data"][0], found["data"][-1]
    assert first[5:] == ["dog, cat", texts[0], False, texts[1], False]
    assert last[5:] == ["dog, cat", texts[len(made) - 1], True, texts[len(made)], False]  # of seed 0
    assert last[2] == made.image_ids[-1]
    picture = Image.open(io.BytesIO(files[last[3]["sha256"]]))
    assert picture.tobytes() == Image.open(made.path(len(made) - 1)).convert("RGB").tobytes()
    assert last[3]["sha256"] != last[4]["sha256"]

"""The table of retrieved captions, read back from what an offline run of Weights & Biases has written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import WandbLogger
from PIL import Image

from lightning_modules.callbacks import LogRetrieved
from lightning_modules.query_tables import QueryTable
from lightning_modules.retrieved import Retrieved, _picture

NAMES = ("cat", "dog", "car")


@pytest.fixture
def data(tmp_path: Path) -> Any:
    """Six pictures, one of them too large and one no picture, and captions named by their ids."""
    for number in range(6):
        Image.new("RGB", (600, 300) if number == 0 else (8, 8), (40 * number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "5.png").write_text("nothing")
    return SimpleNamespace(
        matcher=SimpleNamespace(class_names=NAMES),
        texts_of=lambda ids: [f"caption <{number}>" for number in ids],
        files_of=lambda ids: [tmp_path / f"{number}.png" for number in ids],
    )


def _table(**changes: Any) -> QueryTable:
    columns = {
        "query_id": torch.tensor([0, 1, 2]),
        "source_image_id": torch.tensor([3, 4, 5]),
        "removed": torch.tensor([[True, False, True], [False, True, False], [True, False, False]]),
        "retrieved_ids": torch.tensor([[7, 8, 9], [8, 9, 7], [9, -1, -1]]),
        "relevant": torch.tensor([[True, False, True], [False, False, True], [True, False, False]]),
    }
    return QueryTable({**columns, **changes}, "source_image_id", (), (), {})


class Remembering(WandbLogger):
    """Keeps what is logged in place of a run."""

    def __init__(self) -> None:
        self.logged: list[tuple[str, list[str], list[list[Any]]]] = []

    def log_table(self, key: str, columns: Any = None, data: Any = None, **options: Any) -> None:
        self.logged.append((key, columns, data))


def _log(logger: Any, data: Any, tables: dict[str, QueryTable], fn: str = "test", **options: Any) -> None:
    module = SimpleNamespace(evaluations={stage: SimpleNamespace(tables=tables) for stage in ("val", "test")})
    state = SimpleNamespace(fn=fn)
    trainer = SimpleNamespace(loggers=[logger], is_global_zero=True, datamodule=data, state=state)
    callback = LogRetrieved(**options)
    (callback.on_test_end if fn == "test" else callback.on_validation_end)(trainer, module)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_row_has_both_pictures_and_a_verdict_per_caption(
    tmp_path: Path, data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staged"))  # what a table's artifact is made of
    logger = WandbLogger(save_dir=tmp_path, offline=True, project="tests")
    _log(logger, data, {"odmap": _table()}, captions=2)
    wandb.finish()
    assert list(tmp_path.glob("wandb/offline-run-*/files/media/table/test/retrieved_*.table.json"))
    staged = [path for path in (tmp_path / "staged").rglob("*") if path.is_file()]
    found = json.loads(next(path for path in staged if b'"column_types"' in path.read_bytes()).read_bytes())
    pictures = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in staged}
    ranks = ["caption 1", "right 1", "caption 2", "right 2"]
    assert found["columns"] == ["query id", "query image", "source image", "removed", *ranks]
    first, second, third = found["data"]
    assert first[3:] == ["cat, car", "caption <7>", True, "caption <8>", False]
    assert second[3:] == ["dog", "caption <8>", False, "caption <9>", False]
    assert third[3:] == ["cat", "caption <9>", True, None, None]
    assert third[2] is None  # cannot be read
    assert (first[1]["width"], first[1]["height"]) == (256, 128)
    assert [Image.open(pictures[cell["sha256"]]).getpixel((0, 0))[0] for cell in second[1:3]] == [40, 160]


def test_queries_are_few_and_re_ranked_where_the_model_does(data: Any) -> None:
    again = _table(retrieved_ids=torch.tensor([[9], [9], [9]]), relevant=torch.ones(3, 1, dtype=torch.bool))
    logger = Remembering()
    _log(logger, data, {"odmap": _table(), "reranked-odmap": again}, "validate", queries=2)
    ((key, _, rows),) = logger.logged
    assert key == "val/retrieved"
    assert [row[0] for row in rows] == [0, 2]
    assert [row[4:] for row in rows] == [["caption <9>", True]] * 2


@pytest.mark.parametrize(("fn", "tables"), [("fit", {"odmap": _table()}), ("test", {"i2t": _table()})])
def test_fit_and_tests_without_queries_log_none(data: Any, fn: str, tables: Any) -> None:
    logger = Remembering()
    _log(logger, data, tables, fn)
    assert logger.logged == []


def test_nothing_is_read_for_other_loggers() -> None:
    _log(object(), None, {"odmap": _table()})


@pytest.mark.slow
def test_grey_of_16_bits_is_not_white(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 100 * 256, np.uint16)).save(tmp_path / "grey.png")
    found = _picture(tmp_path / "grey.png")
    assert found.image.getpixel((0, 0)) == (100, 100, 100)


def test_some_of_none_is_none(data: Any) -> None:
    empty = np.empty((0, 5), np.int64)
    assert Retrieved(empty[:, 0], empty[:, 0], [], empty, empty > 0).some(32, 5).rows(data) == []

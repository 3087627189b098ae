"""A model that no retrieval is scored of trains, is chosen, scored and rebuilt by the same command as all others."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.utils.data import DataLoader

import train
from datamodules.batch import RetrievalBatch
from datamodules.errors import ConfigError
from lightning_modules import ImageTextModule, RetrievalModule


class Brightness(ImageTextModule):
    """Says how bright images are; its score falls from epoch to epoch."""

    monitor = "val/darkness"

    def __init__(self, start: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.save_hyperparameters(logger=False)
        self.scale = nn.Parameter(torch.tensor(start))

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        return self.scale * pixel_values.flatten(1).mean(dim=1, keepdim=True)

    def encode_texts(self, tokens: Any) -> Tensor:
        raise NotImplementedError

    def training_loss(self, batch: RetrievalBatch) -> Tensor:
        return -self.embed_images(batch.pixel_values).mean()

    def validation_step(self, batch: RetrievalBatch, batch_idx: int) -> None:
        self.log("val/darkness", -self.encode_images(batch.pixel_values).mean(), batch_size=len(batch))


class Greys(lightning.LightningDataModule):
    """Batches of grey images without captions."""

    def __init__(self, count: int = 4) -> None:
        super().__init__()
        ids, none = torch.arange(count), torch.full((count,), -1)
        pixels = torch.full((count, 3, 2, 2), 0.5)
        self.batches = [RetrievalBatch(ids, none, ids, none, none > 0, pixels)]

    def train_dataloader(self) -> Any:
        return DataLoader(self.batches, batch_size=None)

    val_dataloader = predict_dataloader = train_dataloader


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of the two, in a fresh folder."""
    monkeypatch.setitem(sys.modules, "my_greys", sys.modules[__name__])
    monkeypatch.chdir(tmp_path)
    run = {
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "enable_progress_bar": False, "log_every_n_steps": 1},
        "model": {"class_path": "my_greys.Brightness", "init_args": {"optimizer": "SGD", "lr": 1.0}},
        "data": {"class_path": "my_greys.Greys"},
    }
    (path := tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    return path


@pytest.mark.slow
def test_its_own_score_chooses_the_best_epoch(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Brightness, "__module__", "my_greys")
    assert train.main(["fit", "--config", str(config)]) == 0
    (folder,) = (tmp_path / "runs" / "run").iterdir()
    best = folder / "checkpoints" / "best.ckpt"
    assert torch.load(best, weights_only=True)["epoch"] == 0
    assert yaml.safe_load((folder / "config.yaml").read_text())["checkpoint"]["monitor"] == "val/darkness"
    said = capsys.readouterr().out
    assert "darkness" in said
    assert "epoch 0 (best)" in said
    for verb in ("validate", "predict"):
        assert train.main([verb, "--config", str(config), "--ckpt_path", str(best)]) == 0
    (rows,) = tmp_path.glob("runs/run/*/embeddings-0.pt")
    assert torch.load(rows, weights_only=True)["embeddings"].tolist() == [[0.75]] * 4
    assert ImageTextModule.load_from_checkpoint(best).scale.item() == 1.5
    with (folder / "metrics.csv").open() as file:
        rates = [(row["train/loss"], row["train/lr"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert [float(rate) for loss, rate in rates] == [1.0, 1.0]
    last = folder / "checkpoints" / "last.ckpt"
    for path, more, words in (
        (last, [], "nothing left to train: `ckpt_path` is {}, which has finished 2 epochs, and `trainer.max_epochs`"),
        (best, ["--trainer.max_epochs", "1"], "which has finished 1 epochs, and `trainer.max_epochs` is 1; raise it"),
        (best, ["--trainer.max_steps", "1"], "which has finished 1 steps, and `trainer.max_steps` is 1; raise it"),
        (last, ["--model", "VSEPP"], "which holds a Brightness, but `model.class_path` is lightning_modules.VSEPP"),
    ):
        assert train.main(["fit", "--config", str(config), "--ckpt_path", str(path), *more]) == 1
        assert words.format(path) in capsys.readouterr().err
    with pytest.raises(ConfigError, match="holds a Brightness and no RetrievalModule; `ImageTextModule"):
        RetrievalModule.load_from_checkpoint(best)


def test_pairs_cannot_be_synthesised_for_data_that_takes_none(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["fit", "--config", str(config), "--synthesis", str(config)]) == 1
    assert "but Greys takes no pairs: give null" in capsys.readouterr().err


def test_a_class_without_a_monitor_is_told_to_name_one(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Brightness, "monitor")
    assert train.main(["fit", "--config", str(config)]) == 1
    said = capsys.readouterr().err
    assert "`model.class_path` is my_greys.Brightness, which has no `monitor`" in said
    assert "`checkpoint.monitor`" in said
    assert not (config.parent / "runs").exists()


def test_help_says_what_best_is_chosen_by(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train.main(["fit", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "logged score whose best epoch is kept; null: the `monitor` of the model" in said

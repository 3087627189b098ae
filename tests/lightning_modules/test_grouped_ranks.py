"""Spurious-aware fine-tuning in two processes: they agree, and score and predict what one process does."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

BIRDS = {"train": 24, "val": 9, "test": 13, "resolution": 48}  # no two processes have equal shares of the last two
MODEL = {
    "model_config": {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8},
        "text_cfg": {"context_length": 12, "width": 16, "heads": 2, "layers": 1},
    },
    "classes": ["landbird", "waterbird"],
    "spurious": ["bird on land", "bird on water"],
    "templates": ["a {}.", "the {}."],
    "trained": ["*"],
    "freeze_statistics": False,  # each process has its own until they are shared
    "group_dro_weight": 1.0,
    "lr": 1e-2,
}


def _data(folder: Path) -> Any:
    from datamodules.scenes.birds import BirdScenesConfig, BirdScenesDataModule

    sizes = {"batch_size": 6, "eval_batch_size": 3, "num_workers": 0}
    return BirdScenesDataModule(root=str(folder / "birds"), birds=BirdScenesConfig(**BIRDS), **sizes)


def _trainer(folder: Path, **options: Any) -> Any:
    from lightning.pytorch import Trainer

    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return Trainer(
        default_root_dir=folder, enable_checkpointing=False, use_distributed_sampler=False, **quiet, **options
    )


def _evaluate(trainer: Any, model: Any, data: Any) -> dict[str, float]:
    (scores,) = trainer.test(model, datamodule=data, verbose=False)
    trainer.predict(model, datamodule=data, return_predictions=False)
    return dict(scores)


def _train(rank: int, world: int, folder: Path) -> dict[str, Any]:
    from lightning.pytorch.plugins.environments import TorchElasticEnvironment

    from lightning_modules import SpuriousAwareCLIP

    names = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**names, "TORCHELASTIC_RUN_ID": "tests"}.items():
            patch.setenv(name, str(value))
        options = {"devices": world, "strategy": "ddp", "plugins": [TorchElasticEnvironment()]}
        trainer = _trainer(folder / "pair", max_epochs=2, num_sanity_val_steps=0, **options)
        torch.manual_seed(rank)  # DDP gives all of them the weights of the first
        model, data = SpuriousAwareCLIP(**MODEL), _data(folder)
        trainer.fit(model, datamodule=data)
        fitted = {name: value.item() for name, value in trainer.callback_metrics.items()}
        trainer.save_checkpoint(folder / "model.ckpt")
        state = {name: value.tolist() for name, value in model.state_dict().items()}
        return {"fitted": fitted, "state": state, "scores": _evaluate(trainer, model, data)}


@pytest.mark.slow
@pytest.mark.ddp
@pytest.mark.filterwarnings("ignore:GroupAccuracy leaves out")
def test_two_processes_agree_and_score_and_predict_as_one(run_ranks: Callable[..., list[Any]], tmp_path: Path) -> None:
    from lightning_modules import SpuriousAwareCLIP

    _data(tmp_path).prepare_data()
    for name in ("pair", "alone"):
        (tmp_path / name).mkdir()
    first, second = run_ranks(_train, 2, tmp_path)
    assert first["state"] == second["state"]
    assert len(set(first["state"]["loss.robust.weights"])) > 1
    for kind in ("fitted", "scores"):
        assert first[kind] == pytest.approx(second[kind], nan_ok=True)
    assert {"train/contrastive", "train/group_dro", "val/worst_group"} < first["fitted"].keys()
    model = SpuriousAwareCLIP.load_from_checkpoint(tmp_path / "model.ckpt")
    alone = _evaluate(_trainer(tmp_path / "alone", devices=1), model, _data(tmp_path))
    assert first["scores"] == pytest.approx(alone, abs=1e-4, nan_ok=True)
    for name in ("predictions.csv", "errors.csv"):
        assert (tmp_path / "pair" / name).read_text() == (tmp_path / "alone" / name).read_text()
    rows = list(csv.DictReader((tmp_path / "pair" / "predictions.csv").open()))
    assert len({row["image_id"] for row in rows}) == len(rows) == BIRDS["test"]

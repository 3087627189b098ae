"""Models that are scored by groups: their scores against a table, what they predict, and what they refuse."""

from __future__ import annotations

import csv
import dataclasses
from typing import Any

import pytest
import torch

from datamodules.errors import ConfigError
from lightning_modules import GroupedModule
from lightning_modules.processor import Processor

NAMES = ("landbird", "waterbird"), ("land", "water")


class Brightness(GroupedModule):
    """Says that bright images show the second class, by a threshold that it never learns."""

    processor = Processor(torch.as_tensor, torch.as_tensor, len)  # type: ignore[arg-type]  # nothing is read here

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.threshold = torch.nn.Parameter(torch.tensor(0.5))

    def encode_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return pixel_values.mean(dim=(1, 2, 3))[:, None]

    def encode_texts(self, tokens: Any) -> torch.Tensor:
        raise NotImplementedError

    def class_scores(self, pixel_values: torch.Tensor) -> torch.Tensor:
        bright = self.encode_images(pixel_values)[:, 0] - self.threshold
        return torch.stack([-bright, bright], dim=1)

    def training_loss(self, batch: Any) -> torch.Tensor:
        return self.class_scores(batch.pixel_values).square().mean()


@pytest.fixture
def world(grouped_data: Any) -> Any:
    """Eight images of three groups; those with ids 2 and 7 look like the other class."""
    labels, attributes = [0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1, 1]
    looks = torch.tensor(labels) != torch.isin(torch.arange(8), torch.tensor([2, 7])).long()
    return grouped_data(looks[:, None, None, None].float().expand(8, 3, 4, 4), labels, attributes, NAMES)


def test_scores_are_those_of_the_groups(world: Any, quiet_trainer: Any) -> None:
    with pytest.warns(UserWarning, match="leaves out 1 of 4 groups without samples: waterbird-land"):
        (scores,) = quiet_trainer().validate(Brightness(), datamodule=world, verbose=False)
    assert scores == pytest.approx(
        {
            "val/worst_group": 200 / 3,
            "val/average": 75,
            "val/adjusted_average": (90 * 200 / 3 + 5 * 100 + 4 * 75) / 99,
            "val/empty_groups": 1,
            "val/group/landbird-land": 200 / 3,
            "val/group/landbird-water": 100,
            "val/group/waterbird-land": float("nan"),
            "val/group/waterbird-water": 75,
        },
        nan_ok=True,
    )


@pytest.mark.filterwarnings("ignore:GroupAccuracy leaves out")
def test_a_second_evaluation_starts_anew(world: Any, quiet_trainer: Any) -> None:
    model, trainer = Brightness(), quiet_trainer()
    first = trainer.test(model, datamodule=world, verbose=False)
    torch.nn.init.constant_(model.threshold, 2.0)
    (second,) = trainer.test(model, datamodule=world, verbose=False)
    assert first[0]["test/average"] == 75
    assert second["test/group/waterbird-water"] == 0


@pytest.mark.filterwarnings("ignore:GroupAccuracy leaves out")
def test_data_without_training_images_have_no_adjusted_average(
    world: Any, quiet_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world, "train_group_counts", [0, 0, 0, 0])
    (scores,) = quiet_trainer().test(Brightness(), datamodule=world, verbose=False)
    assert scores["test/average"] == 75
    assert "test/adjusted_average" not in scores


def test_predict_writes_all_predictions_and_the_wrong_ones(world: Any, quiet_trainer: Any, tmp_path: Any) -> None:
    quiet_trainer().predict(Brightness(), datamodule=world)
    rows = {name: list(csv.DictReader((tmp_path / f"{name}.csv").open())) for name in ("predictions", "errors")}
    assert [int(row["image_id"]) for row in rows["predictions"]] == list(range(8))
    assert rows["errors"] == [rows["predictions"][2], rows["predictions"][7]]
    assert rows["errors"][0] == {"image_id": "2", "label": "0", "attribute": "0", "predicted": "1"}


def test_an_image_that_comes_twice_is_written_once_as_it_is_scored(
    world: Any, quiet_trainer: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, (first, *_) = Brightness(), world.predict_dataloader()
    again = dataclasses.replace(first, pixel_values=1 - first.pixel_values)  # at a threshold a batch may decide
    monkeypatch.setattr(
        world, "predict_dataloader", lambda: torch.utils.data.DataLoader([first, again], batch_size=None)
    )
    quiet_trainer().predict(model, datamodule=world)
    rows = list(csv.DictReader((tmp_path / "predictions.csv").open()))
    assert [(row["image_id"], row["predicted"]) for row in rows] == [("0", "0"), ("1", "0"), ("2", "1")]


def test_data_without_groups_is_refused(world: Any, quiet_trainer: Any) -> None:
    with pytest.raises(ConfigError, match="Brightness is scored by groups"):
        quiet_trainer().validate(Brightness(), dataloaders=world.val_dataloader(), verbose=False)


@pytest.mark.parametrize("missing", ["labels", "attributes", "pixel_values"])
def test_a_batch_that_lacks_something_is_refused(world: Any, missing: str) -> None:
    (batch, *_) = world.val_dataloader()
    setattr(batch, missing, None)
    with pytest.raises(ValueError, match=missing):
        Brightness().predict_step(batch, 0)

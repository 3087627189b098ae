"""The alarm for embeddings that have become one."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.collapse import CollapseAlarm


def _warnings(alarm: CollapseAlarm, batches: list[tuple[Tensor, Tensor]]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for images, texts in batches:
            alarm.look(images, texts)
    return [str(one.message) for one in caught]


def _rows(spread: float) -> Tensor:
    """Unit rows whose mean 1 - cosine is about `spread`."""
    noise = torch.randn(64, 8, generator=torch.Generator().manual_seed(0)) * (spread / 7) ** 0.5
    return F.normalize(torch.eye(8)[0] + noise, dim=1)


ONE, APART = _rows(1e-6), _rows(1e-2)


def test_it_warns_once_of_embeddings_that_stay_one() -> None:
    (text,) = _warnings(CollapseAlarm(every=2, looks=3), [(ONE, -ONE)] * 20)
    assert text.startswith("For 4 steps")
    assert "`model.init_args.lr`" in text


@pytest.mark.parametrize(
    "batches",
    [
        [(APART, APART)] * 20,
        [(ONE, APART)] * 20,
        [(APART, ONE)] * 20,
        ([(ONE, ONE)] * 5 + [(APART, APART)]) * 3,
        [(ONE[:1], ONE[:1])] * 20,
        [(ONE, ONE)] * 5,
    ],
    ids=["apart", "texts apart", "images apart", "recovers", "batches of one", "not long"],
)
def test_it_is_silent(batches: list[tuple[Tensor, Tensor]]) -> None:
    assert not _warnings(CollapseAlarm(every=1, looks=6), batches)


def test_every_model_is_watched_in_training(tiny_clip: Callable[..., Any], pairs: Callable[..., Any]) -> None:
    model = tiny_clip()
    model.alarm = CollapseAlarm(every=1, looks=2)
    batch = pairs(model)
    batch.pixel_values.fill_(0.5)
    batch.tokens[:] = batch.tokens[0]
    model.embed_pairs(batch)
    with pytest.warns(UserWarning, match="the model has collapsed"):
        model.embed_pairs(batch)

"""A query bank in `validate` and `test`: what it draws on, what it changes, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils.data import DataLoader

from datamodules.batch import RetrievalBatch
from datamodules.errors import ConfigError
from lightning_modules.callbacks import Querybank
from lightning_modules.reranking import RerankingModule

IMAGES, QUERIES, CAPTIONS, CLASSES, TRAINING = 12, 9, 30, 4, 14
T = 0.1


class Toy(RerankingModule):
    """Embeds by the mean over pixels, and by words; all lean one way, so that there are hubs."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"top_k": (1, 3), **options})
        self.factor = torch.nn.Parameter(torch.ones(()))

    def encode_with_states(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        states = pixel_values.flatten(2).mT
        return normalize(states.mean(dim=1), dim=1), states

    def encode_texts(self, tokens: Any) -> Tensor:
        return normalize(tokens["ids"].float(), dim=1)

    def match_captions(self, states: Tensor, tokens: Any) -> Tensor:
        return torch.zeros(len(tokens["ids"]))

    def training_loss(self, batch: RetrievalBatch) -> Tensor:
        return self.factor.square()


class World(LightningDataModule):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        count = IMAGES + QUERIES + TRAINING
        self.pixels = torch.randn(count, 3, 2, 2, generator=generator) + torch.tensor([2.0, 0, 0])[:, None, None]
        self.words = torch.randn(CAPTIONS + TRAINING, 3, generator=generator) + torch.tensor([0.5, 0, 0])
        self.owners = torch.arange(CAPTIONS) % IMAGES
        self.masks = torch.rand(CAPTIONS + 2 * QUERIES, CLASSES, generator=generator) < 0.4
        self.asked: list[tuple[int, int]] = []

    def _images(self, rows: Tensor, **columns: Tensor) -> RetrievalBatch:
        return _batch(rows, pixel_values=self.pixels[rows], **columns)

    def _captions(self, rows: Tensor, **columns: Tensor) -> RetrievalBatch:
        owners = self.owners[rows.clamp(max=CAPTIONS - 1)]
        return _batch(owners, caption_ids=rows, tokens={"ids": self.words[rows]}, **columns)

    def test_dataloader(self) -> list[Any]:
        mentions, removed, kept = self.masks.split([CAPTIONS, QUERIES, QUERIES])
        inside = torch.ones(CAPTIONS, dtype=torch.bool)
        folds = torch.arange(IMAGES) // 6
        share = slice(self.trainer.global_rank, None, self.trainer.world_size)
        parts = (
            self._images(torch.arange(IMAGES)[share], folds=folds[share]),
            self._images(torch.arange(IMAGES, IMAGES + QUERIES)[share], removed=removed[share], kept=kept[share]),
            self._captions(torch.arange(CAPTIONS)[share], mentions=mentions[share], in_split=inside[share]),
        )
        return [_loader(part) for part in parts]

    val_dataloader = test_dataloader

    def train_dataloader(self) -> Any:
        return _loader(self._images(torch.arange(4)))

    def training_samples(self, images: int, captions: int) -> list[Any]:
        """Return this process's share; of two, the first has all the images."""
        self.asked.append((images, captions))
        rank, size = self.trainer.global_rank, self.trainer.world_size
        shown = torch.arange(IMAGES + QUERIES, IMAGES + QUERIES + images).flip(0)
        said = torch.arange(CAPTIONS, CAPTIONS + captions)[rank::size]
        return [_loader(*([self._images(shown)] if rank == 0 else [])), _loader(self._captions(said))]

    def expected(self, images: int = TRAINING, captions: int = TRAINING) -> dict[str, float]:
        """Score all pairs by the formula: recall of the first, and ODmAP@1."""
        shown = normalize(self.pixels.double().flatten(2).mean(dim=2), dim=1)
        said = normalize(self.words.double(), dim=1)
        held, queries, pictures = shown[: IMAGES + QUERIES + images].split([IMAGES, QUERIES, images])
        texts, bank = said[:CAPTIONS], said[CAPTIONS : CAPTIONS + captions]
        by_pictures, by_bank = (pictures @ texts.T / T).exp().sum(dim=0), (bank @ held.T / T).exp().sum(dim=0)
        own = self.owners == torch.arange(IMAGES)[:, None]
        i2t = own[torch.arange(IMAGES), ((held @ texts.T / T).exp() / by_pictures).argmax(dim=1)]
        t2i = own[((texts @ held.T / T).exp() / by_bank).argmax(dim=1), torch.arange(CAPTIONS)]
        best = ((queries @ texts.T / T).exp() / by_pictures).argmax(dim=1)
        mentions, removed, kept = self.masks.split([CAPTIONS, QUERIES, QUERIES])
        relevant = (mentions[best] & kept).any(dim=1) & ~(mentions[best] & removed).any(dim=1)
        found = {"i2t/R@1": i2t, "t2i/R@1": t2i, "ODmAP@1": relevant}
        scores = {name: 100 * hits.float().mean().item() for name, hits in found.items()}
        return {**scores, "hubs/distinct@1": 100 * len(best.unique()) / QUERIES}


def _loader(*batches: RetrievalBatch) -> Any:
    return DataLoader(list(batches), batch_size=None)  # type: ignore[arg-type]


def _batch(image_ids: Tensor, **columns: Any) -> RetrievalBatch:
    absent = torch.full_like(image_ids, -1)
    fields = {"caption_ids": absent, "source_caption_ids": absent, "synthetic": absent > 0, "source_ids": image_ids}
    return RetrievalBatch(image_ids=image_ids, **{**fields, **columns})


def _trainer(folder: Path, *callbacks: Any, **options: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return Trainer(
        callbacks=list(callbacks),
        default_root_dir=folder,
        enable_checkpointing=False,
        **{**quiet, "devices": 1, **options},
    )


def _bank(**options: Any) -> Querybank:
    return Querybank(**{"images": TRAINING, "captions": TRAINING, "temperature": T, **options})


def _scores(trainer: Trainer, stage: str) -> dict[str, float]:
    return {name.removeprefix(f"{stage}/"): float(value) for name, value in trainer.callback_metrics.items()}


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_scores_are_those_of_the_formula(tmp_path: Path, verb: str) -> None:
    world, module, trainer = World(), Toy(), _trainer(tmp_path, _bank(images=10, captions=11))
    getattr(trainer, verb)(module, datamodule=world, verbose=False)
    found = _scores(trainer, "val" if verb == "validate" else "test")
    expected = world.expected(10, 11)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-4)
    assert world.asked == [(10, 11)]
    assert "folds/rsum" in found
    plain = _trainer(tmp_path)
    getattr(plain, verb)(module, datamodule=world, verbose=False)
    before = _scores(plain, "val" if verb == "validate" else "test")
    assert any(before[name] != pytest.approx(value) for name, value in expected.items())
    again = _trainer(tmp_path)
    getattr(again, verb)(Toy(), datamodule=world, verbose=False)
    assert before == _scores(again, "val" if verb == "validate" else "test")  # nothing of the bank has stayed


def test_fit_and_its_validation_are_as_without(tmp_path: Path) -> None:
    found = []
    for callbacks in ((), (_bank(),)):
        world, trainer = World(), _trainer(tmp_path, *callbacks, max_epochs=1)
        trainer.fit(Toy(lr=0.1), datamodule=world)
        found.append(_scores(trainer, "val"))
        assert world.asked == []
    assert found[0] == found[1]


def test_nothing_is_re_ranked(tmp_path: Path) -> None:
    world, module, trainer = World(), Toy(rerank_top_k=5), _trainer(tmp_path, _bank())
    trainer.test(module, datamodule=world, verbose=False)
    found, expected = _scores(trainer, "test"), world.expected()
    assert not [name for name in found if "reranked" in name]
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-4)


def test_the_bank_is_encoded_in_the_precision_of_the_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, module = [], Toy()
    encode = module.encode_texts
    monkeypatch.setattr(
        module, "encode_texts", lambda tokens: seen.append(torch.is_autocast_enabled("cpu")) or encode(tokens)
    )
    _trainer(tmp_path, _bank(), precision="bf16-mixed").test(module, datamodule=World(), verbose=False)
    assert seen == [True, True]


def test_what_has_no_bank_is_told(tmp_path: Path) -> None:
    for key in ("images", "captions", "temperature"):
        with pytest.raises(ConfigError, match=rf"`trainer.callbacks.init_args.{key}` is 0: give a number above 0"):
            Querybank(**{key: 0})
    with pytest.raises(ConfigError, match="Toy on NoneType is no retrieval"):
        _bank().on_test_start(SimpleNamespace(datamodule=None), Toy())  # type: ignore[arg-type]
    empty = World()
    empty.training_samples = lambda images, captions: [_loader(), _loader()]  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match="would be empty: no image, or no caption, of `data"):
        _trainer(tmp_path, _bank()).test(Toy(), datamodule=empty, verbose=False)


def _tested(rank: int, world: int, folder: Path) -> dict[str, float]:
    from lightning.pytorch.plugins.environments import TorchElasticEnvironment

    names = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**names, "TORCHELASTIC_RUN_ID": "tests"}.items():
            patch.setenv(name, str(value))
        options = {"devices": world, "strategy": "ddp", "plugins": [TorchElasticEnvironment()]}
        trainer = _trainer(folder, _bank(), use_distributed_sampler=False, **options)
        trainer.test(Toy(), datamodule=World(), verbose=False)
        return _scores(trainer, "test")


@pytest.mark.ddp
@pytest.mark.slow
def test_ranks_have_the_bank_of_one_process(run_ranks: Any, tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, _bank())
    trainer.test(Toy(), datamodule=World(), verbose=False)
    alone = _scores(trainer, "test")
    assert run_ranks(_tested, 2, tmp_path) == [pytest.approx(alone, abs=1e-4)] * 2

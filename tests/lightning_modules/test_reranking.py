"""A toy cross-encoder through the Trainer and over ranks, against scores of all pairs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.batch import RetrievalBatch
from datamodules.errors import ConfigError
from lightning_modules import row_store
from lightning_modules.evaluation import RetrievalEvaluation
from lightning_modules.pair_matcher import PairMatcher
from lightning_modules.reranking import RerankingModule
from metrics.distributed import connect

IMAGES, QUERIES, CAPTIONS, CLASSES = 9, 5, 23, 4
CUTS = (1, 3)
ALL = 100  # more than there is of anything


class Toy(RerankingModule):
    """Embeds by the mean pixel, matches by the order of pixels and words; all values are exact in half precision."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"top_k": CUTS, **options})
        self.factor = torch.nn.Parameter(torch.ones(()))
        self.encoded: list[int] = []
        self.matched = 0

    def encode_with_states(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        self.encoded.append(len(pixel_values))
        states = pixel_values.flatten(2).mT
        return states.sum(dim=1), states

    def encode_texts(self, tokens: Any) -> Tensor:
        return (tokens["ids"] % 3 - 1)[:, :3].float()

    def match_captions(self, states: Tensor, tokens: Any) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        self.matched += len(tokens["ids"])
        return match(states, tokens["ids"])

    def training_loss(self, batch: RetrievalBatch) -> Tensor:
        return self.factor.square()


def match(states: Tensor, ids: Tensor) -> Tensor:
    return (states.float().sum(dim=2) * ids).sum(dim=1) / 4


class World:
    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.pixels = torch.randint(-2, 3, (IMAGES + QUERIES, 3, 2, 2), generator=generator).float() / 2
        self.ids = torch.randint(0, 9, (CAPTIONS, 4), generator=generator)
        self.image_ids = torch.randperm(50, generator=generator)[: IMAGES + QUERIES]
        self.caption_ids = torch.randperm(200, generator=generator)[:CAPTIONS]
        self.owners = self.image_ids[torch.randint(0, IMAGES, (CAPTIONS,), generator=generator)]
        self.in_split = torch.rand(CAPTIONS, generator=generator) < 0.8
        masks = torch.rand(CAPTIONS + 2 * QUERIES, CLASSES, generator=generator) < 0.4
        self.mentions, self.removed, self.kept = masks.split([CAPTIONS, QUERIES, QUERIES])

    def image_batch(self, rows: slice | Tensor) -> RetrievalBatch:
        return _batch(self.image_ids[:IMAGES][rows], pixel_values=self.pixels[:IMAGES][rows])

    def query_batch(self, rows: slice | Tensor) -> RetrievalBatch:
        columns = {"pixel_values": self.pixels[IMAGES:][rows], "removed": self.removed[rows], "kept": self.kept[rows]}
        return _batch(self.image_ids[IMAGES:][rows], **columns)

    def caption_batch(self, rows: slice | Tensor) -> RetrievalBatch:
        columns = {"in_split": self.in_split[rows], "mentions": self.mentions[rows], "tokens": {"ids": self.ids[rows]}}
        return _batch(self.owners[rows], caption_ids=self.caption_ids[rows], **columns)

    def loaders(self, size: int = 4) -> list[DataLoader[Any]]:
        kinds = (self.image_batch, IMAGES), (self.query_batch, QUERIES), (self.caption_batch, CAPTIONS)
        batches = [[make(slice(at, at + size)) for at in range(0, count, size)] for make, count in kinds]
        return [DataLoader(some, batch_size=None) for some in batches]  # type: ignore[arg-type]

    def expected(self) -> dict[str, float]:
        """Score all pairs: the match of every caption to every image, plus the dot product of their embeddings."""
        states = self.pixels.flatten(2).mT
        texts = (self.ids % 3 - 1)[:, :3].float()
        total = states.sum(dim=1) @ texts.T + torch.stack([match(one[None], self.ids) for one in states])
        split = total[:IMAGES, self.in_split]
        own = self.image_ids[:IMAGES, None] == self.owners[self.in_split]
        found = {}
        for way, scores, mine in (("i2t", split, own), ("t2i", split.T, own.T)):
            best = scores.masked_fill(~mine, -torch.inf).amax(dim=1, keepdim=True)
            ranks = 1 + ((scores >= best) & ~mine).sum(dim=1)
            hits = {k: mine.any(dim=1) & (ranks <= k) for k in CUTS}
            found |= {f"{way}/R@{k}": 100 * hit.float().mean().item() for k, hit in hits.items()}
        values: dict[int, list[float]] = {k: [] for k in CUTS}
        for scores, removed, kept in zip(total[IMAGES:], self.removed, self.kept, strict=True):
            order = sorted(range(CAPTIONS), key=lambda row: (-float(scores[row]), int(self.caption_ids[row])))
            named = self.mentions[order]
            relevant = ((named & kept).any(dim=1) & ~(named & removed).any(dim=1)).tolist()
            for k in CUTS:
                values[k].append(sum(relevant[i] * sum(relevant[: i + 1]) / (i + 1) for i in range(k)) / k)
        return found | {f"ODmAP@{k}": 100 * sum(of_k) / QUERIES for k, of_k in values.items()}


def _batch(image_ids: Tensor, **columns: Any) -> RetrievalBatch:
    absent = torch.full_like(image_ids, -1)
    fields = {"caption_ids": absent, "source_caption_ids": absent, "synthetic": absent > 0, "source_ids": image_ids}
    return RetrievalBatch(image_ids=image_ids, **{**fields, **columns})


def _trainer(folder: Path, **options: Any) -> Trainer:
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
    }
    return Trainer(accelerator="cpu", devices=1, default_root_dir=folder, **{**quiet, **options})


def _open_below(folder: Path) -> list[str]:
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    return [target for link in links if os.path.lexists(link) and (target := os.readlink(link)).startswith(str(folder))]


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_the_whole_gallery_re_ranked_is_ranked_by_the_scores_of_all_pairs(tmp_path: Path, verb: str) -> None:
    world, module, trainer = World(), Toy(rerank_top_k=ALL, rerank_batch_size=3), _trainer(tmp_path)
    getattr(trainer, verb)(module, world.loaders(), verbose=False)
    stage = "val" if verb == "validate" else "test"
    logged = {name.removeprefix(f"{stage}/"): float(value) for name, value in trainer.callback_metrics.items()}
    expected = world.expected()
    assert {name: logged[f"reranked/{name}"] for name in expected} == pytest.approx(expected, abs=1e-4)
    assert any(logged[name] != pytest.approx(value) for name, value in expected.items())
    assert {"reranked/rsum", "reranked/i2t/R@1/low", "reranked/ODmAP@3/high", "reranked/hallucinated@1"} < logged.keys()
    assert not {"reranked/ODmAP/gallery", "reranked/random/ODmAP@1"} & logged.keys()
    split = int(world.in_split.sum())
    assert module.matched == IMAGES * split + QUERIES * CAPTIONS  # a pair that both directions ask for counts once
    assert sum(module.encoded) == IMAGES + QUERIES
    tables = module.evaluations[stage].tables
    assert list(tables) == ["i2t", "t2i", "odmap", "reranked-i2t", "reranked-t2i", "reranked-odmap"]
    assert float(tables["reranked-odmap"].columns["ODmAP@3"].mean()) == pytest.approx(expected["ODmAP@3"], abs=1e-4)


def test_the_embeddings_scores_are_those_of_a_run_without_re_ranking(tmp_path: Path) -> None:
    world, plain, twice = World(), _trainer(tmp_path), _trainer(tmp_path)
    module = Toy()
    plain.validate(module, world.loaders(), verbose=False)
    assert module.matched == 0
    assert not any("reranked" in name for name in plain.callback_metrics)
    twice.validate(Toy(rerank_top_k=4), world.loaders(), verbose=False)
    found = {name: float(value) for name, value in twice.callback_metrics.items() if "reranked" not in name}
    assert found == {name: float(value) for name, value in plain.callback_metrics.items()}


def test_fit_re_ranks_its_validation_and_leaves_nothing(tmp_path: Path) -> None:
    world, module = World(), Toy(rerank_top_k=4, lr=0.1)
    trainer = _trainer(tmp_path, max_epochs=2)
    trainer.fit(module, DataLoader([world.image_batch(slice(4))], batch_size=None), world.loaders())  # type: ignore[arg-type]
    assert {"val/reranked/rsum", "val/reranked/ODmAP@1"} < trainer.callback_metrics.keys()
    assert "val/reranked/i2t/R@1/low" not in trainer.callback_metrics
    assert module._pairs is None
    assert list(tmp_path.iterdir()) == []
    assert _open_below(tmp_path) == []


def test_nothing_stays_after_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = Toy(rerank_top_k=4)
    monkeypatch.setattr(module, "match_captions", lambda states, tokens: torch.full((len(tokens["ids"]),), torch.nan))
    with pytest.raises(ValueError, match="gave no finite number for image"):
        _trainer(tmp_path).validate(module, World().loaders(), verbose=False)
    assert list(tmp_path.iterdir()) == []
    assert _open_below(tmp_path) == []


def test_pairs_are_matched_in_the_precision_of_the_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, seen = Toy(rerank_top_k=4), set()

    def matched(states: Tensor, tokens: Any) -> Tensor:
        seen.add((torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"), states.dtype))
        return match(states, tokens["ids"])

    monkeypatch.setattr(module, "match_captions", matched)
    _trainer(tmp_path, precision="bf16-mixed").validate(module, World().loaders(), verbose=False)
    assert seen == {(True, torch.bfloat16, torch.float32)}


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="rerank_top_k` is 9, but the scores look at the first 10 results"):
        Toy(rerank_top_k=9, top_k=(1, 10))
    with pytest.raises(ConfigError, match="rerank_top_k` is -1, but"):
        Toy(rerank_top_k=-1)
    with pytest.raises(ConfigError, match="rerank_batch_size` is 0: give 1 or more"):
        Toy(rerank_batch_size=0)


def _evaluated(rank: int, world_size: int, folder: Path, depth: int) -> dict[str, float]:
    """Evaluate this rank's share; of two ranks the first has no caption, the other no query, and both have an image."""
    row_store._SHARED_AT_ONCE = 3
    world, module = World(), Toy().eval()
    evaluation = RetrievalEvaluation(CUTS)
    matcher = PairMatcher(lambda states, tokens: match(states, tokens["ids"]), folder / str(rank), module.device, 2)
    evaluation.rerank_by(matcher.scores, depth)
    images, captions = torch.arange(IMAGES), torch.arange(CAPTIONS)
    if world_size == 2:
        images = [images[:6], images[5:]][rank]
        captions = [captions[:0], captions][rank]
    with torch.no_grad():
        for batch in (world.image_batch(images), world.query_batch(images[images < QUERIES])):
            embeddings, states = module.encode_with_states(batch.pixel_values)
            evaluation.update_images(batch, embeddings)
            matcher.add_images(batch.image_ids, states)
        batch = world.caption_batch(captions)
        evaluation.update_captions(batch, module.encode_texts(batch.tokens))
        matcher.add_captions(batch.caption_ids, batch.tokens)
    matcher.share_captions(connect())
    scores = {name: float(value) for name, value in evaluation.compute().items() if name.startswith("reranked/")}
    matcher.close()
    return scores


def _both_depths(rank: int, world_size: int, folder: Path) -> list[dict[str, float]]:
    return [_evaluated(rank, world_size, folder, depth) for depth in (4, ALL)]


@pytest.mark.ddp
@pytest.mark.slow
def test_ranks_find_what_one_process_finds(run_ranks: Any, tmp_path: Path) -> None:
    alone = _both_depths(0, 1, tmp_path)
    assert alone[1]["reranked/ODmAP@3"] == pytest.approx(World().expected()["ODmAP@3"], abs=1e-4)
    for found in run_ranks(_both_depths, 2, tmp_path):
        assert found == [pytest.approx(scores) for scores in alone]

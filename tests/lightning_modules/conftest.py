"""Processes of a gloo group; a tiny CLIP, its batches, and a Trainer that keeps quiet."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist


@pytest.fixture
def run_ranks(processes: Any, tmp_path: Path) -> Callable[..., list[Any]]:
    """Call `function(rank, world, *args)` in `world` processes of one gloo group and return their results by rank."""

    def run(function: Callable[..., Any], world: int, *args: Any) -> list[Any]:
        results = processes.Queue()
        store = tmp_path / f"store-{world}"
        ranks = [
            processes.Process(target=_rank, args=(rank, world, store, results, function, args)) for rank in range(world)
        ]
        for process in ranks:
            process.start()
        gathered = dict(results.get(timeout=120) for _ in ranks)
        for process in ranks:
            process.join(timeout=30)
        failures = [text for text in gathered.values() if isinstance(text, _Failure)]
        assert not failures, failures[0]
        return [gathered[rank] for rank in range(world)]

    return run


class _Failure(str):
    """The traceback of a process that failed."""


def _rank(
    rank: int, world: int, store: Path, results: Any, function: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    try:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
        results.put((rank, function(rank, world, *args)))
        dist.barrier()
        dist.destroy_process_group()
    except Exception:  # whatever it is, the test has to see it
        results.put((rank, _Failure(traceback.format_exc())))


TINY_CLIP: dict[str, Any] = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 16, "head_width": 8, "layers": 1},
    "text_cfg": {"context_length": 12, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture
def tiny_clip() -> Callable[..., Any]:
    """Build a CLIP of a few thousand parameters, the same ones every time."""

    def build(quick_gelu: bool = False, **arguments: Any) -> Any:
        from lightning_modules import CLIP

        torch.manual_seed(0)
        return CLIP(**{"model_config": TINY_CLIP | {"quick_gelu": quick_gelu}, **arguments})

    return build


@pytest.fixture
def pairs() -> Callable[..., Any]:
    """Make a training batch of `count` pairs for a model whose images are 16 pixels wide."""

    def make(model: Any, count: int = 4, **columns: torch.Tensor) -> Any:
        from datamodules.batch import RetrievalBatch

        ids = torch.arange(count)
        return RetrievalBatch(
            **{
                "image_ids": ids,
                "caption_ids": ids + 100,
                "source_ids": ids,
                "source_caption_ids": ids + 100,
                "synthetic": torch.zeros(count, dtype=torch.bool),
                "pixel_values": torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(0)),
                "tokens": model.processor.tokenize([f"a picture of {number} dogs" for number in range(count)]),
                **columns,
            }
        )

    return make


@pytest.fixture
def quiet_trainer(tmp_path: Path) -> Callable[..., Any]:
    """Build a Trainer that writes below `tmp_path` and prints nothing."""

    def build(**options: Any) -> Any:
        from lightning.pytorch import Trainer

        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
        return Trainer(default_root_dir=tmp_path, **{**quiet, "enable_checkpointing": False, **options})

    return build


@pytest.fixture
def grouped_data() -> Callable[..., Any]:
    """Make a data module of labelled images in memory, `(pixel_values, labels, attributes, names, batch_size)`."""
    from lightning import LightningDataModule

    from datamodules.batch import RetrievalBatch

    class Grouped(LightningDataModule):
        def __init__(self, images: Any, labels: list[int], attributes: list[int], names: Any, batch_size: int = 3):
            super().__init__()
            self.images, self.batch_size = images, batch_size
            self.labels, self.attributes = torch.tensor(labels), torch.tensor(attributes)
            self.label_names, self.attribute_names = names
            self.train_group_counts = [90, 5, 1, 4]

        def _loader(self) -> Any:
            batches = [self._batch(rows) for rows in torch.arange(len(self.labels)).split(self.batch_size)]
            return torch.utils.data.DataLoader(batches, batch_size=None)  # type: ignore[arg-type]

        def _batch(self, rows: torch.Tensor) -> Any:
            absent = torch.full_like(rows, -1)
            return RetrievalBatch(
                image_ids=rows,
                caption_ids=absent,
                source_ids=rows,
                source_caption_ids=absent,
                synthetic=torch.zeros(len(rows), dtype=torch.bool),
                pixel_values=self.images[rows],
                labels=self.labels[rows],
                attributes=self.attributes[rows],
            )

        train_dataloader = val_dataloader = test_dataloader = predict_dataloader = _loader

    return Grouped

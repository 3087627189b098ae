"""Processes of a gloo group."""

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

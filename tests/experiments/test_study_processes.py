"""What a cell's commands run on, how they end, and what is noted of the code that they ran."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.study import record
from experiments.study.commands import CommandError, Commands, places


def test_cores_are_counted_where_the_system_does_not_say_which_are_ours(monkeypatch: Any) -> None:
    assert record.cores() == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")
    assert record.cores() == os.cpu_count()


def test_a_command_that_the_system_ended_is_told_by_its_signal(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"it was ended by SIGKILL \(.*log\.txt\)"):
        Commands().call(["sh", "-c", "kill -9 $$"], tmp_path / "log.txt", {})


def test_a_command_that_says_nothing_is_told_by_its_status(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"^it ended with status 3 \(.*log\.txt\)"):
        Commands().call(["sh", "-c", "exit 3"], tmp_path / "log.txt", {})


def test_a_cell_names_the_commit_that_it_was_made_at(monkeypatch: Any) -> None:
    said = iter(["aaa", "", "bbb", " M train.py"])
    monkeypatch.setattr(record, "_git", lambda *_: next(said))
    assert (record.commit(), record.commit()) == ("aaa", "bbb+")


def test_gpus_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert places(None) == [{"CUDA_VISIBLE_DEVICES": "4"}, {"CUDA_VISIBLE_DEVICES": "6"}]
    assert [place["CUDA_VISIBLE_DEVICES"] for place in places(3)] == ["4", "6", "4"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert places(5) == [{}] * 5

"""How a study is claimed by one command, and how it ends when it is asked to."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from datamodules.errors import ConfigError
from experiments.study import commands, runner
from experiments.study.commands import CommandError, Commands
from experiments.study.runner import run


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_file_system_without_locks_is_refused(study: Any, monkeypatch: Any) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(runner.fcntl, "flock", refuse)
    with pytest.raises(ConfigError, match=r"`--work` .* lies on a file system without locks \(No locks available\)"):
        run(study.cells("control"), study.work, jobs=1)


def test_a_second_command_is_refused_also_where_a_training_outlived_the_first(study: Any) -> None:
    with runner._claimed(study.work) as lock:
        with pytest.raises(ConfigError, match="Another command, or a training that a killed one left, works on"):
            run(study.cells("control"), study.work, jobs=1)
        running = Commands([lock])
        left = threading.Thread(target=_call, args=(running, ["sleep", "60"], study.work / "log.txt"))
        left.start()
        while not running._running:
            time.sleep(0.01)
    with pytest.raises(ConfigError, match="Another command"):
        run(study.cells("control"), study.work, jobs=1)
    running.stop()
    left.join()
    assert run(study.cells("control"), study.work, jobs=1) == []


def _call(running: Commands, arguments: list[str], log: Path) -> None:
    with pytest.raises(CommandError, match="stopped"):
        running.call(arguments, log, {})


@pytest.mark.parametrize("manner", ["sleep", "stubborn", "polite"])
def test_a_request_to_end_stops_all_commands(study: Any, monkeypatch: Any, capsys: Any, manner: str) -> None:
    monkeypatch.setattr(commands, "_GRACE", 1.0)
    monkeypatch.setenv("ASKED", f"control fit 1:{manner}")
    study.stop(file="last.ckpt")
    with pytest.raises(KeyboardInterrupt):
        run(study.cells("control", "synthetic", seeds=2)[:2], study.work, jobs=1)
    assert study.verbs() == ["control fit"]
    assert not is_there(study.calls()[0]["pid"])
    assert "the same command goes on from here" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    monkeypatch.delenv("ASKED")
    assert run(study.cells("control"), study.work, jobs=1) == []
    assert study.verbs()[1:] == ["control fit", "control test"]


def test_a_second_request_to_end_waits_no_longer(study: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(commands, "_GRACE", 50.0)
    monkeypatch.setenv("ASKED", "control fit 1:stubborn")
    study.stop(file="last.ckpt")
    stop = Commands.stop

    def again(self: Commands) -> None:
        threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        stop(self)

    monkeypatch.setattr(Commands, "stop", again)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(study.cells("control"), study.work, jobs=1)
    assert time.monotonic() - started < 30
    assert not is_there(study.calls()[0]["pid"])

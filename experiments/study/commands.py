"""The commands that a study runs side by side: what each sees of the machine, its log, and how all are stopped."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from datamodules.errors import UserError
from experiments.study.record import cores

_GRACE = 20.0  # seconds that a command has to end by itself
_SAID = 300  # characters of a failed command's last line


class CommandError(UserError):
    """A command failed, or was stopped."""


class Commands:
    """The commands that run now, which can be stopped together.

    Each is the first process of a session of its own: a Ctrl-C reaches the study alone, which stops them with all that
    they have started.

    Args:
        kept: open files that commands inherit, such as a lock that has to last as long as they do.
    """

    def __init__(self, kept: Sequence[int] = ()) -> None:
        self._kept = tuple(kept)
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def call(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        """Run a command, whose output is appended to a log, behind a line that repeats it.

        Raises:
            CommandError: it failed, or all were stopped.
        """
        with log.open("ab") as file:
            file.write(f"$ {shlex.join(arguments)}\n".encode())
            file.flush()
            process = self._start(arguments, file, environment)
        status = process.wait()
        with self._lock:
            self._running.discard(process)
            if self._stopped:  # whatever its status is: some end well when they are asked to end
                raise CommandError("stopped")
        if status:
            by_signal = f"it was ended by {signal.Signals(-status).name}" if status < 0 else ""
            raise CommandError(f"{by_signal or _last_line(log) or f'it ended with status {status}'} ({log})")

    def _start(self, arguments: Sequence[str], log: Any, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._stopped:
                raise CommandError("stopped")
            process = subprocess.Popen(  # noqa: S603 (our own program)
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | environment,
                start_new_session=True,
                pass_fds=self._kept,
            )
            self._running.add(process)
        return process

    def stop(self) -> None:
        """Stop all of them, and start no more; interrupted meanwhile, wait no longer for what they have to put away."""
        with self._lock:
            self._stopped, running = True, list(self._running)
        deadline = time.monotonic() + _GRACE
        try:
            for process in running:
                _tell(process, signal.SIGTERM)
            for process in running:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))
        finally:
            for process in running:
                _tell(process, signal.SIGKILL)  # and what it started, where that is still there


def places(jobs: int | None) -> list[dict[str, str]]:
    """Return what the environment of each command at a time has else than this one: its GPU and its share of cores.

    Args:
        jobs: commands at a time; None for one per GPU, or two on the CPU of a machine with as many cores.
    """
    import torch

    gpus, there = torch.cuda.device_count(), cores()
    count = jobs or gpus or min(there, 2)
    threads = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(max(1, there // count))}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
    return [
        threads | ({"CUDA_VISIBLE_DEVICES": visible[number % len(visible)]} if gpus > 1 else {})
        for number in range(count)
    ]


@contextmanager
def ended_like_interrupted() -> Iterator[None]:
    """Let a request to end, or a terminal that is closed, stop the block as Ctrl-C does; what is ignored stays so."""
    is_main = threading.current_thread() is threading.main_thread()
    asked = [one for one in (signal.SIGTERM, signal.SIGHUP) if is_main and signal.getsignal(one) is signal.SIG_DFL]
    for one in asked:
        signal.signal(one, _interrupt)
    try:
        yield
    finally:
        for one in asked:
            signal.signal(one, signal.SIG_DFL)


def _interrupt(number: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def _tell(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _last_line(log: Path) -> str:
    """Return what the latest command of a log said last, nothing where it said nothing."""
    last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1]
    return "" if last.startswith("$ ") else last.removeprefix("error: ")[:_SAID]

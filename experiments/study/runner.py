"""Runs the cells of a study as commands of their own, several at a time, and takes up what was interrupted."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import yaml

from datamodules.errors import ConfigError, UserError
from experiments.study.cells import Cell
from experiments.study.record import record
from experiments.study.settings import STANDARD

_TRAIN = Path(__file__).parents[2] / "train.py"
_QUIET = {"trainer": {"enable_progress_bar": False, "enable_model_summary": False}}
_SAID = 300  # characters of a failed command's last line


class CellError(UserError):
    """A command of a cell failed."""


def run(cells: Sequence[Cell], root: Path, jobs: int | None = None) -> list[str]:
    """Make the synthetic sets and the cells that are not finished, several at a time.

    A cell that fails does not stop the others. Interrupted, all commands are stopped; started again, finished cells are
    left as they are, and a training goes on from its last checkpoint.

    Args:
        cells: of one study; those whose checkpoints others test are made first.
        root: folder of the study.
        jobs: commands at a time; None for one per GPU, or two on the CPU of a machine with as many cores.

    Returns:
        A sentence for every cell that failed.

    Raises:
        ConfigError: another command works on this study, or a cell was made with other settings.
        UserError: a synthetic set cannot be made.
    """
    every = list({cell.name: cell for cell in _with_parents(cells)}.values())
    with _claimed(root):
        todo = [cell for cell in every if cell.read(root) is None]
        if not todo:
            return []
        places = _places(jobs)
        print(f"{len(todo)} of {len(every)} cells to do, {len(places)} at a time, below {root / 'cells'}.", flush=True)
        _synthesise(todo)
        return _run_all(todo, root, places)


def _with_parents(cells: Sequence[Cell]) -> Iterator[Cell]:
    for cell in cells:
        if parent := cell.parent:
            yield parent
        yield cell


@contextmanager
def _claimed(root: Path) -> Iterator[None]:
    """Keep a second command from training the same cells."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = (root / "lock").open("w")
    except OSError as error:
        raise ConfigError(f"`--work` {root} cannot be written ({error.strerror}): name another folder.") from error
    with lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise ConfigError(
                f"Another command works on the study in {root}: wait until it ends, or name another `--work` folder."
            ) from error
        yield


def _places(jobs: int | None) -> list[dict[str, str]]:
    """Return what the environment of each command at a time has else than this one."""
    import torch

    gpus, cores = torch.cuda.device_count(), len(os.sched_getaffinity(0))
    count = jobs or gpus or min(cores, 2)
    threads = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(max(1, cores // count))}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
    return [
        threads | ({"CUDA_VISIBLE_DEVICES": visible[number % len(visible)]} if gpus > 1 else {})
        for number in range(count)
    ]


def _synthesise(cells: Sequence[Cell]) -> None:
    """Make the synthetic sets of the cells; those that are complete stay as they are."""
    import synth

    configs = {name: config for cell in cells for name, config in cell.syntheses.items()}
    for name, config in configs.items():
        output = Path(config["output"])
        if (output / "protocol.json").exists():
            continue
        print(f"Synthetic set `{name}`: {output}", flush=True)
        path = output.with_suffix(".yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        synth.run_file(path)


def _run_all(cells: Sequence[Cell], root: Path, places: Sequence[Mapping[str, str]]) -> list[str]:
    free: SimpleQueue[Mapping[str, str]] = SimpleQueue()
    for place in places:
        free.put(place)
    commands, failed, started = Commands(), [], time.monotonic()
    names = {cell.name for cell in cells}
    with ThreadPoolExecutor(len(places)) as pool:
        made: dict[str, Future[None]] = {}
        for cell in cells:  # parents come before their children, so that a child that waits blocks nobody it needs
            parent = made.get(cell.parent.name) if cell.parent and cell.parent.name in names else None
            made[cell.name] = pool.submit(_make, cell, root, free, commands, parent)
        by_future = {future: cell for cell in cells for future in [made[cell.name]]}
        try:
            for done, future in enumerate(as_completed(by_future), start=1):
                cell = by_future[future]
                if error := future.exception():
                    if not isinstance(error, UserError):
                        raise error
                    failed.append(f"{cell.name}: {error}")
                _tell(cell, root, done, len(cells), started)
        except BaseException:
            commands.stop()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return failed


def _tell(cell: Cell, root: Path, done: int, count: int, started: float) -> None:
    """Print how a cell ended, and how long the rest may take."""
    passed = time.monotonic() - started
    left = f"about {_time(passed / done * (count - done))} left" if done < count else f"{_time(passed)} in all"
    found = cell.read(root)
    said = "failed"
    if found is not None:
        shown = ("ODmAP@1", "reranked/ODmAP@1", "rsum")
        scores = (f"{name} {found['scores'][name]:.1f}" for name in shown if name in found["scores"])
        said = f"{', '.join(scores)} in {_time(found['record']['seconds'])}"
    print(f"[{done}/{count}] {cell.name}: {said}; {left}", flush=True)


def _time(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


class Commands:
    """The commands that run now, which can be stopped together."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def call(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        """Run a command, whose output is appended to a log that begins with how to repeat it.

        Raises:
            CellError: it failed, or all were stopped.
        """
        if self._stopped:
            raise CellError("stopped")
        with log.open("ab") as file:
            file.write(f"$ {' '.join(arguments)}\n".encode())
            file.flush()
            process = subprocess.Popen(  # noqa: S603 (our own program)
                arguments, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=os.environ | environment
            )
        self._running.add(process)
        try:
            status = process.wait()
        finally:
            self._running.discard(process)
        if status:
            raise CellError(f"{_last_line(log)} ({log})")

    def stop(self) -> None:
        """Stop all of them, and start no more."""
        self._stopped = True
        for process in list(self._running):
            process.terminate()


def _make(
    cell: Cell, root: Path, free: SimpleQueue[Mapping[str, str]], commands: Commands, parent: Future[None] | None
) -> None:
    if parent is not None and parent.exception() is not None:
        raise CellError(f"it tests the checkpoint of {cell.row.checkpoint_of}, which failed")
    place = free.get()
    try:
        _train_and_test(cell, root, place, commands)
    finally:
        free.put(place)


def _train_and_test(cell: Cell, root: Path, place: Mapping[str, str], commands: Commands) -> None:
    folder, started = cell.folder(root), time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    begun = datetime.now(UTC).isoformat(timespec="seconds")
    if cell.fit is not None:
        commands.call(_fit(cell, folder), folder / "log.txt", place)
    checkpoint = _checkpoint(cell, root)
    commands.call(_test(cell, folder, checkpoint), folder / "log.txt", place)
    results = max(folder.rglob("odmap.parquet"), key=lambda path: path.stat().st_mtime).parent
    found = {
        "hash": cell.hash,
        "scores": _scores(folder),
        "results": str(results.relative_to(folder)),
        "checkpoint": None if checkpoint is None else os.path.relpath(checkpoint, folder),
        "record": record(cell.work / "synthetic" / STANDARD, begun, time.monotonic() - started),
        "spec": cell.spec,
    }
    draft = folder / "cell.json.draft"
    draft.write_text(json.dumps(found, indent=1), encoding="utf-8")
    draft.replace(folder / "cell.json")


def _fit(cell: Cell, folder: Path) -> list[str]:
    command = _command("fit", cell, folder, cell.fit)
    if last := _newest(folder / "fit", "last.ckpt"):
        command += ["--ckpt_path", str(last)]
    return command


def _test(cell: Cell, folder: Path, checkpoint: Path | None) -> list[str]:
    command = _command("test", cell, folder, cell.test)
    return command if checkpoint is None else [*command, "--ckpt_path", str(checkpoint)]


def _command(verb: str, cell: Cell, folder: Path, overlay: Mapping[str, Any] | None) -> list[str]:
    path = folder / f"{verb}.yaml"
    path.write_text(yaml.safe_dump(dict(overlay or {}), sort_keys=False), encoding="utf-8")
    configs = ("--config", str(cell.config), "--config", str(path), "--config", str(_quiet(folder)))
    return [sys.executable, str(_TRAIN), verb, *configs, "--runs", str(folder), "--name", verb]


def _quiet(folder: Path) -> Path:
    """Write what keeps progress bars out of a log; it decides no result."""
    path = folder / "quiet.yaml"
    path.write_text(yaml.safe_dump(_QUIET), encoding="utf-8")
    return path


def _checkpoint(cell: Cell, root: Path) -> Path | None:
    """Return the checkpoint to test: its own, or that of the cell it depends on, as a file of its own folder."""
    if cell.fit is not None:
        return _newest(cell.folder(root) / "fit", "best.ckpt")
    if cell.parent is None:
        return None
    theirs, mine = _checkpoint(cell.parent, root), cell.folder(root) / "best.ckpt"
    assert theirs is not None  # noqa: S101 (a parent is trained)
    mine.unlink(missing_ok=True)
    mine.symlink_to(os.path.relpath(theirs, mine.parent))
    return mine


def _newest(runs: Path, name: str) -> Path | None:
    """Return the checkpoint of the latest run that has one."""
    found = sorted(runs.glob(f"*/checkpoints/{name}"), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else None


def _scores(folder: Path) -> dict[str, float]:
    """Return the scores that the latest test logged."""
    path = max((folder / "test").glob("*/metrics.csv"), key=lambda one: one.stat().st_mtime)
    with path.open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    return {name.removeprefix("test/"): float(value) for name, value in row.items() if name.startswith("test/")}


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].removeprefix("error: ")[:_SAID] if lines else "it said nothing"

"""Runs the cells of a study as commands of their own, several at a time, and takes up what was interrupted."""

from __future__ import annotations

import fcntl
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import yaml

from datamodules.errors import ConfigError, UserError
from experiments.study.cells import Cell
from experiments.study.commands import CommandError, Commands, ended_like_interrupted, places
from experiments.study.making import Maker
from experiments.study.record import asked
from experiments.study.results import check_same_data
from experiments.study.settings import STANDARD


def run(cells: Sequence[Cell], root: Path, jobs: int | None = None, wandb: str | None = None) -> list[str]:
    """Make the synthetic sets and the cells that are not finished, several at a time.

    A cell that fails does not stop the others, nor does a synthetic set that some of them need. Interrupted, all
    commands are stopped; started again, finished cells are left as they are, and a training goes on from its last
    checkpoint.

    Args:
        cells: of one study; those whose checkpoints others test are made first.
        root: folder of the study.
        jobs: commands at a time; None for one per GPU, or two on the CPU of a machine with as many cores.
        wandb: project of Weights & Biases that trainings and tests log to; None for none.

    Returns:
        A sentence for every cell that failed.

    Raises:
        ConfigError: another command works on this study, or a finished cell was made with other settings or tested on
            other data or queries.
        UserError: the standard synthetic set cannot be made.
    """
    every = list({cell.name: cell for cell in _with_parents(cells)}.values())
    for cell in (*every, *cells):
        _ = cell.hash  # from here on, a config that is changed changes nothing
    if not _unfinished(every, root):
        return []
    with ended_like_interrupted(), _claimed(root) as lock:
        todo = _unfinished(every, root)
        there = places(jobs)
        print(f"{len(todo)} of {len(every)} cells to do, {len(there)} at a time, below {root / 'cells'}.", flush=True)
        lacking = _synthesise(todo)
        _check_finished(every, root)
        failed = {cell.name: lacking[name] for cell in todo for name in cell.syntheses if name in lacking}
        able = [cell for cell in todo if cell.name not in failed]
        return [f"{name}: {sentence}" for name, sentence in failed.items()] + _Study(
            Maker(root, Commands([lock]), wandb), able, there
        ).run()


def _with_parents(cells: Sequence[Cell]) -> Iterator[Cell]:
    for cell in cells:
        if parent := cell.parent:
            yield parent
        yield cell


def _unfinished(cells: Sequence[Cell], root: Path) -> list[Cell]:
    return [cell for cell in cells if cell.read(root) is None]


@contextmanager
def _claimed(root: Path) -> Iterator[int]:
    """Keep a second command from training the same cells; yield the lock's file.

    The commands of cells inherit the lock: where this one is killed, nobody trains a cell that one of them still
    trains.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = (root / "lock").open("w")
    except OSError as error:
        raise ConfigError(f"`--work` {root} cannot be written ({error.strerror}): name another folder.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"Another command, or a training that a killed one left, works on the study in {root}: wait until it "
                "ends, or name another `--work` folder."
            ) from error
        except OSError as error:
            raise ConfigError(
                f"`--work` {root} lies on a file system without locks ({error.strerror}), which keep two commands from "
                "training the same cells: name a folder on another one."
            ) from error
        yield lock.fileno()


def _synthesise(cells: Sequence[Cell]) -> dict[str, str]:
    """Make the synthetic sets of the cells; a complete one is left as it is, after a look at what it was made of.

    Returns:
        Why sets could not be made, by their names.

    Raises:
        UserError: it is the standard set, without which there is no cell.
    """
    failed = {}
    for name, config in {name: config for cell in cells for name, config in cell.syntheses.items()}.items():
        try:
            _make_set(name, config)
        except UserError as error:
            if name == STANDARD:
                raise
            failed[name] = f"its synthetic set `{name}` cannot be made: {error}"
            print(f"Synthetic set `{name}` cannot be made, cells that need it are left out: {error}", flush=True)
    return failed


def _check_finished(cells: Sequence[Cell], root: Path) -> None:
    """Refuse finished cells that those to come could not be compared with, before these are trained."""
    standard = root / "synthetic" / STANDARD
    found = {cell.name: told["record"] for cell in cells if (told := cell.read(root)) is not None}
    check_same_data({**found, f"the synthetic set {standard}": asked(standard)})


def _make_set(name: str, config: Mapping[str, Any]) -> None:
    import synth

    output = Path(config["output"])
    path = output.with_suffix(".yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    if not (output / "protocol.json").exists():
        print(f"Synthetic set `{name}`: {output}", flush=True)
    said = StringIO()
    try:
        with redirect_stderr(said):
            loaded = synth.load(path)
    except SystemExit as error:  # a key or class is misspelled, which is said and not raised
        raise ConfigError(said.getvalue().strip().removeprefix("error: ")) from error
    sys.stderr.write(said.getvalue())
    made = synth.run(loaded, alone=True)
    if made.made:
        made.show()


class _Study:
    """Cells that are made side by side, those whose checkpoints others test before these."""

    def __init__(self, maker: Maker, cells: Sequence[Cell], there: Sequence[Mapping[str, str]]) -> None:
        self.maker, self.cells, self.jobs = maker, cells, len(there)
        self.free: SimpleQueue[Mapping[str, str]] = SimpleQueue()
        for place in there:
            self.free.put(place)
        self.started = time.monotonic()

    def run(self) -> list[str]:
        """Make them all, and return a sentence for each that failed."""
        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                return self._collect(self._submit(pool))
            except BaseException as error:
                self.maker.commands.stop()
                pool.shutdown(wait=True, cancel_futures=True)
                if isinstance(error, KeyboardInterrupt):
                    sys.stderr.write("Stopped; the same command goes on from here.\n")
                raise

    def _submit(self, pool: ThreadPoolExecutor) -> dict[Future[None], Cell]:
        made: dict[str, Future[None]] = {}
        for cell in self.cells:  # parents first, so that a cell that waits keeps no place from what it waits for
            made[cell.name] = pool.submit(self._make, cell, made.get(cell.parent.name) if cell.parent else None)
        return {made[cell.name]: cell for cell in self.cells}

    def _make(self, cell: Cell, parent: Future[None] | None) -> None:
        if parent is not None and parent.exception() is not None:
            raise CommandError(f"it tests the checkpoint of {cell.row.checkpoint_of}, which failed")
        place = self.free.get()
        try:
            self.maker.make(cell, place)
        finally:
            self.free.put(place)

    def _collect(self, made: Mapping[Future[None], Cell]) -> list[str]:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        failed = []
        columns = TextColumn("cells"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        with Progress(*columns, disable=not sys.stdout.isatty()) as bar:
            task = bar.add_task("", total=len(made))
            for done, future in enumerate(as_completed(made), start=1):
                error = future.exception()
                if error is not None:
                    if not isinstance(error, UserError | OSError):
                        raise error
                    failed.append(f"{made[future].name}: {error}")
                print(f"[{done}/{len(made)}] {self._told(made[future], done)}", flush=True)
                bar.advance(task)
        return failed

    def _told(self, cell: Cell, done: int) -> str:
        """Say how a cell ended, and how long the rest may take."""
        passed, ahead = time.monotonic() - self.started, len(self.cells) - done
        left = f"about {_time(passed / done * ahead)} left" if ahead else f"{_time(passed)} in all"
        found = cell.read(self.maker.root)
        if found is None:
            return f"{cell.name}: failed; {left}"
        shown = ("ODmAP@1", "reranked/ODmAP@1", "rsum")
        scores = ", ".join(f"{name} {found['scores'][name]:.1f}" for name in shown if name in found["scores"])
        return f"{cell.name}: {scores} in {_time(found['record']['seconds'])}; {left}"


def _time(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"

"""How far a run is: bars with rate and time left in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import ProgressColumn, Task, TaskID

T = TypeVar("T")


class Meter:
    """Shows on stderr how much of each task is done; a context manager.

    Args:
        visible: False shows no progress, for all ranks but one; what is said is printed all the same.
        every: seconds between two lines where stderr is no terminal.
    """

    def __init__(self, visible: bool = True, every: float = 60.0) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self._console = Console(stderr=True)
        in_lines = not self._console.is_terminal
        self._bars = Progress(*_columns(), console=self._console, disable=in_lines or not visible)
        self._every = every if in_lines and visible else float("inf")
        self._last = time.monotonic()

    def __enter__(self) -> Meter:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def add(self, label: str, total: int, done: int = 0) -> TaskID:
        """Begin a task of which an earlier run may have done a part; return its number."""
        return self._bars.add_task(label, total=total, completed=done)

    def advance(self, task: TaskID, steps: int = 1) -> None:
        """Count more steps of a task, up to its end."""
        shown = self._bars.tasks[task]
        self._bars.advance(task, min(steps, (shown.total or 0) - shown.completed))
        now = time.monotonic()
        if now - self._last >= self._every:
            self._last = now
            self.say(_line(shown))

    def track(self, items: Iterable[T], total: int, label: str) -> Iterator[T]:
        """Pass items on, and count them as a task."""
        task = self.add(label, total)
        for item in items:
            yield item
            self.advance(task)

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _columns() -> Iterator[ProgressColumn]:
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        """Steps per second."""

        def render(self, task: Task) -> Text:
            return Text(_rate(task))

    yield from (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())


def _rate(task: Task) -> str:
    return f"{task.finished_speed or task.speed or 0:,.1f}/s"


def _line(task: Task) -> str:
    left = "" if task.time_remaining is None else f", {int(task.time_remaining) // 60} min left"
    return f"{task.description}: {task.completed:,.0f} of {task.total or 0:,.0f}, {_rate(task)}{left}"

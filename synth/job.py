"""Runs a synthesis: plan every split, fill the images, write the set."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from datamodules.errors import AnnotationError, ConfigError, UnreadableImageError, UserError
from synth import writer
from synth.config import SynthesisConfig, check_output, check_source, load
from synth.fills import box_mask
from synth.plan import Plan, Planner
from synth.report import SplitCounts, Summary
from synth.rules import Rule

if TYPE_CHECKING:
    from rich.progress import Progress

_Outcome: TypeAlias = dict[str, Any] | UserError


def run(config: SynthesisConfig) -> Summary:
    """Make a synthetic set, or do nothing where the same set is finished already.

    The set depends on the config and the data alone: not on the order of the images, the workers or the machine's
    load. It appears in one step when all of it is written.

    Returns:
        How many counterfactuals each split has, and what each rule rejected.

    Raises:
        UserError: if the config does not fit the data set or the output folder, or a split comes out empty.
    """
    if not (config.output / writer.PROTOCOL).is_file():
        check_output(config.output)
    config.data.prepare_data()
    check_source(config)
    finished = writer.read_finished(config)
    if finished is not None:
        return finished
    with _progress() as progress:
        return _Job(config, progress).run()


def run_file(path: Path | str) -> None:
    """Make the synthetic set of a yaml and print the closing table."""
    run(load(path)).show()


@dataclass(frozen=True)
class _Draft:
    """The plans of one split, and the counts so far, with every plan counted as kept."""

    plans: Sequence[Plan]
    counts: SplitCounts


@dataclass
class _Job:
    """One run: its config, where it shows its progress, and how many images it could not read so far."""

    config: SynthesisConfig
    progress: Progress
    unreadable: int = 0

    def run(self) -> Summary:
        output, names = self.config.output, self.config.splits
        drafts = {name: self.plan(name) for name in names}
        with writer.drafting(output) as folder:
            splits = {name: self.make(draft, folder / name) for name, draft in drafts.items()}
            writer.finish(folder, self.config, splits)
        return Summary(output, splits)

    def plan(self, name: str) -> _Draft:
        planner = Planner(self.config)
        rows = planner.rows(self.config.splits[name])
        stream = planner.pairs(rows) if name in self.config.pairs else planner.queries(rows)
        plans, dropped = [], Counter[Rule]()
        for outcome in self.progress.track(stream, total=len(rows), description=f"{name}: choose"):
            if isinstance(outcome, Rule):
                dropped[outcome] += 1
            else:
                plans.append(outcome)
        counts = SplitCounts(len(rows), len(plans), dropped, planner.judged, planner.rejected)
        return _Draft(plans, _not_empty(name, counts))

    def make(self, draft: _Draft, folder: Path) -> SplitCounts:
        """Write the images and the metadata of one split; an unreadable image moves from kept to dropped."""
        folder.mkdir()
        before = self.unreadable
        with (folder / "metadata.jsonl").open("w", encoding="utf-8") as metadata:
            outcomes = _outcomes(_Work(self.config, folder, draft.plans), self.config.workers)
            for outcome in self.progress.track(outcomes, len(draft.plans), description=f"{folder.name}: fill"):
                if isinstance(outcome, UserError):
                    self.tolerate(outcome)
                else:
                    metadata.write(json.dumps(outcome, ensure_ascii=False) + "\n")
        lost = self.unreadable - before
        dropped = {**draft.counts.dropped, Rule.UNREADABLE: lost}
        return _not_empty(folder.name, replace(draft.counts, kept=draft.counts.kept - lost, dropped=dropped))

    def tolerate(self, error: UserError) -> None:
        """Name and count an unreadable image; any other error, or one too many, ends the run."""
        if not isinstance(error, UnreadableImageError):
            raise error
        self.unreadable += 1
        limit = self.config.data.max_unreadable
        if self.unreadable > limit:
            raise UnreadableImageError(
                f"{self.unreadable} images cannot be read, more than `max_unreadable` {limit} of `data` allows; "
                f"replace the files or raise the limit; the last is: {error}"
            )
        self.progress.console.print(str(error), markup=False)


def _not_empty(name: str, counts: SplitCounts) -> SplitCounts:
    if counts.kept:
        return counts
    reasons = ", ".join(f"{rule.text} ({number})" for rule, number in Counter(counts.dropped).most_common() if number)
    raise ConfigError(
        f"Split `{name}` of `pairs` or `queries` comes out empty, none of its {counts.images} images gives a "
        f"counterfactual{f': {reasons}' if reasons else ''}; name other splits, more images, or other alphas."
    )


@dataclass(frozen=True)
class _Work:
    """The images of one split as a data set for a loader: to get item i is to make and write image i."""

    config: SynthesisConfig
    folder: Path
    plans: Sequence[Plan]

    def __len__(self) -> int:
        return len(self.plans)

    def __getitem__(self, index: int) -> _Outcome:
        plan = self.plans[index]
        try:
            return self._write(plan)
        except UserError as error:  # returned, since a loader would bury its one sentence in a worker's traceback
            return error
        except OSError as error:
            return ConfigError(f"`output` {self.config.output} cannot be written ({error}); make room or name another.")

    def _write(self, plan: Plan) -> dict[str, Any]:
        from PIL import Image

        tables = self.config.data.tables
        image = self.config.data.read_image(plan.row)
        size = (int(tables.widths[plan.row]), int(tables.heights[plan.row]))
        if image.size != size:
            raise AnnotationError(
                f"Image {tables.files[plan.row]} has {image.width} x {image.height} pixels, but its annotation says "
                f"{size[0]} x {size[1]}; mend the annotation file or the image."
            )
        row = writer.row_of(self.config, plan)
        mask = box_mask(plan.removal.boxes, size, self.config.dilation)
        Image.fromarray(self.config.fill(np.asarray(image), mask)).save(self.folder / row["file_name"])
        return row


def _outcomes(work: _Work, workers: int) -> Iterator[_Outcome]:
    """Return the outcomes in order, made here or by worker processes."""
    import cv2
    from torch import Generator
    from torch.utils.data import DataLoader

    if workers:
        cv2.setNumThreads(1)  # a forked worker would wait for ever on OpenCV's threads, which live here alone
    loader: DataLoader[_Outcome] = DataLoader(
        work,  # type: ignore[arg-type]  # a sequence will do
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        generator=Generator(),  # its own: a run that makes its set first shall train like one that finds it
    )
    return iter(loader)


def _as_it_is(outcome: Any) -> Any:
    return outcome


def _progress() -> Progress:
    """Return a progress display on stderr: bars in a terminal, else one line for each stage at the end."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True))

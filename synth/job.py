"""Runs a synthesis: plan every split, fill the images that are not there yet, merge what all ranks have made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datamodules.errors import ConfigError
from synth import shards, tally, workspace, writer
from synth.config import SynthesisConfig, check_output, check_source, load, writing_to
from synth.plan import Plan, Planner, furthest
from synth.progress import Meter
from synth.report import SplitCounts, Summary
from synth.rules import Rule
from synth.shards import Outcome
from synth.stage import Stage, Unit, check_unreadable, workers_watched

if TYPE_CHECKING:
    from synth.predict import Ranks


def run(config: SynthesisConfig, alone: bool = False) -> Summary:
    """Make a synthetic set, go on with an unfinished one, or do nothing where the same set is finished already.

    The set depends on the config and the data alone: not on the order of the images, the workers, the ranks or how
    often the run was killed. It is complete when its `protocol.json` is there.

    Args:
        config: what to make.
        alone: work in this process and its workers, without the Trainer and its options: for a run inside the run of
            another Trainer, whose ranks and devices are not ours to use.

    Returns:
        How many counterfactuals each split has, and what each rule rejected; no splits on ranks after the first.

    Raises:
        UserError: if the config does not fit the data set or the output folder, or a split comes out empty.
    """
    if not (config.output / writer.PROTOCOL).is_file():
        check_output(config.output)
    config.data.prepare_data()
    check_source(config)
    if finished := _finished(config):
        return finished
    ranks = _Alone() if alone else _ranks(config)
    with workspace.claimed(config.output) if ranks.is_first else nullcontext():
        return _finished(config) or _make(config, ranks)


def run_file(path: Path | str) -> None:
    """Make the synthetic set of a yaml inside another run, in its process alone, and print the closing tables."""
    run(load(path), alone=True).show()


def _ranks(config: SynthesisConfig) -> Ranks:
    from synth.predict import Ranks

    return Ranks(config)


class _Alone:
    """The one process where there is no Trainer; else like `Ranks`."""

    is_first = True
    several = False

    def run(self, stage: Stage) -> None:
        import torch

        stage.start(0, 1, "cuda" if stage.on_device and torch.cuda.is_available() else "cpu")
        with torch.inference_mode():
            for batch in stage.loader(0, 1):
                stage.step(batch)

    def wait(self) -> None:
        """Wait for nobody."""


def _finished(config: SynthesisConfig) -> Summary | None:
    """Return the summary of a set that is there, from which a kill may have kept the last act: to clear up."""
    finished = writer.read_finished(config)
    if finished is not None:
        workspace.clear(config.output)
    return finished


@dataclass(frozen=True)
class _Draft:
    """What is planned for one split: the plans of each image that has some, and the counts if all of them work."""

    name: str
    images: Sequence[list[Plan]]
    counts: SplitCounts

    def units(self, config: SynthesisConfig) -> Iterator[Unit]:
        """Yield the images to make; plans that lose the same classes share one."""
        for plans in self.images:
            shared: dict[str, list[Plan]] = {}
            for plan in plans:
                shared.setdefault(writer.file_name(config, plan), []).append(plan)
            yield from (Unit(self.name, name, tuple(some)) for name, some in shared.items())


def _make(config: SynthesisConfig, ranks: Ranks | _Alone) -> Summary:
    with Meter(visible=ranks.is_first) as meter:
        drafts = [_plan(config, name, meter) for name in config.splits]
        if ranks.is_first:
            workspace.begin(config.output, writer.identity(config))
            with writing_to(config.output):
                for name in config.splits:
                    (config.output / name).mkdir(exist_ok=True)
        _fill(config, drafts, ranks, meter)
    try:
        if ranks.is_first:
            return _merge(config, drafts)
    finally:
        ranks.wait()
    return Summary(config.output, {})


def _plan(config: SynthesisConfig, name: str, meter: Meter) -> _Draft:
    planner = Planner(config)
    rows = planner.rows(config.splits[name])
    stream = planner.pairs(rows) if name in config.pairs else planner.queries(rows)
    images, dropped = [], Counter[Rule]()
    for outcome in meter.track(stream, len(rows), f"{name}: choose"):
        if isinstance(outcome, Rule):
            dropped[outcome] += 1
        else:
            images.append(outcome)
    refused = Counter[Rule]()
    for (_, _, rule), count in planner.rejected.items():
        refused[rule] += count
    by_class = tally.rejected(planner.rejected, config.data.tables.class_names)
    kept = sum(len(plans) for plans in images)
    counts = SplitCounts(len(rows), len(images), kept, dropped, planner.judged, refused, by_class)
    return _Draft(name, images, _not_empty(name, counts))


def _fill(config: SynthesisConfig, drafts: Sequence[_Draft], ranks: Ranks | _Alone, meter: Meter) -> None:
    """Make what no shard has yet; of unreadable images, if there are too many, see whether they were mended."""
    done = {draft.name: _done(config, draft.name) for draft in drafts}
    units = [unit for draft in drafts for unit in draft.units(config)]
    unreadable = {unit.plans[0].row for unit in units if _unread(done[unit.split].get(unit.file_name))}
    if len(unreadable) > config.data.max_unreadable:
        unreadable.clear()
        done = {name: {key: each for key, each in some.items() if not _unread(each)} for name, some in done.items()}
    todo = [unit for unit in units if unit.file_name not in done[unit.split]]
    total, left = (Counter(unit.split for unit in some) for some in (units, todo))
    bars = {name: meter.add(f"{name}: fill", total[name], total[name] - left[name]) for name in done}
    if todo or ranks.several:  # where nothing is left, the first must not end the set before all have looked at it
        with Stage(config, todo, unreadable, meter, bars) as stage, workers_watched(config):
            ranks.run(stage)


def _done(config: SynthesisConfig, split: str) -> dict[str, Outcome]:
    return shards.read(workspace.shard_folder(config.output, split), config.output / split)


def _unread(outcome: Outcome | None) -> bool:
    return outcome is not None and Rule.UNREADABLE in outcome.dropped.values()


def _merge(config: SynthesisConfig, drafts: Sequence[_Draft]) -> Summary:
    """Write the metadata in the order of the plans, count, and end the set."""
    done = {draft.name: _done(config, draft.name) for draft in drafts}
    units = [unit for draft in drafts for unit in draft.units(config)]
    if missing := sum(unit.file_name not in done[unit.split] for unit in units):
        raise ConfigError(
            f"{missing} images of {len(units)} were not made, as if options in `trainer` had cut the run short; start "
            "it again, and it goes on."
        )
    check_unreadable(config, {unit.plans[0].row for unit in units if _unread(done[unit.split][unit.file_name])})
    splits = {draft.name: _merge_split(config, draft, done[draft.name]) for draft in drafts}
    writer.finish(config, splits)
    workspace.clear(config.output)
    return Summary(config.output, splits)


def _merge_split(config: SynthesisConfig, draft: _Draft, done: Mapping[str, Outcome]) -> SplitCounts:
    dropped, by_class = Counter(draft.counts.dropped), Counter(draft.counts.tally)
    kept = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal kept
        for plans in draft.images:
            found = [_row(config, plan, done) for plan in plans]
            good = [each for each in found if not isinstance(each, Rule)]
            dropped.update([] if good else [furthest(each for each in found if isinstance(each, Rule))])
            by_class.update(tally.kept(good))
            kept += len(good)
            yield from good

    writer.write_split(config.output / draft.name, rows())
    used = draft.counts.images - dropped.total()
    counts = replace(draft.counts, used=used, kept=kept, dropped=dropped, tally=by_class)
    return _not_empty(draft.name, counts)


def _row(config: SynthesisConfig, plan: Plan, done: Mapping[str, Outcome]) -> dict[str, Any] | Rule:
    """Return the metadata of a counterfactual, or the rule that the fill stage dropped it by."""
    outcome = done[writer.file_name(config, plan)]
    caption = int(config.data.tables.caption_ids[plan.caption]) if plan.caption >= 0 else -1
    if caption in outcome.texts:
        return writer.row_of(config, plan, outcome.texts[caption])
    return outcome.dropped[caption]


def _not_empty(name: str, counts: SplitCounts) -> SplitCounts:
    if counts.kept:
        return counts
    reasons = ", ".join(f"{rule.text} ({number})" for rule, number in Counter(counts.dropped).most_common() if number)
    raise ConfigError(
        f"Split `{name}` of `pairs` or `queries` comes out empty, none of its {counts.images} images gives a "
        f"counterfactual{f': {reasons}' if reasons else ''}; name other splits, more images, or other alphas."
    )

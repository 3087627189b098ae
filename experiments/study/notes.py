"""The sentences that stand with a table: what was asked, how sure the numbers are, and what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from experiments.study.layout import number
from experiments.study.lines import CONTROL, ORACLE, Line
from experiments.study.paper import Paper
from experiments.study.results import RERANKED, Results

INTERVALS = (
    "Square brackets hold 95 % bootstrap intervals over groups of queries (those of one source image), a query's value "
    "being its mean over the seeds; they do not cover the spread over seeds, whose standard deviation the csv holds."
)


def setting(results: Results, found: Sequence[Line], common: Mapping[str, object]) -> Iterator[str]:
    """Yield what was asked of whom.

    Args:
        results: of the table.
        found: its rows.
        common: what all its rows share; of it the data set, the device and the protocol are said.
    """
    seeds = sorted({seed for scores in results.scores.values() for seed in scores.seeds})
    if not seeds:
        return
    labels = {line.names[0]: line.labels[0] for line in found}
    said = [
        f"{common.get('dataset', 'Data')}: {results.sizes['queries']:,} queries",
        f"gallery of {results.sizes['gallery']:,} captions",
        f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}",
        *_steps(results, labels),
        *(f"{name} {common[name]}" for name in ("device", "protocol") if common.get(name)),
    ]
    yield f"{'; '.join(said)}."
    yield INTERVALS


def mixed(common: Mapping[str, object]) -> Iterator[str]:
    """Yield what the cells were not all made with that may move their scores.

    Args:
        common: what all rows share; values that differ between cells are joined by "; ".
    """
    for name in ("device", "torch", "commit"):
        if "; " in str(common.get(name, "")):
            yield f"The cells were made with more than one {name}: {common[name]}."


def comparisons(results: Results, found: Sequence[Line], control: str) -> Iterator[str]:
    """Yield how the rows were compared with their controls.

    Args:
        results: of the table.
        found: its rows.
        control: label of the row that they are compared with.
    """
    compared = [line for line in found if line.differences]
    if not compared:
        return
    alike = all(len(steps) == 1 for steps in results.steps.values() if steps)
    has = "the optimiser steps and seeds" if alike else "the seeds, though not exactly the optimiser steps,"
    yield (
        f"Changes are against {control}, which has {has} of the other trained rows, and are "
        f"paired over queries; p is that of a two-sided sign-flip test, corrected by Holm's procedure for the "
        f"{len(compared)} rows compared."
    )
    if fewer := [part for line in compared if (part := _on_fewer_seeds(results, line))]:
        yield f"Compared on the seeds alone that the control has, too: {'; '.join(fewer)}."


def _steps(results: Results, labels: Mapping[str, str]) -> Iterator[str]:
    counts = {
        model: " to ".join(f"{count:,}" for count in (*steps[:1], *steps[1:][-1:]))
        for model, steps in results.steps.items()
    }
    if any(counts.values()):
        yield f"optimiser steps: {', '.join(f'{labels[model]} {said}' for model, said in counts.items() if said)}"


def _on_fewer_seeds(results: Results, line: Line) -> str:
    """Return which seeds a row was compared on, where it or its control has others."""
    common = next(iter(line.differences.values())).seeds
    rows = (line.names, (line.names[0], CONTROL))
    alike = all(results.scores[names].seeds == common for names in rows)
    return "" if alike else f"{_name(line)} ({', '.join(map(str, common))})"


def gap(found: Sequence[Line], control: str, oracle: str) -> Iterator[str]:
    """Yield what a share of the gap is, where there is an oracle."""
    if not any(line.names[1] == ORACLE for line in found):
        return
    yield (
        f"Gap closed: share of the way in ODmAP@1 from {control} to {oracle}, trained on data without the correlation; "
        "none is given where that way is not above 0 in every draw of the bootstrap."
    )


def references(found: Sequence[Line]) -> Iterator[str]:
    """Yield what ODmAP is without a model."""
    line = next((line for line in found if line.estimates), None)
    if line is None:
        return
    chance, own = (_cuts(line, f"{name}/ODmAP@") for name in ("random", "own_captions"))
    if chance and own:
        yield f"ODmAP@1/5/10 of a random ranking: {chance}; of the source image's own captions: {own}."
    models = sorted({line.labels[0] for line in found if line.prefix == RERANKED})
    plain = [_name(line) for line in found if line.prefix != RERANKED and line.estimates and line.labels[0] in models]
    if models:
        yield f"Scores of {', '.join(models)} are those after re-ranking{', but for ' * bool(plain)}{', '.join(plain)}."


def beside(found: Sequence[Line], paper: Paper) -> Iterator[str]:
    """Yield where the paper's figures are from."""
    if any(line.paper for line in found):
        yield (
            f"Paper: {paper.source}, {paper.dataset}, single runs; its models, images and word lists differ from these."
        )


def missing(results: Results) -> Iterator[str]:
    """Yield which cells are missing."""
    if results.missing:
        yield f"Missing, since their runs did not end: {', '.join(results.missing)}."


def _cuts(line: Line, prefix: str) -> str:
    found = [line.estimates.get(f"{prefix}{cut}") for cut in (1, 5, 10)]
    return " / ".join(number(one.mean) for one in found if one)


def _name(line: Line) -> str:
    return ", ".join(line.labels)

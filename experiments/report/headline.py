"""The headline numbers of a report: every measure of every file of a test, and `rsum`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.errors import ConfigError
from experiments.report.numbers import table
from experiments.report.tested import Run
from experiments.rsum import by_image
from metrics.compare import Difference, Mean, compare, show
from metrics.per_query import PerQueryError, read
from metrics.statistics import bootstrap, holm, paired_test

_WAYS = ("i2t", "t2i")


def headline(runs: Sequence[Run]) -> str:
    """Return the scores of one run with intervals or, of two, also their differences, tests and corrected p-values.

    Of two runs the files that both have are taken; others are named below.

    Raises:
        ConfigError: the results cannot be used or compared.
    """
    files, alone = _files(runs)
    try:
        means = [[*_means(run.folder, files), *_sums(run.folder, files)] for run in runs]
        tested = _differences(runs[0].folder, runs[1].folder, files) if len(runs) == 2 else {}
    except PerQueryError as error:
        raise ConfigError(str(error)) from error
    heads = [
        "",
        "measure",
        *(run.name for run in runs),
        *(["difference", "p", "p (Holm)"] if tested else []),
        "queries",
    ]
    rows = [
        [one.file, one.measure, *map(_mean, (one, *rest)), *tested.get((one.file, one.measure), []), f"{one.queries:,}"]
        for one, *rest in _aligned(means)
    ]
    note = f"<p>Left out, as only one of the two has them: {', '.join(alone)}.</p>" if alone else ""
    return table(heads, rows) + note


def _files(runs: Sequence[Run]) -> tuple[list[str], list[str]]:
    """Return the names of the files that all runs have, and of those that only one has."""
    names = [{path.stem for path in run.folder.glob("*.parquet")} for run in runs]
    shared = set.intersection(*names)
    return sorted(shared), sorted(set.union(*names) - shared)


def _means(folder: Path, files: Sequence[str]) -> list[Mean]:
    return [row for name in files for row in show(folder / f"{name}.parquet", {})]


def _differences(first: Path, second: Path, files: Sequence[str]) -> dict[tuple[str, str], list[str]]:
    """Return cells by file and measure; the p-values of all measures that differ are corrected together."""
    paths = [(first / f"{name}.parquet", second / f"{name}.parquet") for name in files]
    rows = [row for pair in paths for row in compare(*pair, {})]
    rows += _sums_compared(first, second, files)
    corrected = iter(holm([row.p_value for row in rows if row.changed]).tolist())
    return {(row.file, row.measure): _difference(row, corrected) for row in rows}


def _sums(folder: Path, files: Sequence[str]) -> list[Mean]:
    """Return `rsum` of the embeddings and, where there is, that after re-ranking."""
    rows = []
    for name, values in _rsums(folder, files).items():
        interval: Any = bootstrap(values) if len(values) > 1 else (values.mean(), None, None)
        rows.append(Mean(name, "rsum", len(values), len(values), *interval))
    return rows


def _sums_compared(first: Path, second: Path, files: Sequence[str]) -> list[Difference]:
    both = [_rsums(folder, files) for folder in (first, second)]
    rows = []
    for name, one in both[0].items():
        other, count = both[1][name], len(one)
        found: Any = paired_test(one, other)
        means = float(one.mean()), float(other.mean()), int((one != other).sum())
        rows.append(Difference(name, "rsum", count, count, *means, *found))
    return rows


def _rsums(folder: Path, files: Sequence[str]) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """Return the sum of the recalls by image, by the name of its row."""
    sums = {}
    for prefix in ("", "reranked-"):
        names = [f"{prefix}{way}" for way in _WAYS]
        if set(names) <= set(files):
            ways = [read(folder / f"{name}.parquet") for name in names]
            recalls = [(way.values(way.measures), np.asarray(way.groups)) for way in ways]
            sums[" + ".join(names)] = by_image(recalls)[0]
    return sums


def _aligned(means: Sequence[Sequence[Mean]]) -> list[list[Mean]]:
    """Return the same measure of all runs; baselines such as a random ranking, which no model changes, are last."""
    places = [{(row.file, row.measure): row for row in rows} for rows in means]
    keys = sorted(places[0], key=lambda key: (key[0] != "odmap", key[0].startswith("reranked"), "/" in key[1]))
    return [[rows[key] for rows in places] for key in keys]


def _mean(row: Mean) -> str:
    if row.low is None or row.high is None:
        return f"{row.mean:.1f}"
    return f"{row.mean:.1f} ({row.low:.1f} to {row.high:.1f})"


def _difference(row: Difference, corrected: Any) -> list[str]:
    if not row.changed:
        return ["equal", "", ""]
    return [f"{row.difference:+.1f} ({row.low:+.1f} to {row.high:+.1f})", _p(row.p_value), _p(next(corrected))]


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"

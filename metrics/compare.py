"""What `python -m metrics` says about files of per-query results: means with intervals, and the test of two models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from reprlib import repr as shortened
from typing import Any, NamedTuple, TypedDict

import numpy as np

from metrics.per_query import PerQuery, PerQueryError, read
from metrics.statistics import bootstrap, holm, paired_test


class Options(TypedDict, total=False):
    """What `bootstrap` and `paired_test` take beside the values."""

    resamples: int
    confidence: float
    seed: int


class Mean(NamedTuple):
    """The mean of one measure over the queries of one file, in per cent; no interval where there is one group."""

    file: str
    measure: str
    queries: int
    groups: int
    mean: float
    low: float | None
    high: float | None


class Difference(NamedTuple):
    """One measure of two models in per cent, its difference (second - first) with interval, and the p-values.

    `changed` is the number of queries for which the two are not equal.
    """

    file: str
    measure: str
    queries: int
    groups: int
    first: float
    second: float
    changed: int
    difference: float
    low: float
    high: float
    p_value: float
    p_holm: float = 1.0


def show(path: Path, options: Options) -> list[Mean]:
    """Return every measure of a file, or of all `*.parquet` of a folder.

    Raises:
        PerQueryError: A file cannot be used, or the folder has none.
    """
    return [row for name, file in _files(path).items() for row in _means(name, read(file), options)]


def compare(first: Path, second: Path, options: Options) -> list[Difference]:
    """Compare two models on the same queries: two files, or two folders with files of equal names.

    The p-values are also given corrected by Holm's procedure for all measures that differ for any query. Leaving out
    those that are equal throughout (as reference rows without a model are) keeps the level: which those are is the same
    under every pattern of signs.

    Raises:
        PerQueryError: A file cannot be used, or comparing the two would be wrong: they hold other queries, queries that
            differ in what was asked, or other measures.
    """
    pairs = {name: (read(one), read(other)) for name, (one, other) in _pairs(first, second).items()}
    for one, other in pairs.values():
        check_comparable(one, other)
    rows = [row for name, pair in pairs.items() for row in _differences(name, *pair, options)]
    corrected = iter(holm([row.p_value for row in rows if row.changed]).tolist())
    return [row._replace(p_holm=next(corrected)) if row.changed else row for row in rows]


def _files(path: Path) -> dict[str, Path]:
    """Return the files that a path stands for, by the name to show."""
    if not path.is_dir():
        return {path.stem: path}
    files = {file.stem: file for file in sorted(path.glob("*.parquet"))}
    if not files:
        raise PerQueryError(f"Folder {path} holds no *.parquet; name a file of per-query results or a folder of them.")
    return files


def _pairs(first: Path, second: Path) -> dict[str, tuple[Path, Path]]:
    if first.is_dir() != second.is_dir():
        folder, file = (first, second) if first.is_dir() else (second, first)
        raise PerQueryError(f"{folder} is a folder and {file} is none; name two files or two folders.")
    if not first.is_dir():
        return {first.stem: (first, second)}
    one, other = _files(first), _files(second)
    if unpaired := one.keys() ^ other.keys():
        name = min(unpaired)
        has, lacks = (first, second) if name in one else (second, first)
        raise PerQueryError(f"{has} holds {name}.parquet and {lacks} does not; name two files to compare these alone.")
    return {name: (file, other[name]) for name, file in one.items()}


def _means(name: str, file: PerQuery, options: Options) -> Iterator[Mean]:
    values, sizes = file.values(file.measures), _sizes(file)
    found: tuple[Any, ...] = values.mean(axis=0), *[[None] * len(file.measures)] * 2
    if sizes[1] > 1:
        found = bootstrap(values, file.groups, **options)
    for measure, *numbers in zip(file.measures, *map(_plain, found), strict=True):
        yield Mean(name, measure, *sizes, *numbers)


def _differences(name: str, first: PerQuery, second: PerQuery, options: Options) -> Iterator[Difference]:
    one, other = first.values(first.measures), second.values(first.measures)
    sizes = _sizes(first)
    if sizes[1] < 2:
        raise PerQueryError(f"{first.path} holds one group of queries; a test needs 2 groups or more.")
    found = one.mean(axis=0), other.mean(axis=0), (one != other).sum(axis=0)
    tested = paired_test(one, other, first.groups, **options)
    for measure, *numbers in zip(first.measures, *map(_plain, (*found, *tested)), strict=True):
        yield Difference(name, measure, *sizes, *numbers)


def _sizes(file: PerQuery) -> tuple[int, int]:
    """Return how many queries and how many groups of them a file holds."""
    queries = len(file.ids)
    return queries, queries if file.groups is None else len(np.unique(file.groups))


def _plain(numbers: Any) -> list[Any]:
    """Return Python's own numbers, which print and compare as people expect."""
    plain: list[Any] = np.asarray(numbers).tolist()
    return plain


def check_comparable(first: PerQuery, second: PerQuery) -> None:
    """Refuse two files whose difference would not be that of the models.

    Raises:
        PerQueryError: They hold other queries, queries that differ in what was asked, or other measures.
    """
    for what, one, other in _settings(first, second):
        if one != other:
            raise _incomparable(first, second, f"{what} differ, {shortened(one)} and {shortened(other)}")
    _check_ids(first, second)
    grouped = {first.group} if first.group else set()
    for name in sorted((grouped | set(first.fixed)) & set(first.table.column_names)):
        one, other = first.table[name].to_pylist(), second.table[name].to_pylist()
        for query, here, there in zip(first.ids, one, other, strict=True):
            if here != there:
                what = f"{name} of query {query!r} differs, {shortened(here)} and {shortened(there)}"
                raise _incomparable(first, second, what)


def _settings(first: PerQuery, second: PerQuery) -> Iterator[tuple[str, Any, Any]]:
    yield "the columns of query ids", first.query_id, second.query_id
    yield "the columns of groups", first.group, second.group
    for role in ("measures", "fixed"):
        one, other = set(getattr(first, role)), set(getattr(second, role))
        yield f"the names under `{role}`", sorted(one - other), sorted(other - one)
    here, there = (sorted(set(file.fixed) & set(file.table.column_names)) for file in (first, second))
    yield "the columns that describe the task", here, there
    for name in sorted(set(first.fixed) - set(first.table.column_names)):
        yield f"the values of {name}", first.about[name], second.about.get(name)


def _check_ids(first: PerQuery, second: PerQuery) -> None:
    one, other = set(first.ids), set(second.ids)
    alone = [(file.path, ids) for file, ids in ((first, one - other), (second, other - one)) if ids]
    if alone:
        counts = " and ".join(f"{path} alone holds {len(ids):,} of the query ids" for path, ids in alone)
        raise _incomparable(first, second, f"{counts}, the first is {min(alone[0][1])!r}")


def _incomparable(first: PerQuery, second: PerQuery, why: str) -> PerQueryError:
    mend = "evaluate both models on the same queries and gallery"
    return PerQueryError(f"{first.path} and {second.path} cannot be compared: {why}; {mend}.")

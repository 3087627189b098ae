"""What the cells of a study found, query by query, checked to be of the same queries and gallery."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import ConfigError
from experiments.rsum import by_image
from experiments.study.cells import Cell
from metrics.compare import check_comparable
from metrics.per_query import PerQuery, PerQueryError, read

FloatArray: TypeAlias = NDArray[np.float64]

RERANKED = "reranked/"
"""What the names of measures after re-ranking start with."""

_KINDS = {"odmap": "", "i2t": "i2t/", "t2i": "t2i/"}  # files, and what the names of their measures start with
_WAYS = ("i2t", "t2i")

_Files: TypeAlias = dict[str, PerQuery]  # by kind


@dataclass(frozen=True)
class Block:
    """Measures over the same queries.

    Attributes:
        measures: M names.
        values: `[S, Q, M]` in per cent.
        groups: `[Q]`: queries that are not independent share one.
    """

    measures: tuple[str, ...]
    values: FloatArray
    groups: NDArray[Any]


@dataclass(frozen=True)
class Scores:
    """What one row of one model found.

    Attributes:
        seeds: S seeds, ascending.
        blocks: no measure is in two of them.
        single: scores without a value per query, `[S]` each.
    """

    seeds: tuple[int, ...]
    blocks: tuple[Block, ...]
    single: dict[str, FloatArray]

    @property
    def prefix(self) -> str:
        """What the names of its scores start with: those after re-ranking where the model re-ranks."""
        reranks = any(measure.startswith(RERANKED) for block in self.blocks for measure in block.measures)
        return RERANKED if reranks else ""

    def at(self, seeds: Sequence[int]) -> Scores:
        """Return the same of some of the seeds."""
        rows = [self.seeds.index(seed) for seed in seeds]
        blocks = (Block(block.measures, block.values[rows], block.groups) for block in self.blocks)
        return Scores(tuple(seeds), tuple(blocks), {name: values[rows] for name, values in self.single.items()})

    def __getitem__(self, measure: str) -> FloatArray:
        """Return one measure, `[S, Q]`."""
        for block in self.blocks:
            if measure in block.measures:
                return block.values[..., block.measures.index(measure)]
        raise KeyError(measure)


@dataclass(frozen=True)
class Results:
    """What the cells of a study found.

    Attributes:
        scores: by name of model and name of row; a row of which no cell is there is left out.
        missing: the cells that are not there, as MODEL/ROW/seedN.
        sizes: how many queries ODmAP was asked, and how many captions its gallery holds; empty without a cell.
        records: how the cells were made, one each, with the hash of what decided their results as `hash`.
        steps: optimiser steps of the trainings, by name of model, ascending; more than one where they differ.
    """

    scores: dict[tuple[str, str], Scores]
    missing: tuple[str, ...]
    sizes: dict[str, int]
    records: tuple[dict[str, Any], ...]
    steps: dict[str, tuple[int, ...]]


def load(root: Path, cells: Iterable[Cell]) -> Results:
    """Read what the cells of a study found.

    `rsum` has a value per image, whose mean over the images is the sum of the six recalls. Measures after re-ranking
    start with `reranked/`.

    Args:
        root: folder of the study.
        cells: those of a table; those that are not finished are listed as missing.

    Raises:
        ConfigError: a cell was made with other settings, a file of results cannot be used, or two cells were not
            tested on the same data, queries and gallery.
    """
    found: dict[tuple[str, str], dict[int, _Files]] = {}
    missing: list[str] = []
    records: dict[str, dict[str, Any]] = {}
    first: _Files = {}
    steps: dict[str, set[int]] = {}
    for cell in cells:
        told = cell.read(root)
        if told is None:
            missing.append(cell.name)
            continue
        files = _comparable(cell.folder(root) / told["results"], first)
        found.setdefault((cell.model, cell.row.name), {})[cell.seed] = files
        records[cell.name] = {**told["record"], "hash": told["hash"]}
        steps.setdefault(cell.model, set()).update(_steps(cell.folder(root)))
    check_same_data(records)
    scores = {place: _scores(dict(sorted(seeds.items()))) for place, seeds in found.items()}
    sorted_steps = {model: tuple(sorted(counts)) for model, counts in steps.items()}
    return Results(scores, tuple(missing), _sizes(first), tuple(records.values()), sorted_steps)


def check_same_data(records: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse cells of other data or of another set of queries, which may bear the same ids.

    Args:
        records: of cells, or what they would have, by what to call them in the message.

    Raises:
        ConfigError: two differ.
    """
    for key, what in (("data", "data"), ("protocol", "synthetic queries")):
        named: dict[Any, str] = {}
        for name, record in records.items():
            named.setdefault(record.get(key), name)
        if len(named) > 1:
            (one, first), (other, second), *_ = named.items()
            raise ConfigError(
                f"Results of a study cannot be compared: {first} and {second} have other {what} ({key} {one} and "
                f"{other}): delete the folders of cells that are out of date, and give the command again."
            )


def _steps(folder: Path) -> list[int]:
    """Return the optimiser steps of a cell's training, of which the log counts from 0; none without a training."""
    logged = []
    for path in folder.glob("fit/*/metrics.csv"):  # several where it was taken up again
        with path.open(newline="", encoding="utf-8") as file:
            logged += [int(line["step"]) for line in csv.DictReader(file)]
    return [max(logged) + 1] if logged else []


def _comparable(folder: Path, first: _Files) -> _Files:
    """Return the files of one cell, after comparing them with the first of each kind."""
    try:
        files = _files(folder)
        for kind, file in files.items():
            check_comparable(first.setdefault(kind, file), file)
    except PerQueryError as error:
        raise ConfigError(f"Results of a study cannot be used: {error}") from error
    return files


def _files(folder: Path) -> _Files:
    """Return the files of one cell by kind; those of re-ranking only where there are."""
    files = {kind: read(folder / f"{kind}.parquet") for kind in _KINDS}
    for kind in _KINDS:
        if (path := folder / f"reranked-{kind}.parquet").exists():
            files[f"{RERANKED}{kind}"] = read(path)
    return files


def _scores(seeds: dict[int, _Files]) -> Scores:
    kinds = [kind for kind in next(iter(seeds.values())) if all(kind in files for files in seeds.values())]
    blocks = {kind: _block(kind, [files[kind] for files in seeds.values()]) for kind in kinds}
    prefixes = [prefix for prefix in ("", RERANKED) if f"{prefix}odmap" in kinds]
    sums = [_rsum(f"{prefix}rsum", [blocks[prefix + way] for way in _WAYS]) for prefix in prefixes]
    single = {
        f"{prefix}hubs/distinct@1": np.array([_distinct(files[f"{prefix}odmap"]) for files in seeds.values()])
        for prefix in prefixes
    }
    return Scores(tuple(seeds), (*blocks.values(), *sums), single)


def _block(kind: str, files: Sequence[PerQuery]) -> Block:
    first = files[0]
    prefix, name = (RERANKED, kind.removeprefix(RERANKED)) if kind.startswith(RERANKED) else ("", kind)
    measures = tuple(f"{prefix}{_KINDS[name]}{measure}" for measure in first.measures)
    groups = np.arange(len(first.ids)) if first.groups is None else first.groups
    return Block(measures, np.stack([file.values(first.measures) for file in files]), groups)


def _rsum(name: str, ways: Sequence[Block]) -> Block:
    """Return the sum of the recalls of every seed, by image."""
    found = [by_image([(block.values[seed], block.groups) for block in ways]) for seed in range(len(ways[0].values))]
    return Block((name,), np.stack([values for values, _ in found])[..., None], found[0][1])


def _distinct(file: PerQuery) -> float:
    """Return how many captions are at the first rank, per query and in per cent (metrics.functional.hubness)."""
    from pyarrow import compute

    return 100 * len(compute.list_element(file.table["retrieved_ids"], 0).unique()) / len(file.ids)


def _sizes(files: _Files) -> dict[str, int]:
    if "odmap" not in files:
        return {}
    return {"queries": len(files["odmap"].ids), "gallery": int(files["odmap"].about["gallery"])}

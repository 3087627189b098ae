"""The csv of a table against numbers that plain loops take from the files of the cells, query by query."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from itertools import combinations_with_replacement, product
from math import factorial, prod
from pathlib import Path
from statistics import mean, stdev
from typing import Any, TypeAlias

import pytest

from experiments import table1
from experiments.study.paper import paper
from experiments.study.results import load
from experiments.study.tables import labels_of, render
from metrics import per_query

Query: TypeAlias = tuple[Any, float]  # its group and its value

MEASURES = {"ODmAP@1": "odmap", "ODmAP@10": "odmap", "i2t/R@5": "i2t", "t2i/R@1": "t2i"}
SEEDS = {"control": (0, 1, 2), "synthetic": (0, 1, 2), "oracle": (0, 1), "zero_shot": (0,)}
LEVELS = {"control": 40, "synthetic": 43, "oracle": 60, "zero_shot": 39}


@pytest.fixture
def made(cells: Any) -> dict[tuple[str, str, int], Any]:
    """Return cells whose queries gain unlike much, of a model that re-ranks and of one that does not."""
    found = {}
    for model, row in product(("clip", "blip"), LEVELS):
        for seed in SEEDS[row]:
            level = LEVELS[row] + 2 * seed
            reranked = level + 10 + 3 * (row == "synthetic") if model == "blip" else None
            found[model, row, seed] = cells.add(model, row, seed, level, reranked, draw=len(found))
    return found


@pytest.fixture
def records(made: dict[Any, Any], cells: Any, tmp_path: Path) -> dict[tuple[str, str, str], dict[str, str]]:
    results = load(cells.root, made.values())
    render(table1.FORM, results, labels_of(made.values()), paper("table1", "Scenes"), {}, tmp_path)
    with (tmp_path / "table1.csv").open(newline="") as file:
        return {(line["model"], line["row"], line["measure"]): line for line in csv.DictReader(file)}


@pytest.fixture
def queries(made: dict[Any, Any], cells: Any) -> Callable[[str, str, str, Sequence[int]], list[Query]]:
    """Return what gives every query of a row with its group and its mean over seeds."""

    def read(model: str, row: str, measure: str, seeds: Sequence[int]) -> list[Query]:
        reranked, name = measure.startswith("reranked/"), measure.removeprefix("reranked/")
        found: dict[Any, list[Query]] = {}
        for seed in seeds:
            folder = made[model, row, seed].folder(cells.root) / "out"
            table = per_query.read(folder / f"{'reranked-' * reranked}{MEASURES[name]}.parquet").table.to_pylist()
            for line in table:
                query, group = (line.get(key) for key in ("query_id", "source" if "ODmAP" in name else "image_id"))
                found.setdefault(query, []).append((group, line[name.split("/")[-1]]))
        return [(values[0][0], mean(value for _, value in values)) for values in found.values()]

    return read


def _grouped(queries: Sequence[Query]) -> list[list[float]]:
    groups: dict[Any, list[float]] = {}
    for group, value in queries:
        groups.setdefault(group, []).append(value)
    return list(groups.values())


def _check_interval(given: Sequence[str], groups: Sequence[Any], statistic: Callable[[list[Any]], float]) -> None:
    """Check the ends of an interval against all draws that there are, each as often as it comes."""
    places = range(len(groups))
    found = sorted(
        (
            statistic([one for place in drawn for one in groups[place]]),
            factorial(len(groups)) / prod(factorial(drawn.count(place)) for place in places),
        )
        for drawn in combinations_with_replacement(places, len(groups))
    )
    total, passed, ends = sum(times for _, times in found), 0.0, []
    wanted = [0.019, 0.031, 0.969, 0.981]  # 4 standard errors of 10,000 draws around the ends
    for value, times in found:
        passed += times / total
        while wanted and passed >= wanted[0]:
            ends.append(value)
            wanted.pop(0)
    low, high = map(float, given)
    assert ends[0] - 1e-3 <= low <= ends[1] + 1e-3
    assert ends[2] - 1e-3 <= high <= ends[3] + 1e-3


def _sign_flip(groups: Sequence[Sequence[float]]) -> float:
    """Return the share of all patterns of signs whose sum is as far from 0 as that found."""
    sums = [sum(group) for group in groups]
    patterns = list(product((1, -1), repeat=len(sums)))
    far = [abs(sum(sign * one for sign, one in zip(signs, sums, strict=True))) for signs in patterns]
    return sum(one >= abs(sum(sums)) - 1e-9 for one in far) / len(patterns)


def _holm(p_values: dict[Any, float]) -> dict[Any, float]:
    found, highest = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda one: p_values[one])):
        highest = max(highest, min(1.0, p_values[name] * (len(p_values) - rank)))
        found[name] = highest
    return found


def _shown(model: str) -> str:
    return "reranked/" if model == "blip" else ""


@pytest.mark.parametrize("measure", MEASURES)
def test_means_and_intervals_are_those_of_loops(records: Any, queries: Any, measure: str) -> None:
    for model, row in product(("clip", "blip"), LEVELS):
        name = _shown(model) + measure
        line = records[model, row, name]
        values = queries(model, row, name, SEEDS[row])
        assert float(line["mean"]) == pytest.approx(mean(value for _, value in values), rel=1e-5)
        _check_interval([line["low"], line["high"]], _grouped(values), mean)
        by_seed = [mean(value for _, value in queries(model, row, name, [seed])) for seed in SEEDS[row]]
        assert line["seeds"] == str(len(by_seed))
        assert (line["seed_sd"] == "") == (len(by_seed) == 1)
        if line["seed_sd"]:
            assert float(line["seed_sd"]) == pytest.approx(stdev(by_seed), rel=1e-5)


@pytest.mark.parametrize("measure", MEASURES)
def test_differences_are_those_of_loops_corrected_for_all_rows_that_the_table_shows(
    records: Any, queries: Any, measure: str
) -> None:
    p_values = {}
    for model, row in product(("clip", "blip"), ("synthetic", "oracle", "zero_shot")):
        name, common = _shown(model) + measure, SEEDS[row]
        line = records[model, row, name]
        gains = [
            (group, value - before)
            for (group, value), (_, before) in zip(
                queries(model, row, name, common), queries(model, "control", name, common), strict=True
            )
        ]
        assert line["common_seeds"] == " ".join(map(str, common))
        assert float(line["difference"]) == pytest.approx(mean(gain for _, gain in gains), rel=1e-5, abs=1e-6)
        _check_interval([line["difference_low"], line["difference_high"]], _grouped(gains), mean)
        p_values[model, row] = _sign_flip(_grouped(gains))
        assert float(line["p_value"]) == pytest.approx(p_values[model, row], rel=1e-5)
    for (model, row), p_holm in _holm(p_values).items():
        assert float(records[model, row, _shown(model) + measure]["p_holm"]) == pytest.approx(p_holm, rel=1e-5)


def test_shares_of_the_gap_are_those_of_loops(records: Any, queries: Any) -> None:
    for model, row in product(("clip", "blip"), ("synthetic", "zero_shot")):
        name, common = f"{_shown(model)}ODmAP@1", sorted(set(SEEDS[row]) & set(SEEDS["oracle"]))
        three = [queries(model, one, name, common) for one in ("control", row, "oracle")]
        groups: dict[Any, list[tuple[float, float]]] = {}
        for (group, start), (_, mine), (_, end) in zip(*three, strict=True):
            groups.setdefault(group, []).append((mine - start, end - start))

        def share(gains: list[tuple[float, float]]) -> float:
            return 100 * sum(mine for mine, _ in gains) / sum(gap for _, gap in gains)

        line = records[model, row, name]
        all_gains = [one for group in groups.values() for one in group]
        assert float(line["gap_closed"]) == pytest.approx(share(all_gains), rel=1e-5)
        _check_interval([line["gap_closed_low"], line["gap_closed_high"]], list(groups.values()), share)

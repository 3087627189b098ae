"""How often each class, alone and beside another, was removed or could not be: the table `classes.csv` of a set."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from synth.rules import Rule

Tally: TypeAlias = Mapping[tuple[str, str, str], int]
"""Counts by class, other class ("" for the class alone) and outcome: "kept", or the value of a rule."""

FILE = "classes.csv"
_COLUMNS = ("split", "class", "beside", "outcome", "count")


def kept(rows: Iterable[Mapping[str, Iterable[str]]]) -> Counter[tuple[str, str, str]]:
    """Count the classes that counterfactuals lost, and each beside every class that stayed.

    Args:
        rows: `removed` and `kept` of the metadata of a split.

    Example:
        >>> dict(kept([{"removed": ["dog"], "kept": ["frisbee"]}]))
        {('dog', '', 'kept'): 1, ('dog', 'frisbee', 'kept'): 1}
    """
    return Counter((gone, other, "kept") for row in rows for gone in row["removed"] for other in ["", *row["kept"]])


def rejected(
    judged: Mapping[tuple[int, int | None, Rule], int], class_names: Sequence[str]
) -> Counter[tuple[str, str, str]]:
    """Count the candidates that rules of selection rejected, and each beside the class that it would cover.

    Args:
        judged: counts by candidate, class in the way where there is one, and rule.
        class_names: position = class index.
    """
    found: Counter[tuple[str, str, str]] = Counter()
    for (candidate, against, rule), count in judged.items():
        found[class_names[candidate], "", rule.value] += count
        if against is not None:
            found[class_names[candidate], class_names[against], rule.value] += count
    return found


def as_csv(splits: Mapping[str, Tally]) -> str:
    """Return the counts of all splits as a table, in an order that depends on the counts alone."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_COLUMNS)
    table.writerows((name, *key, count) for name, tally in splits.items() for key, count in sorted(tally.items()))
    return text.getvalue()


def read(path: Path) -> dict[str, Counter[tuple[str, str, str]]]:
    """Return the counts that `as_csv` gave, by split; none where the file is missing."""
    found: dict[str, Counter[tuple[str, str, str]]] = {}
    for row in _rows(path):
        split, *key, count = (row[column] for column in _COLUMNS)
        found.setdefault(split, Counter())[key[0], key[1], key[2]] = int(count)
    return found


def _rows(path: Path) -> Iterator[dict[str, str]]:
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as table:
            yield from csv.DictReader(table)

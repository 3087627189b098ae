"""The rows of the tables: what each trains on and how, and what it is tested with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from datamodules.errors import ConfigError
from experiments.study.settings import STANDARD, Settings, known

QUERYBANK = {"trainer": {"callbacks": [{"class_path": "lightning_modules.callbacks.Querybank"}]}}


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        name: by which it is asked for.
        label: to show.
        overlay: what it changes in the config of training.
        synthesis: name of the synthetic set that it is trained on.
        changes: what the synthesis of that set has else than the standard one.
        on_oracle: whether it is trained on the data without the correlation.
        trained: whether it is trained at all.
        checkpoint_of: row whose checkpoint it tests, in place of a training of its own.
        test: what it changes in the config of testing.
    """

    name: str
    label: str
    overlay: dict[str, Any] = field(default_factory=dict)
    synthesis: str = STANDARD
    changes: dict[str, Any] = field(default_factory=dict)
    on_oracle: bool = False
    trained: bool = True
    checkpoint_of: str | None = None
    test: dict[str, Any] = field(default_factory=dict)


def rows(settings: Settings) -> dict[str, Row]:
    """Return all rows that a study can have, by name; a training is D + D' where it does not say otherwise.

    Every row has the epochs of `control`, and is tested on the same queries and gallery. Those that mix all pairs have
    its steps as well; where batches hold sources with their pairs or a fixed share of them, as many as these fill.
    """
    return {row.name: row for row in _rows(settings)}


def row(settings: Settings, name: str) -> Row:
    """Return a row by its name.

    Raises:
        ConfigError: there is none.
    """
    there = rows(settings)
    if name not in there:
        raise ConfigError(f"A study of {settings.name} has no row {name!r}, {known(name, there)}")
    return there[name]


def _rows(settings: Settings) -> Iterator[Row]:
    alone = _data(control=True)
    yield Row("zero_shot", "nothing (zero-shot)", trained=False)
    yield Row("control", "D alone", alone)
    yield Row("synthetic", "D + D'")
    if settings.oracle is not None:
        yield Row("oracle", "D without correlation", alone, synthesis="oracle", on_oracle=True)
    paired = _data(pair_with_source=True)
    yield Row("paired", "D + D', pairs in the batch of their source", paired)
    if settings.margin is not None:
        margin = {**paired, "model": {"init_args": {"counterfactual_weight": settings.margin}}}
        yield Row("paired_margin", f"the same, with the margin term ({settings.margin:g})", margin)
    yield Row("per_batch", "D + D', the same share of synthetic pairs in every batch", _data(mixing="per_batch"))
    for of, label in (("control", "D alone"), ("synthetic", "D + D'")):
        yield Row(f"querybank_{of}", f"{label}, querybank at test time", checkpoint_of=of, test=QUERYBANK)
    yield from _syntheses(settings)
    for ratio in settings.ratios:
        yield Row(f"ratio_{ratio:g}", f"D + D' at a ratio of {ratio:g}", _data(trained_ratio=ratio))


def _syntheses(settings: Settings) -> Iterator[Row]:
    for name, fill in settings.fills.items():
        yield Row(f"fill_{name}", f"D + D', {name}", synthesis=f"fill_{name}", changes={"fill": fill})
    for name, changes in settings.captions.items():
        yield Row(f"caption_{name}", f"D + D', {name}", synthesis=f"caption_{name}", changes=changes)
    for pixels in settings.dilations:
        name, label = f"dilation_{pixels}", f"D + D', holes {pixels} pixels wider"
        yield Row(name, label, synthesis=name, changes={"dilation": pixels})
        for filled, fill in settings.fills.items():
            both = f"{name}_{filled}"
            yield Row(both, f"{label}, {filled}", synthesis=both, changes={"dilation": pixels, "fill": fill})


def _data(**arguments: Any) -> dict[str, Any]:
    return {"data": {"init_args": arguments}}


MIXING = _data(control=False, trained_ratio=None, pair_with_source=False, mixing="concat", synthetic_per_batch=None)
"""The paper's mixing, one shuffled union: it holds where settings or a row say nothing else, whatever a config says."""

"""Retrieval metrics: tensors in, numbers out; this room knows no data set and no model.

The classes are loaded on first use, so that `metrics.functional` and `metrics.search` need torch alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metrics.annotated import AnnotatedRetrieval
    from metrics.baselines import ODmAPBaselines
    from metrics.groups import GroupAccuracy
    from metrics.maps import MapScores
    from metrics.odmap import ODmAP
    from metrics.recall import RetrievalRecall

__all__ = ["AnnotatedRetrieval", "GroupAccuracy", "MapScores", "ODmAP", "ODmAPBaselines", "RetrievalRecall"]

_HOMES = {
    "AnnotatedRetrieval": "annotated",
    "GroupAccuracy": "groups",
    "MapScores": "maps",
    "ODmAP": "odmap",
    "ODmAPBaselines": "baselines",
    "RetrievalRecall": "recall",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

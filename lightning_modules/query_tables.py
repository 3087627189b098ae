"""What an evaluation found for every single query, as tables of columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from metrics import AnnotatedRetrieval, ODmAP, ODmAPBaselines, RetrievalRecall
from metrics.statistics import bootstrap

_CLASSES = ("removed", "kept")
_RANKING = ("retrieved_ids", "retrieved_scores", "relevant", "hallucinated")


class QueryTable(NamedTuple):
    """One row per query.

    Attributes:
        columns: `[Q, ...]` each; `query_id` names the row.
        group: the column whose equal values mark queries that are not independent of each other.
        measures: the columns, in per cent, whose means over queries are the scores.
        fixed: the columns that describe the task, the same for every model.
        classes: the columns that are class masks `[Q, C]`.
        about: what else describes the task, such as the size of the gallery.
        prefix: what the names of the scores start with, but for those of reference rows, `ROW/ODmAP@k`.
    """

    columns: dict[str, Tensor]
    group: str
    measures: tuple[str, ...]
    fixed: tuple[str, ...]
    about: dict[str, int | str]
    classes: tuple[str, ...] = ()
    prefix: str = ""


def recall_tables(recall: RetrievalRecall) -> dict[str, QueryTable]:
    """Return the tables `i2t` and `t2i`: the rank of the best match, and whether it is among the first k.

    Args:
        recall: computed.
    """
    found = recall.per_query()
    galleries = {"i2t": len(found["t2i"]["ranks"]), "t2i": len(found["i2t"]["ranks"])}
    tables = {}
    for way, rows in found.items():
        hits = {f"R@{k}": 100.0 * (rows["ranks"] <= min(k, galleries[way])) for k in recall.top_k}
        columns = {"query_id": rows["query_ids"], "image_id": rows["image_ids"], "rank": rows["ranks"]}
        about: dict[str, int | str] = {"gallery": galleries[way]}
        tables[way] = QueryTable(columns | hits, "image_id", tuple(hits), ("image_id",), about, prefix=f"{way}/")
    return tables


def annotated_tables(name: str, metric: AnnotatedRetrieval) -> dict[str, QueryTable]:
    """Return the tables `NAME-i2t` and `NAME-t2i`: what the annotated queries found of their extended positives.

    Args:
        name: of the positives.
        metric: computed.
    """
    tables = {}
    for way, rows in metric.per_query().items():
        columns = {"query_id": rows["query_ids"], **{key: rows[key] for key in rows if key != "query_ids"}}
        measures = tuple(key for key in rows if key not in ("query_ids", "num_positives"))
        about: dict[str, int | str] = {"positives": name}
        tables[f"{name}-{way}"] = QueryTable(
            columns, "query_id", measures, ("num_positives",), about, prefix=f"{name}/{way}/"
        )
    return tables


def odmap_table(odmap: ODmAP, baselines: ODmAPBaselines) -> QueryTable:
    """Return what was retrieved for every query and what that is worth, beside the two reference rows.

    Args:
        odmap: computed.
        baselines: computed, over the same queries.
    """
    found, references = odmap.per_query(), baselines.per_query()
    measures = {f"{name}@{k}": found[f"{name}@{k}"] for name in ("ODmAP", "hallucinated") for k in odmap.top_k}
    measures |= {name: column for name, column in references.items() if "/ODmAP@" in name}
    columns = {"query_id": found["ids"], "source_image_id": references["source_ids"]}
    columns |= {name: found[name] for name in (*_CLASSES, "num_relevant", *_RANKING)}
    return QueryTable(
        columns | measures,
        group="source_image_id",
        measures=tuple(measures),
        fixed=("source_image_id", *_CLASSES, "num_relevant"),
        about={"gallery": int(odmap.summary()["ODmAP/gallery"]), "kept_rule": odmap.kept, "normalize": odmap.normalize},
        classes=_CLASSES,
    )


def intervals(tables: Mapping[str, QueryTable], seed: int = 0) -> dict[str, float]:
    """Return the ends of the 95 % bootstrap intervals of all measures of the tables, as `SCORE/low` and `SCORE/high`.

    Args:
        tables: a table whose queries are all of one group has no interval.
        seed: of the resamples.
    """
    return dict(entry for table in tables.values() for entry in _interval_of(table, seed))


def _interval_of(table: QueryTable, seed: int) -> Iterator[tuple[str, float]]:
    groups = table.columns[table.group].cpu()
    if (groups == groups[0]).all():
        return
    found = bootstrap(torch.stack([table.columns[name] for name in table.measures], dim=1), groups, seed=seed)
    for name, low, high in zip(table.measures, np.atleast_1d(found.low), np.atleast_1d(found.high), strict=True):
        score = name if "/" in name else f"{table.prefix}{name}"
        yield f"{score}/low", float(low)
        yield f"{score}/high", float(high)

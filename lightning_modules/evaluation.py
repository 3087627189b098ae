"""Scores of one evaluation pass: one encode of every image and caption serves all metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from datamodules.batch import RetrievalBatch
from datamodules.errors import ConfigError
from lightning_modules.distributed import any_rank
from lightning_modules.query_tables import QueryTable, annotated_tables, odmap_table, recall_tables
from metrics import AnnotatedRetrieval, ODmAP, ODmAPBaselines, RetrievalRecall
from metrics.annotated import NoQueriesError
from metrics.breakdown import Breakdown, by_pair, by_removed_class
from metrics.functional import InvertedSoftmax
from metrics.reranked import PairScorer, RerankedODmAP, RerankedRecall

_TAKEN = ("folds", "reranked")


class _Reranked(NamedTuple):
    recall: RerankedRecall
    odmap: RerankedODmAP


class RetrievalEvaluation(nn.Module):
    """Recall of the original images, and ODmAP of the counterfactual ones beside its two reference rows.

    Args:
        top_k: the cut-offs k of all metrics.

    Attributes:
        tables: what the last `compute` found for every query, by name: `i2t`, `t2i` and `odmap`, for extended positives
            `NAME-i2t` and `NAME-t2i`, and after re-ranking `reranked-i2t`, `reranked-t2i` and `reranked-odmap`.
        breakdowns: ODmAP by removed class and by pair of a removed and a kept class, where there is any.
        annotated: recall against extended positives, by their name.
        querybank: what corrects the scores of all metrics for hubs, set before `start` and kept until it is unset; its
            tensors lie where the embeddings do.
    """

    tables: dict[str, QueryTable]
    breakdowns: tuple[Breakdown, Breakdown] | None
    annotated: dict[str, AnnotatedRetrieval]
    querybank: InvertedSoftmax | None
    _reranked: _Reranked | None

    def __init__(self, top_k: Sequence[int] = (1, 5, 10)) -> None:
        super().__init__()
        self.top_k = tuple(top_k)
        self.recall = RetrievalRecall(top_k=self.top_k)
        self.odmap = ODmAP(top_k=self.top_k)
        self.baselines = ODmAPBaselines(top_k=self.top_k)
        self.querybank = None
        self.start()

    def start(self, positives: Mapping[str, Any] | None = None) -> None:
        """Forget all images, queries, captions and results.

        Args:
            positives: by name, extended positives to score recall against as well: objects with mappings `i2t` (image
                id to caption ids) and `t2i`.

        Raises:
            ConfigError: the name of positives is that of other scores.
        """
        if taken := [name for name in _TAKEN if name in (positives or {})]:
            raise ConfigError(f"`positives.{taken[0]}`: scores `{taken[0]}/...` are others; choose another name.")
        # A plain dict: a module's children cannot have every name that a config may give, such as "eccv.v1" or "items".
        self.annotated = {
            name: AnnotatedRetrieval(given.i2t, given.t2i, self.top_k) for name, given in (positives or {}).items()
        }
        self.tables, self.breakdowns = {}, None
        self._forget_rows()

    def rerank_by(self, scorer: PairScorer, depth: int) -> None:
        """Have the next `compute` re-rank what the embeddings find, and score that as well; called after `start`.

        Args:
            scorer: scores pairs of image and caption.
            depth: how many results of every query are re-ranked.
        """
        recall, odmap = RerankedRecall(scorer, depth, self.top_k), RerankedODmAP(scorer, depth, self.top_k)
        self._reranked = _Reranked(recall, odmap)

    def update_images(self, batch: RetrievalBatch, embeddings: Tensor) -> None:
        """Add images: counterfactual queries where the batch says what was removed, else originals of the split."""
        if self.querybank is not None:
            embeddings = self.querybank.widen_images(embeddings)
        if batch.removed is None or batch.kept is None:
            self.recall.update_images(embeddings, batch.image_ids, batch.folds)
            for metric in self._other_recalls():
                metric.update_images(embeddings, batch.image_ids)
            return
        self._has_queries = True
        for odmap in self._odmaps():
            odmap.update(embeddings, batch.removed, batch.kept, batch.image_ids)
        self.baselines.update(batch.removed, batch.kept, batch.source_ids, batch.image_ids)

    def update_captions(self, batch: RetrievalBatch, embeddings: Tensor) -> None:
        """Add captions: those of the split count for recall, all of them are the gallery of ODmAP."""
        if self.querybank is not None:
            embeddings = self.querybank.widen_captions(embeddings)
        inside = slice(None) if batch.in_split is None else batch.in_split
        of_split = embeddings[inside], batch.image_ids[inside], batch.caption_ids[inside]
        for metric in (self.recall, *self._other_recalls()):
            metric.update_captions(*of_split)
        if batch.mentions is not None:
            self._has_gallery = True
            for odmap in self._odmaps():
                odmap.update_gallery(embeddings, batch.mentions, batch.caption_ids)
            self.baselines.update_gallery(batch.mentions, batch.image_ids, batch.caption_ids)

    def compute(self) -> dict[str, Tensor | float]:
        """Return all scores, in per cent, and let go of the embeddings; every rank must call it and gets the same.

        Recall comes always, with extended positives where they were given and name queries of this split; ODmAP, its
        companions, its two reference rows and the counts behind it where any rank saw counterfactual queries and a
        gallery. Where `rerank_by` was called, recall, ODmAP and its companions come again as `reranked/...`.
        """
        scores: dict[str, Tensor | float] = dict(self.recall.compute())
        self.tables = recall_tables(self.recall)
        if answered := any_rank(self._has_queries) and any_rank(self._has_gallery):
            scores |= self.odmap.compute()
            scores |= self.odmap.summary()
            scores |= self.baselines.compute()
            self.tables["odmap"] = odmap_table(self.odmap, self.baselines)
            found = self.odmap.per_query()
            self.breakdowns = by_removed_class(found, self.top_k), by_pair(found, self.top_k)
        for name, metric in self.annotated.items():
            if found_by_name := _computed(name, metric):
                scores |= {f"{name}/{key}": value for key, value in found_by_name.items()}
                self.tables |= annotated_tables(name, metric)
        if self._reranked is not None:
            scores |= self._reranked_scores(*self._reranked, answered)
        self._forget_rows()
        return scores

    def _reranked_scores(self, recall: RerankedRecall, odmap: RerankedODmAP, answered: bool) -> dict[str, Any]:
        scores: dict[str, Tensor | float] = dict(recall.compute())
        tables = recall_tables(recall)
        if answered:
            scores |= odmap.compute()
            scores |= {name: value for name, value in odmap.summary().items() if not name.startswith("ODmAP/")}
            tables["odmap"] = odmap_table(odmap, self.baselines)
        for name, table in tables.items():
            self.tables[f"reranked-{name}"] = table._replace(prefix=f"reranked/{table.prefix}")
        return {f"reranked/{name}": value for name, value in scores.items()}

    def _other_recalls(self) -> list[AnnotatedRetrieval | RerankedRecall]:
        return [*self.annotated.values(), *([self._reranked.recall] if self._reranked else [])]

    def _odmaps(self) -> list[ODmAP]:
        return [self.odmap, *([self._reranked.odmap] if self._reranked else [])]

    def _forget_rows(self) -> None:
        self._has_queries = self._has_gallery = False
        self._reranked = None  # with the files that its scorer keeps open
        for metric in (self.recall, self.odmap, self.baselines, *self.annotated.values()):
            metric.reset()


def _computed(name: str, metric: AnnotatedRetrieval) -> dict[str, Tensor]:
    """Return the scores against extended positives, none where they are of another split."""
    try:
        return metric.compute()
    except NoQueriesError as error:
        rank_zero_warn(f"No scores `{name}/...`: {error}")
        return {}

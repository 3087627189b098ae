"""Scores of one evaluation pass: one encode of every image and caption serves all metrics."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from datamodules.batch import RetrievalBatch
from lightning_modules.distributed import any_rank
from metrics import ODmAP, ODmAPBaselines, RetrievalRecall


class RetrievalEvaluation(nn.Module):
    """Recall of the original images, and ODmAP of the counterfactual ones beside its two reference rows.

    Args:
        top_k: the cut-offs k of all metrics.
    """

    def __init__(self, top_k: Sequence[int] = (1, 5, 10)) -> None:
        super().__init__()
        self.recall = RetrievalRecall(top_k=tuple(top_k))
        self.odmap = ODmAP(top_k=tuple(top_k))
        self.baselines = ODmAPBaselines(top_k=tuple(top_k))
        self.reset()

    def reset(self) -> None:
        """Forget all images, queries and captions."""
        self._has_queries = self._has_gallery = False
        for metric in (self.recall, self.odmap, self.baselines):
            metric.reset()

    def update_images(self, batch: RetrievalBatch, embeddings: Tensor) -> None:
        """Add images: counterfactual queries where the batch says what was removed, else originals of the split."""
        if batch.removed is None or batch.kept is None:
            self.recall.update_images(embeddings, batch.image_ids)
            return
        self._has_queries = True
        self.odmap.update(embeddings, batch.removed, batch.kept, batch.image_ids)
        self.baselines.update(batch.removed, batch.kept, batch.source_ids, batch.image_ids)

    def update_captions(self, batch: RetrievalBatch, embeddings: Tensor) -> None:
        """Add captions: those of the split count for recall, all of them are the gallery of ODmAP."""
        inside = slice(None) if batch.in_split is None else batch.in_split
        self.recall.update_captions(embeddings[inside], batch.image_ids[inside], batch.caption_ids[inside])
        if batch.mentions is not None:
            self._has_gallery = True
            self.odmap.update_gallery(embeddings, batch.mentions, batch.caption_ids)
            self.baselines.update_gallery(batch.mentions, batch.image_ids, batch.caption_ids)

    def compute(self) -> dict[str, Tensor | float]:
        """Return all scores, in per cent; every rank must call it and gets the same.

        Recall comes always; ODmAP, its two reference rows and the counts behind it where any rank saw counterfactual
        queries and a gallery.
        """
        scores: dict[str, Tensor | float] = dict(self.recall.compute())
        if any_rank(self._has_queries) and any_rank(self._has_gallery):
            scores |= self.odmap.compute()
            scores |= self.odmap.summary()
            scores |= self.baselines.compute()
        return scores

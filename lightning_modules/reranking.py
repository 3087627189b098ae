"""Re-ranking in evaluation: a cross-encoder looks again at the best that embeddings have found.

For every query the first `rerank_top_k` results by embeddings are put in the order of

    cosine of the embeddings + `match_captions`,

all others follow as they stood. So image to text, text to image and ODmAP are measured a second time, as
`reranked/...` beside the scores of the embeddings alone. Where a query bank corrects those, nothing is re-ranked: the
sum is one of plain cosines.

Source: Li et al. 2022, "BLIP", section 5.1; the sum of both scores is that of its released evaluation.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

from torch import Tensor

from datamodules.batch import RetrievalBatch, Tokens
from datamodules.errors import ConfigError
from lightning_modules.base import RetrievalModule
from lightning_modules.pair_matcher import PairMatcher
from metrics.distributed import connect


class RerankingModule(RetrievalModule):
    """A retrieval model with a cross-encoder, which scores an image and a caption that it sees together.

    A subclass implements `encode_with_states` and `match_captions` beside what every `RetrievalModule` implements
    (`encode_images` is given here). Evaluation encodes every image once, keeps its states in half precision in an
    unnamed file of the run folder, and scores the pairs of one image together, each pair once, whichever direction
    asks for it. The tokenizer pads all captions to one length, so that their tokens `[B, L]` can lie in one file.

    Args:
        rerank_top_k: how many results of every query are re-ranked, as many as the largest of `top_k` or more; 0: none.
        rerank_batch_size: captions that are scored against an image at a time.
        **options: the arguments of `RetrievalModule`.

    Raises:
        ConfigError: when a number is out of its range.
    """

    def __init__(self, *, rerank_top_k: int = 0, rerank_batch_size: int = 256, **options: Any) -> None:
        super().__init__(**options)
        if rerank_batch_size < 1:
            raise ConfigError(f"`model.init_args.rerank_batch_size` is {rerank_batch_size}: give 1 or more.")
        largest = max(self._evaluation("val").top_k)
        if rerank_top_k and rerank_top_k < largest:
            raise ConfigError(
                f"`model.init_args.rerank_top_k` is {rerank_top_k}, but the scores look at the first {largest} results "
                "(`top_k`): give as many or more, or 0 to leave re-ranking out."
            )
        self.rerank_top_k, self.rerank_batch_size = rerank_top_k, rerank_batch_size
        self._pairs: PairMatcher | None = None

    @abstractmethod
    def encode_with_states(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Map images to embeddings and to what the cross-encoder sees of them, in one pass.

        Args:
            pixel_values: `[B, 3, H, W]`.

        Returns:
            Unit rows `[B, D]`, and states `[B, T, W]` floating point, whose values half precision can hold.
        """

    @abstractmethod
    def match_captions(self, states: Tensor, tokens: Tokens) -> Tensor:
        """Score captions against one image; the score is added to the cosine of their embeddings.

        Args:
            states: `[1, T, W]`, those of the image, of the dtype that `encode_with_states` gave. Where a cross-encoder
                can, it projects keys and values once and lets them broadcast over the captions.
            tokens: those of N captions, `[N, L]`, on the same device.

        Returns:
            `[N]` floating point, higher for captions that fit, such as the logit of "matched".
        """

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """Map images `[B, 3, H, W]` to unit rows `[B, D]`."""
        return self.encode_with_states(pixel_values)[0]

    def _start_scores(self, stage: str) -> None:
        super()._start_scores(stage)
        self._forget_pairs()
        if not self.rerank_top_k or self._evaluation(stage).querybank is not None:
            return
        folder = Path(self.trainer.log_dir or self.trainer.default_root_dir)  # asks rank zero: all ranks must do it
        self._pairs = PairMatcher(self._match_captions, folder, self.device, self.rerank_batch_size)
        self._evaluation(stage).rerank_by(self._pairs.scores, self.rerank_top_k)

    def _evaluate(self, stage: str, batch: RetrievalBatch) -> None:
        if self._pairs is None or batch.pixel_values is None:
            super()._evaluate(stage, batch)
        else:
            embeddings, states = self.encode_with_states(batch.pixel_values)
            self._evaluation(stage).update_images(batch, embeddings.float())
            self._pairs.add_images(batch.image_ids, states)
        if self._pairs is not None and batch.tokens is not None:
            self._pairs.add_captions(batch.caption_ids, batch.tokens)

    def _log_scores(self, stage: str) -> None:
        if self._pairs is not None:
            self._pairs.share_captions(connect())
        try:
            super()._log_scores(stage)
        finally:
            self._forget_pairs()

    def _match_captions(self, states: Tensor, tokens: Tokens) -> Tensor:
        """Match in the precision of the evaluation steps, which the Trainer sets around those alone."""
        with self.trainer.precision_plugin.val_step_context():
            return self.match_captions(states, tokens)

    def _forget_pairs(self) -> None:
        if self._pairs is not None:
            self._pairs.close()
        self._pairs = None

"""Re-ranking in evaluation: a cross-encoder looks again at the best that embeddings have found.

For every query the first `rerank_top_k` results by embeddings are put in the order of

    cosine of the embeddings + `match_captions`,

all others follow as they stood. So image to text, text to image and ODmAP are measured a second time, as
`reranked/...` beside the scores of the embeddings alone.

Source: Li et al. 2022, BLIP, appendix on image-text retrieval; Li et al. 2021, ALBEF, section 5.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor

from datamodules.batch import Tokens
from datamodules.errors import ConfigError
from lightning_modules.base import RetrievalModule


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
        self.rerank_top_k, self.rerank_batch_size = rerank_top_k, rerank_batch_size

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
            states: `[1, T, W]`, those of the image, of the dtype that `encode_with_states` gave. Project keys and values
                once and let them broadcast over the captions where the cross-encoder can.
            tokens: those of N captions, `[N, L]`, on the same device.

        Returns:
            `[N]` floating point, higher for captions that fit, such as the logit of "matched".
        """

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """Map images `[B, 3, H, W]` to unit rows `[B, D]`."""
        return self.encode_with_states(pixel_values)[0]

"""Scores of pairs of image and caption by a cross-encoder, with images and captions kept on disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from datamodules.batch import Tokens
from datamodules.errors import ConfigError
from lightning_modules.row_store import RowStore
from metrics.distributed import Alone

_UNNAMED = ""  # the field of a tokenizer that returns one tensor
_SECONDS_BETWEEN_REPORTS = 60.0


class PairMatcher:
    """Keeps the states of images and the tokens of captions, and scores any pairs of them, image by image.

    Args:
        match: states `[1, T, W]` of an image and tokens of N captions to `[N]` scores.
        folder: where the files of states and tokens take up space.
        device: where `match` wants its arguments.
        batch_size: captions per call of `match`.

    Raises:
        ConfigError: the folder cannot be made.
    """

    def __init__(
        self, match: Callable[[Tensor, Tokens], Tensor], folder: Path, device: torch.device, batch_size: int
    ) -> None:
        self._match, self._folder, self._device, self._batch_size = match, folder, device, batch_size
        with self._written():
            self._images, self._captions = RowStore(folder), RowStore(folder)
        self._dtype = torch.float32

    def add_images(self, ids: Tensor, states: Tensor) -> None:
        """Keep images.

        Args:
            ids: `[B]` int64.
            states: `[B, T, W]` floating point; kept in half precision.

        Raises:
            ConfigError: the disk is full.
        """
        self._dtype = states.dtype
        with self._written():
            self._images.add(ids, {"states": states.half()})

    def add_captions(self, ids: Tensor, tokens: Tokens) -> None:
        """Keep captions.

        Args:
            ids: `[B]` int64.
            tokens: `[B, ...]`, all captions padded to one length.

        Raises:
            ConfigError: the disk is full.
            ValueError: captions were padded to different lengths.
        """
        with self._written():
            self._captions.add(ids, tokens if isinstance(tokens, Mapping) else {_UNNAMED: tokens})

    def share_captions(self, ranks: Alone) -> None:
        """Give every rank the captions of all ranks; all of them must call it.

        Raises:
            ConfigError: the disk is full.
        """
        with self._written():
            own, self._captions = self._captions, self._captions.of_all(ranks)
        if own is not self._captions:
            own.close()

    def scores(self, image_ids: Tensor, caption_ids: Tensor) -> Tensor:
        """Score pairs, each distinct one once.

        Args:
            image_ids: `[P]` int64, images that were added on this rank.
            caption_ids: `[P]` int64, captions that were added, or shared.

        Returns:
            `[P]` float32 on the device of `image_ids`.

        Raises:
            KeyError: an image or a caption was not added.
            ValueError: `match` returns anything else than a score per caption.
        """
        images = self._images.positions(image_ids.cpu())
        captions = self._captions.positions(caption_ids.cpu())
        pairs, places = torch.unique(images * len(self._captions) + captions, return_inverse=True)
        found = [torch.empty(0, device=self._device), *_reported(self._scored(pairs), len(pairs))]
        return torch.cat(found)[places.to(self._device)].to(image_ids.device)

    def close(self) -> None:
        """Give the space on disk back."""
        self._images.close()
        self._captions.close()

    @contextmanager
    def _written(self) -> Iterator[None]:
        """Say in a sentence what the disk refuses."""
        try:
            yield
        except OSError as error:
            raise ConfigError(
                f"Re-ranking keeps image states and tokens in {self._folder}, which takes no more ({error.strerror}): "
                "make room there, choose another folder by `runs`, or set `model.init_args.rerank_top_k` to 0."
            ) from error

    def _scored(self, pairs: Tensor) -> Iterator[Tensor]:
        """Yield the scores of ascending pairs, a few captions of one image at a time."""
        rows, columns = pairs // max(1, len(self._captions)), pairs % max(1, len(self._captions))
        images, counts = torch.unique_consecutive(rows, return_counts=True)
        for image, captions in zip(images, torch.split(columns, counts.tolist()), strict=True):
            states = self._images.read(image[None])["states"].to(self._device, self._dtype)
            for some in torch.split(captions, self._batch_size):
                scores = self._match(states, self._tokens(some))
                if scores.shape != some.shape:
                    raise ValueError(
                        f"`match_captions` gave {list(scores.shape)} for {len(some)} captions, not a score for each."
                    )
                yield scores.float()

    def _tokens(self, captions: Tensor) -> Tokens:
        tokens = {name: rows.to(self._device) for name, rows in self._captions.read(captions).items()}
        return tokens.get(_UNNAMED, tokens)


def _reported(parts: Iterator[Tensor], total: int) -> Iterator[Tensor]:
    """Say once a minute how many of the scores are there."""
    start = said = time.monotonic()
    done = 0
    for part in parts:
        yield part
        done += len(part)
        now = time.monotonic()
        if now - said >= _SECONDS_BETWEEN_REPORTS:
            said, pace = now, done / (now - start)
            left = (total - done) / pace / 60
            rank_zero_info(
                f"Re-ranking: {done:,} of {total:,} pairs are scored, {pace:,.0f} a second, {left:.0f} min left."
            )

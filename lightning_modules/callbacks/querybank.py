"""Hubness normalisation at test time, from an overlay of any run's config."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from datamodules.batch import RetrievalBatch
from datamodules.errors import ConfigError
from metrics.distributed import connect
from metrics.functional import InvertedSoftmax


class Querybank(Callback):
    """Corrects the scores of `validate` and `test` for hubs: captions and images that fit whatever is asked for.

    A bank of images and captions is drawn from the training split by the data's seed, never from the split that is
    scored, and encoded once; `metrics.functional.InvertedSoftmax` says what it does to the scores. Recall, folds,
    extended positives and ODmAP are those of the corrected scores, and so are the scores that `odmap.parquet` holds.
    Re-ranking is left out, as it adds to plain cosines. `fit` and its validations are as they are without.

    Source: Bogolin et al. 2022, "Cross Modal Retrieval with Querybank Normalisation".

    Args:
        images: training images in the bank, all where there are fewer.
        captions: training captions in the bank, all where there are fewer.
        temperature: that of the softmax over cosines; 0.01 is where CLIP's own ends. It has to fit how far a model's
            cosines spread: where it is too high, hubs grow instead. Choose it by `validate`.

    Raises:
        ConfigError: an argument is not above 0.
    """

    def __init__(self, images: int = 5000, captions: int = 5000, temperature: float = 0.01) -> None:
        for key, value in {"images": images, "captions": captions, "temperature": temperature}.items():
            if not value > 0:
                raise ConfigError(f"`trainer.callbacks.init_args.{key}` is {value}: give a number above 0.")
        self.images, self.captions, self.temperature = images, captions, temperature

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Encode the bank for `validate`; `fit` has none."""
        if trainer.state.fn == "validate":
            self._start(trainer, pl_module, "val")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Encode the bank for `test`."""
        self._start(trainer, pl_module, "test")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of the bank."""
        for evaluation in getattr(pl_module, "evaluations", {}).values():
            evaluation.querybank = None

    def _start(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        data: Any = getattr(trainer, "datamodule", None)
        evaluations: Any = getattr(pl_module, "evaluations", None)
        if evaluations is None or not hasattr(data, "training_samples"):
            raise ConfigError(
                f"`trainer.callbacks` has a Querybank, but {type(pl_module).__name__} on {type(data).__name__} is no "
                "retrieval with training images and captions: leave the callback out."
            )
        images, captions = data.training_samples(self.images, self.captions)
        bank = _encoded(images, "image_ids", trainer, pl_module), _encoded(captions, "caption_ids", trainer, pl_module)
        evaluations[stage].querybank = InvertedSoftmax(*bank, self.temperature)
        rank_zero_info(f"Query bank: {len(bank[0]):,} images and {len(bank[1]):,} captions of the training split.")


def _encoded(loader: Iterable[RetrievalBatch], key: str, trainer: Trainer, pl_module: LightningModule) -> Tensor:
    """Return the embeddings of the rows of all ranks, by id, so that they are the same for any number of ranks."""
    with trainer.precision_plugin.val_step_context():
        batches = [pl_module.predict_step(trainer.strategy.batch_to_device(batch), 0) for batch in loader]
    own = [(batch[key], batch["embeddings"]) for batch in batches]
    found = [rows for of_rank in connect().gather_objects(own) for rows in of_rank]
    if not found:
        raise ConfigError(
            "The query bank of `trainer.callbacks` would be empty: no image, or no caption, of `data.init_args."
            "train_splits` can be read; name another split or leave the callback out."
        )
    ids, embeddings = (torch.cat(column) for column in zip(*found, strict=True))
    return embeddings[ids.argsort()].to(pl_module.device)

"""The backbone's contract: what a subclass gives, and the training, evaluation and logging that it inherits."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Self, cast

import torch
from lightning.pytorch import Callback, LightningModule
from torch import Tensor

from datamodules.batch import RetrievalBatch, Tokens
from datamodules.errors import ConfigError
from lightning_modules.callbacks.finite_loss import FiniteLoss
from lightning_modules.checkpoints import check_weights, checkpoint_class
from lightning_modules.collapse import CollapseAlarm
from lightning_modules.distributed import share_buffers
from lightning_modules.evaluation import RetrievalEvaluation
from lightning_modules.micro_batches import encode_in_parts
from lightning_modules.optimizers import build_optimizer, optimizer_class
from lightning_modules.parameter_groups import freeze as freeze_parameters
from lightning_modules.parameter_groups import parameter_groups
from lightning_modules.processor import Processor
from lightning_modules.query_tables import intervals
from lightning_modules.schedule import halving_schedule


class RetrievalModule(LightningModule, ABC):
    """An image-text retrieval model that can be trained and scored.

    A subclass calls `super().__init__`, builds its towers and its `processor`, and implements `encode_images`,
    `encode_texts` and `training_loss`. Everything else is inherited. A subclass that builds parts of itself only in
    `configure_model` calls `super().configure_model()` at its end.

    Args:
        optimizer: name of a class in `torch.optim`.
        lr: learning rate.
        optimizer_args: further arguments of the optimiser, such as `weight_decay` or `betas`.
        lr_halving_epochs: the learning rate is halved after every so many epochs (fractions count); None: constant.
        lr_decay: what the learning rate is multiplied by instead of a half.
        top_k: cut-offs k of recall and ODmAP.
        freeze: shell patterns of the names of parameters that are not trained, such as `model.visual.*`. Modules that
            are frozen whole stay in evaluation mode, so that dropout and the statistics of BatchNorm rest, too.
        lr_scales: shell pattern of parameter names -> factor on their learning rate; the first that matches wins.
        decay_vectors: False takes weight decay from parameters of fewer than 2 dimensions: biases, norms, scales.
        micro_batch_size: images, and captions, that are encoded at a time in training, each part once more in the
            backward pass: the loss over a batch of any size in the memory of a part. (`accumulate_grad_batches` of the
            Trainer is no substitute: it adds up losses of small batches, whose pairs never meet as negatives.)
        compile: whether `torch.compile` compiles the encoders.

    Raises:
        ConfigError: when `torch.optim` has no such optimiser, or a number is out of its range.
    """

    processor: Processor

    def __init__(
        self,
        *,
        optimizer: str = "Adam",
        lr: float = 1e-4,
        optimizer_args: dict[str, Any] | None = None,
        lr_halving_epochs: float | None = None,
        lr_decay: float = 0.5,
        top_k: Sequence[int] = (1, 5, 10),
        freeze: Sequence[str] = (),
        lr_scales: dict[str, float] | None = None,
        decay_vectors: bool = True,
        micro_batch_size: int | None = None,
        compile: bool = False,  # noqa: A002 (the word that users know)
    ) -> None:
        super().__init__()
        _check_positive(lr_halving_epochs, "lr_halving_epochs", "epochs above 0, or null for a constant learning rate")
        _check_positive(micro_batch_size, "micro_batch_size", "rows of a part, or null to encode a batch at once")
        _check_positive(lr_decay, "lr_decay", "a factor above 0, such as 0.5")
        self.optimizer_class = optimizer_class(optimizer)
        self.lr = lr
        self.optimizer_args = dict(optimizer_args or {})
        self.lr_halving_epochs, self.lr_decay = lr_halving_epochs, lr_decay
        self.evaluations = _evaluations(top_k)
        self.freeze_patterns, self.lr_scales, self.decay_vectors = tuple(freeze), lr_scales, decay_vectors
        self.micro_batch_size, self.compiled = micro_batch_size, compile
        self.alarm = CollapseAlarm()
        self._frozen: list[torch.nn.Module] = []

    @abstractmethod
    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """Map images `[B, 3, H, W]` to unit rows `[B, D]`."""

    @abstractmethod
    def encode_texts(self, tokens: Tokens) -> Tensor:
        """Map tokens `[B, ...]` to unit rows `[B, D]`."""

    @abstractmethod
    def training_loss(self, batch: RetrievalBatch) -> Tensor:
        """Return the scalar loss of a batch of pairs."""

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]  # Lightning has a descriptor here
        cls, checkpoint_path: str | Path, *, weights_only: bool = True, **options: Any
    ) -> Self:
        """Rebuild the model that a checkpoint holds, of whatever class it is, from nothing but the file.

        Args:
            checkpoint_path: of the checkpoint.
            weights_only: False runs the code that a file may hold; no checkpoint of a run needs it.
            **options: Lightning's, such as `map_location`, and arguments of the model to replace.

        Raises:
            MissingPathError: there is no such file.
            ConfigError: it is damaged or foreign, holds a model that is no `cls`, or its weights do not fit.

        Example:
            RetrievalModule.load_from_checkpoint("runs/demo/20250131-120000/checkpoints/best.ckpt").eval()
        """
        rebuild = super(RetrievalModule, checkpoint_class(checkpoint_path, cls)).load_from_checkpoint
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.pytorch\.cli")  # a deprecation among libraries
            return cast("Self", rebuild(checkpoint_path, weights_only=weights_only, **options))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note the class of the model, so that it can be rebuilt from the checkpoint alone."""
        arguments = checkpoint.setdefault("hyper_parameters", {})
        arguments.setdefault("_class_path", f"{type(self).__module__}.{type(self).__qualname__}")
        arguments.setdefault("_instantiator", "lightning.pytorch.cli.instantiate_module")

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the weights of a checkpoint fit this model.

        Raises:
            ConfigError: some are missing, unknown or of another shape.
        """
        check_weights(self, checkpoint["state_dict"])

    def export(self, folder: Path) -> None:
        """Write the encoders into a folder as the library loads them that their architecture is from.

        Raises:
            ConfigError: the architecture is of this project.
        """
        raise ConfigError(
            f"{type(self).__name__} is no architecture of another library, so there is no format to export it to; "
            "`RetrievalModule.load_from_checkpoint` rebuilds it from its checkpoint alone."
        )

    def configure_callbacks(self) -> list[Callback]:
        """Return the callbacks of every training: the stop at a loss that is no number."""
        return [FiniteLoss()]

    def configure_model(self) -> None:
        """Freeze what `freeze` names; the Trainer calls it when the model is whole, before it goes to other ranks."""
        self._frozen = freeze_parameters(self, self.freeze_patterns)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all modules but those frozen whole, which stay in evaluation mode."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def on_train_start(self) -> None:
        """Put the frozen modules into evaluation mode (the Trainer warns of modules that were so before)."""
        self.train()

    def embed_pairs(self, batch: RetrievalBatch) -> tuple[Tensor, Tensor]:
        """Encode the images and captions of a training batch, in parts where `micro_batch_size` is given.

        In passing, the alarm of `lightning_modules.collapse` looks at the embeddings.

        Returns:
            Images and texts, unit rows `[B, D]` each.

        Raises:
            ValueError: the batch lacks images or captions.
        """
        if batch.pixel_values is None or batch.tokens is None:
            raise ValueError("A training batch needs both `pixel_values` and `tokens`.")
        images = encode_in_parts(self._images_encoder, batch.pixel_values, self.micro_batch_size, self)
        texts = encode_in_parts(self._texts_encoder, batch.tokens, self.micro_batch_size, self)
        self.alarm.look(images, texts)
        return images, texts

    def training_step(self, batch: RetrievalBatch, batch_idx: int) -> Tensor:
        """Return and log the loss of a batch."""
        loss = self.training_loss(batch)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch))
        return loss

    def validation_step(self, batch: RetrievalBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Encode a batch of images or captions for the validation scores."""
        self._evaluate("val", batch)

    def test_step(self, batch: RetrievalBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Encode a batch of images or captions for the test scores."""
        self._evaluate("test", batch)

    def predict_step(self, batch: RetrievalBatch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Return the ids of a batch and its embeddings `[B, D]`, on the CPU."""
        rows = {"image_ids": batch.image_ids, "caption_ids": batch.caption_ids, "embeddings": self._encode(batch)}
        return {name: tensor.cpu() for name, tensor in rows.items()}

    def on_validation_epoch_start(self) -> None:
        """Forget what a validation that was broken off has left."""
        self._start_scores("val")

    def on_test_epoch_start(self) -> None:
        """Forget what a test that was broken off has left."""
        self._start_scores("test")

    def on_validation_epoch_end(self) -> None:
        """Log the validation scores, outside `fit` with their 95 % intervals."""
        self._log_scores("val")

    def on_test_epoch_end(self) -> None:
        """Log the test scores with their 95 % intervals."""
        self._log_scores("test")

    def configure_optimizers(self) -> Any:
        """Build the optimiser over the parameters that require gradients, and the halving schedule.

        Raises:
            ConfigError: when the optimiser refuses its arguments, or a pattern of `lr_scales` matches no parameter.
        """
        groups = parameter_groups(self, self.lr, self.lr_scales, self.decay_vectors)
        optimizer = build_optimizer(self.optimizer_class, groups, self.lr, self.optimizer_args)
        if self.lr_halving_epochs is None:
            return optimizer
        schedule = halving_schedule(optimizer, self.lr_halving_epochs, self._steps_per_epoch(), self.lr_decay)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _steps_per_epoch(self) -> int:
        self.trainer.fit_loop.setup_data()  # batches are not counted before
        return math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)

    @property
    def _images_encoder(self) -> Callable[[Tensor], Tensor]:
        return partial(_compiled(type(self).encode_images), self) if self.compiled else self.encode_images

    @property
    def _texts_encoder(self) -> Callable[[Tokens], Tensor]:
        return partial(_compiled(type(self).encode_texts), self) if self.compiled else self.encode_texts

    def _encode(self, batch: RetrievalBatch) -> Tensor:
        if batch.pixel_values is not None:
            return self._images_encoder(batch.pixel_values).float()
        if batch.tokens is not None:
            return self._texts_encoder(batch.tokens).float()
        raise ValueError("An evaluation batch must hold `pixel_values` or `tokens`, this one holds neither.")

    def _evaluate(self, stage: str, batch: RetrievalBatch) -> None:
        embeddings = self._encode(batch)
        if batch.pixel_values is not None:
            self._evaluation(stage).update_images(batch, embeddings)
        else:
            self._evaluation(stage).update_captions(batch, embeddings)

    def _evaluation(self, stage: str) -> RetrievalEvaluation:
        evaluation = self.evaluations[stage]
        assert isinstance(evaluation, RetrievalEvaluation)  # noqa: S101 (tells mypy what ModuleDict forgot)
        return evaluation

    def _start_scores(self, stage: str) -> None:
        share_buffers(self)
        data = getattr(self.trainer, "datamodule", None)
        self._evaluation(stage).start(getattr(data, "positives", None))

    def _log_scores(self, stage: str) -> None:
        evaluation = self._evaluation(stage)
        scores = evaluation.compute()
        if self.trainer.state.fn != "fit":
            scores |= intervals(evaluation.tables)
        # All ranks hold the same values, of which a maximum is exact where a mean over ranks may round.
        self.log_dict({f"{stage}/{name}": value for name, value in scores.items()}, sync_dist=True, reduce_fx="max")


@cache
def _compiled(encode: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Compile the method of a class, not of an object: nothing that a checkpoint or a copy would hold changes.

    Every shape has a graph of its own, so that a part is computed again by the very graph that computed it first.
    """
    return torch.compile(encode, dynamic=False)


def _check_positive(value: float | None, key: str, wanted: str) -> None:
    if value is not None and value <= 0:
        raise ConfigError(f"`model.init_args.{key}` is {value}: give {wanted}.")


def _evaluations(top_k: Sequence[int]) -> torch.nn.ModuleDict:
    try:
        return torch.nn.ModuleDict({stage: RetrievalEvaluation(top_k) for stage in ("val", "test")})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"`model.init_args.top_k` is {list(top_k)}: {error}") from error

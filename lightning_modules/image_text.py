"""What every training here shares: the contract of the encoders, the optimiser, freezing, checkpoints and export."""

from __future__ import annotations

import math
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from lightning.pytorch import Callback, LightningModule
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from datamodules.batch import RetrievalBatch, Tokens
from datamodules.errors import ConfigError
from lightning_modules.arguments import check_positive, check_range
from lightning_modules.callbacks.couples_seen import CouplesSeen
from lightning_modules.callbacks.finite_loss import FiniteLoss
from lightning_modules.checkpoints import check_weights, checkpoint_class
from lightning_modules.collapse import CollapseAlarm
from lightning_modules.micro_batches import encode_in_parts
from lightning_modules.optimizers import build_optimizer, optimizer_class
from lightning_modules.parameter_groups import freeze as freeze_parameters
from lightning_modules.parameter_groups import parameter_groups
from lightning_modules.processor import Processor
from lightning_modules.schedule import cosine_schedule, halving_schedule


class ImageTextModule(LightningModule, ABC):
    """A model of images and texts that can be trained; what it is scored by, a subclass says.

    A subclass calls `super().__init__`, builds its towers and its `processor`, and implements `encode_images`,
    `encode_texts` and `training_loss`, the steps of evaluation, and `monitor`. A subclass that builds parts of itself
    only in `configure_model` calls `super().configure_model()` at its end.

    Args:
        optimizer: name of a class in `torch.optim`.
        lr: learning rate.
        optimizer_args: further arguments of the optimiser, such as `weight_decay` or `betas`.
        lr_halving_epochs: the learning rate is halved after every so many epochs (fractions count); None: constant.
        lr_decay: what the learning rate is multiplied by instead of a half.
        lr_cosine: whether the learning rate falls by half a cosine to 0 over the training, in place of halving.
        lr_warmup_steps: optimiser steps in which the learning rate rises to `lr`.
        freeze: shell patterns of the names of parameters that are not trained, such as `model.visual.*`. Modules that
            are frozen whole stay in evaluation mode, so that dropout and the statistics of BatchNorm rest, too.
        lr_scales: shell pattern of parameter names -> factor on their learning rate; the first that matches wins.
        decay_vectors: False takes weight decay from parameters of fewer than 2 dimensions: biases, norms, scales.
        micro_batch_size: images, and captions, that are encoded at a time in training, each part once more in the
            backward pass: the loss over a batch of any size in the memory of a part. (`accumulate_grad_batches` of the
            Trainer is no substitute: it adds up losses of small batches, whose pairs never meet as negatives.)
        compile: whether `torch.compile` compiles the encoders.
        channels_last: whether convolutions keep the channels of a pixel together in memory: the same up to rounding,
            and faster on CPUs and in half precision.

    Attributes:
        monitor: the logged validation score, better where it is higher, whose best epoch `best.ckpt` holds.

    Raises:
        ConfigError: when `torch.optim` has no such optimiser, or a number is out of its range.
    """

    monitor: ClassVar[str]
    processor: Processor

    def __init__(
        self,
        *,
        optimizer: str = "Adam",
        lr: float = 1e-4,
        optimizer_args: dict[str, Any] | None = None,
        lr_halving_epochs: float | None = None,
        lr_decay: float = 0.5,
        lr_cosine: bool = False,
        lr_warmup_steps: int = 0,
        freeze: Sequence[str] = (),
        lr_scales: dict[str, float] | None = None,
        decay_vectors: bool = True,
        micro_batch_size: int | None = None,
        compile: bool = False,  # noqa: A002 (the word that users know)
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        check_positive(lr_halving_epochs=lr_halving_epochs, lr_decay=lr_decay)
        check_range(1, micro_batch_size=micro_batch_size)
        check_range(0, lr_warmup_steps=lr_warmup_steps)
        self.optimizer_class = optimizer_class(optimizer)
        self.lr = lr
        self.optimizer_args = dict(optimizer_args or {})
        self.lr_halving_epochs, self.lr_decay = lr_halving_epochs, lr_decay
        self.lr_cosine, self.lr_warmup_steps = lr_cosine, lr_warmup_steps
        self.freeze_patterns, self.lr_scales, self.decay_vectors = tuple(freeze), lr_scales, decay_vectors
        self.micro_batch_size, self.compiled = micro_batch_size, compile
        self.channels_last = channels_last
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
            ConfigError: it is damaged or foreign, holds a model that is no `cls`, its weights do not fit, or its class
                hands on an argument that is none of its own.

        Example:
            ImageTextModule.load_from_checkpoint("runs/demo/20250131-120000/checkpoints/best.ckpt").eval()
        """
        rebuild = super(ImageTextModule, checkpoint_class(checkpoint_path, cls)).load_from_checkpoint
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.pytorch\.cli")  # a deprecation among libraries
            try:
                return cast("Self", rebuild(checkpoint_path, weights_only=weights_only, **options))
            except (TypeError, ValueError) as error:  # jsonargparse makes a ValueError of it
                if fixed := re.search(r"multiple values for keyword argument '(\w+)'", str(error)):
                    raise ConfigError(
                        f"`checkpoint_path` is {checkpoint_path}, whose class fixes `{fixed[1]}`, which its options "
                        f"take, too: give its `__init__` an argument `{fixed[1]}` with that default."
                    ) from error
                raise

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
            "`ImageTextModule.load_from_checkpoint` rebuilds it from its checkpoint alone."
        )

    def configure_callbacks(self) -> list[Callback]:
        """Return the callbacks of every training: the stop at a loss that is no number, a look for couples of pairs."""
        return [FiniteLoss(), CouplesSeen()]

    def configure_model(self) -> None:
        """Freeze what `freeze` names; the Trainer calls it when the model is whole, before it goes to other ranks."""
        if self.channels_last:
            self.to(memory_format=torch.channels_last)
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

    def embed_images(self, pixel_values: Tensor) -> Tensor:
        """Map the images `[B, 3, H, W]` of a training batch to unit rows `[B, D]`, in parts of `micro_batch_size`."""
        return encode_in_parts(self._images_encoder, pixel_values, self.micro_batch_size, self)

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
        images = self.embed_images(batch.pixel_values)
        texts = encode_in_parts(self._texts_encoder, batch.tokens, self.micro_batch_size, self)
        self.alarm.look(images, texts)
        return images, texts

    def training_step(self, batch: RetrievalBatch, batch_idx: int) -> Tensor:
        """Return and log the loss of a batch."""
        loss = self.training_loss(batch)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch))
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Log the learning rate of a step, that of the first group of parameters."""
        self.log("train/lr", float(optimizer.param_groups[0]["lr"]))

    def predict_step(self, batch: RetrievalBatch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Return the ids of a batch and its embeddings `[B, D]`, on the CPU."""
        rows = {"image_ids": batch.image_ids, "caption_ids": batch.caption_ids, "embeddings": self._encode(batch)}
        return {name: tensor.cpu() for name, tensor in rows.items()}

    def configure_optimizers(self) -> Any:
        """Build the optimiser over the parameters that require gradients, and the schedule of its learning rate.

        Raises:
            ConfigError: when the optimiser refuses its arguments, a pattern of `lr_scales` matches no parameter, or
                `lr_cosine` is given to a training without an end.
        """
        groups = parameter_groups(self, self.lr, self.lr_scales, self.decay_vectors)
        optimizer = build_optimizer(self.optimizer_class, groups, self.lr, self.optimizer_args)
        if not (self.lr_cosine or self.lr_halving_epochs or self.lr_warmup_steps):
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self._schedule(optimizer), "interval": "step"}}

    def _schedule(self, optimizer: torch.optim.Optimizer) -> LambdaLR:
        if self.lr_cosine:
            if math.isinf(steps := self.trainer.estimated_stepping_batches):
                raise ConfigError(
                    "`model.init_args.lr_cosine` is true, but the training has no end at which the learning rate would "
                    "be 0: give `trainer.max_epochs` or `trainer.max_steps`."
                )
            return cosine_schedule(optimizer, int(steps), self.lr_warmup_steps)
        every, steps = (self.lr_halving_epochs, self._steps_per_epoch()) if self.lr_halving_epochs else (math.inf, 1)
        return halving_schedule(optimizer, every, steps, self.lr_decay, self.lr_warmup_steps)

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


@cache
def _compiled(encode: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Compile the method of a class, not of an object: nothing that a checkpoint or a copy would hold changes.

    Every shape has a graph of its own, so that a part is computed again by the very graph that computed it first.
    """
    return torch.compile(encode, dynamic=False)

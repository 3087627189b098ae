"""What a datamodule asks of a backbone: turn pictures and captions into tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from datamodules.errors import ConfigError

if TYPE_CHECKING:
    from lightning import Trainer
    from PIL import Image
    from torch import Tensor

    from datamodules.batch import Tokens


@runtime_checkable
class Processor(Protocol):
    """Preprocessing of one backbone; it belongs to the model and travels with its checkpoint.

    Loader workers call it, so an implementation must pickle. Random transforms may draw from torch's, numpy's or
    Python's global generator: the dataset seeds all three for every sample.

    A backbone that takes features which were computed once, in place of images, has their length as the attribute
    `feature_size` of its processor; its `train_image` and `eval_image` get them, `[F]` float32.
    """

    def train_image(self, image: Image.Image, /) -> Tensor:
        """Return an RGB image of any size as `[3, H, W]` float32, augmented for training."""

    def eval_image(self, image: Image.Image, /) -> Tensor:
        """Return an RGB image of any size as `[3, H, W]` float32, the same every time."""

    def tokenize(self, captions: list[str], /) -> Tokens:
        """Return B captions as `[B, L]` int64 tokens, or as a mapping of names to such tensors."""


def find_processor(given: Processor | None, trainer: Trainer | None, feature_size: int | None) -> Processor:
    """Return the processor that was given, or that of the trainer's model.

    Args:
        given: takes precedence.
        trainer: its model is asked.
        feature_size: length of the features that the data has in place of images; None: images.

    Raises:
        ConfigError: there is none, or it takes something else than the data has.
    """
    processor = given
    if processor is None and trainer is not None:
        processor = getattr(trainer.lightning_module, "processor", None)
    if processor is None:
        raise ConfigError("No processor: give `processor`, or a trainer whose model has one.")
    wanted = getattr(processor, "feature_size", None)
    if wanted != feature_size:
        taken, had = ("images" if size is None else f"features of length {size}" for size in (wanted, feature_size))
        raise ConfigError(
            f"The model takes {taken} and the data has {had}: set `model.init_args.feature_size` and "
            "`data.init_args.features` to fit, or leave both out for images."
        )
    return processor

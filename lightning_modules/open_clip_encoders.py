"""The encoders of any open_clip model: what every family here that is built by open_clip shares."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional as F

from datamodules.batch import Tokens
from lightning_modules.caption_tokenizer import pack_tokenizer
from lightning_modules.image_text import ImageTextModule
from lightning_modules.open_clip_files import export_open_clip
from lightning_modules.open_clip_models import build_open_clip, open_clip_processor, rebuild_arguments


class OpenClipEncoders(ImageTextModule):
    """An image-text model that open_clip builds, in `model`; it stands first among the bases of a family.

    Its arguments are kept for checkpoints here (`save_hyperparameters`), those of subclasses among them.

    Args:
        architecture: an open_clip model name, such as "ViT-B-32" (`open_clip.list_models()` lists them), or
            `local-dir:FOLDER` or `hf-hub:NAME` for a model with weights, such as an exported one.
        pretrained: an open_clip tag ("openai"), the path of weights or of the checkpoint of a run with the same
            architecture, whose preprocessing and tokenizer are taken, too, or None for random weights.
        model_config: an open_clip config given inline (`{embed_dim, vision_cfg, text_cfg, ...}`); it takes the place of
            `architecture`. (In checkpoints, with `text_cfg.hf_model_config`, the config of a text tower of
            transformers.)
        preprocess_config: overrides of the preprocessing (`{mean, std, interpolation, resize_mode, ...}`).
        tokenizer: folder or hub id of a tokenizer of transformers; None: that of the architecture. (In checkpoints, the
            files of a tokenizer that is not open_clip's own.)
        crop_scale: area range of the random crop in training; (1.0, 1.0) trains on the evaluation transform.
        gradient_checkpointing: whether the transformers keep the inputs of their layers only and compute the rest again
            in the backward pass: less memory, more time. open_clip's ResNets know no such thing; `micro_batch_size`
            works for all.
        **options: further arguments of the next base.

    Attributes:
        unused: beginnings of the names, within `model`, of parameters that neither encoders nor loss use; they are
            frozen, because DDP would wait for their gradients.

    Raises:
        ConfigError: when open_clip knows no such architecture or weights, or the weights do not fit the architecture.
    """

    unused: ClassVar[tuple[str, ...]] = ("logit_bias", "text_decoder.")
    model: Any

    def __init__(
        self,
        *,
        architecture: str = "ViT-B-32",
        pretrained: str | None = None,
        model_config: dict[str, Any] | None = None,
        preprocess_config: dict[str, Any] | None = None,
        tokenizer: str | dict[str, str] | None = None,
        crop_scale: tuple[float, float] = (0.9, 1.0),
        gradient_checkpointing: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.save_hyperparameters(logger=False)
        self.model, tokenize = build_open_clip(architecture, pretrained, model_config, preprocess_config, tokenizer)
        for name, parameter in self.model.named_parameters():
            if name.startswith(self.unused):
                parameter.requires_grad_(False)
        if gradient_checkpointing:
            self.model.set_grad_checkpointing()
        self.processor = open_clip_processor(self.model, tokenize, crop_scale)
        self.hparams.update(rebuild_arguments(self.model, architecture, model_config))
        self.hparams.update(tokenizer=pack_tokenizer(tokenize))

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """Map images `[B, 3, H, W]` to unit rows `[B, D]`."""
        return F.normalize(self.model.encode_image(pixel_values).float(), dim=-1)

    def encode_texts(self, tokens: Tokens) -> Tensor:
        """Map token ids `[B, L]` int64 to unit rows `[B, D]`."""
        return F.normalize(self.model.encode_text(tokens).float(), dim=-1)

    def export(self, folder: Path) -> None:
        """Write weights and config that `open_clip.create_model_and_transforms("local-dir:FOLDER")` loads."""
        export_open_clip(self.model, self.processor.tokenize, self.hparams["model_config"], folder)

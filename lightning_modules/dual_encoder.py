"""Any image model of timm beside any text encoder of transformers, each with a head into one space."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.batch import Tokens
from datamodules.errors import ConfigError
from lightning_modules.arguments import check_range
from lightning_modules.caption_tokenizer import CaptionTokenizer, build_tokenizer, pack_tokenizer
from lightning_modules.contrastive import ContrastiveModule
from lightning_modules.processor import Processor
from lightning_modules.text_tower import Pooling, TextTower, build_text_model, check_length, rebuild_config
from lightning_modules.timm_tower import (
    build_timm,
    export_timm,
    feature_width,
    full_name,
    image_transforms,
    preprocessing,
)

_HEADS = ("image_head.", "text_head.", "logit_scale")


class DualEncoder(ContrastiveModule):
    """Two towers of other libraries, a projection head on each, and a contrastive loss.

    The names of its parameters, for `freeze` and `lr_scales`, begin with `image.`, `text.`, `image_head.` and
    `text_head.`; `freeze: [image.*]` trains the rest on the features of an image model that stays as it is.

    Args:
        image_model: name of a timm model, such as "resnet50" (`timm.list_models()` lists them).
        image_weights: a tag of timm's to download ("a1_in1k"), the path of a file, or None for random weights.
        image_size: side of the images in pixels; position embeddings are interpolated. None: the model's own.
        image_options: further arguments of the image model, such as `{drop_path_rate: 0.1}`.
        image_preprocess: overrides of the preprocessing, `{mean, std, interpolation, crop_pct, ...}`.
        text_model: folder or hub id of a text encoder of transformers with weights ("distilbert-base-uncased"); of an
            encoder with a decoder the encoder alone is taken. None: random weights.
        text_config: overrides of its config; without `text_model` a whole one, `{model_type: bert, ...}`.
        tokenizer: folder or hub id of a tokenizer; None: that of `text_model`. (In checkpoints: its files.)
        pooling: which states of the text encoder speak for a caption: that of the first token ("cls"), of the last
            ("last", for models that read from left to right), or their mean ("mean").
        max_length: tokens of a caption, the special ones among them.
        embed_dim: width of the common space.
        hidden_dim: width of a hidden layer in both heads; None: the heads are linear.
        temperature: what similarities are divided by at the start; it is learned, and stays above 0.01 as CLIP's.
        crop_scale: area range of the random crop in training.
        flip: whether half of the training images are mirrored; not for captions that tell left from right.
        **options: further arguments of `ContrastiveModule` and `RetrievalModule`.

    Raises:
        ConfigError: when a library knows no such model, weights or tokenizer do not fit, or a number is out of range.
    """

    def __init__(
        self,
        image_model: str = "resnet50",
        image_weights: str | None = None,
        image_size: int | None = None,
        image_options: dict[str, Any] | None = None,
        image_preprocess: dict[str, Any] | None = None,
        text_model: str | None = "distilbert-base-uncased",
        text_config: dict[str, Any] | None = None,
        tokenizer: str | dict[str, str] | None = None,
        pooling: Pooling = "mean",
        max_length: int = 32,
        embed_dim: int = 512,
        hidden_dim: int | None = None,
        temperature: float = 0.07,
        crop_scale: tuple[float, float] = (0.5, 1.0),
        flip: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.save_hyperparameters(logger=False)
        check_range(0.01, 1, temperature=temperature)
        check_range(1, embed_dim=embed_dim, hidden_dim=hidden_dim)
        self.image = build_timm(image_model, image_weights, image_size, image_options)
        wanted = preprocessing(self.image, image_size, image_preprocess)
        self.text = TextTower(build_text_model(text_model, text_config), pooling)
        tokenize = CaptionTokenizer(_tokenizer(tokenizer, text_model), max_length)
        _check_tokenizer(tokenize, self.text.model.config)
        check_length(self.text, max_length)
        self.processor = Processor(*image_transforms(wanted, crop_scale, flip), tokenize)
        self.hparams.update(image_model=full_name(self.image), image_weights=None, image_preprocess=wanted)
        self.hparams.update(text_model=None, text_config=rebuild_config(self.text.model))
        self.hparams.update(tokenizer=pack_tokenizer(tokenize.tokenizer))
        self.image_head = _head(feature_width(self.image, wanted["input_size"]), hidden_dim, embed_dim)
        self.text_head = _head(self.text.model.config.hidden_size, hidden_dim, embed_dim)
        self.logit_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    @property
    def log_scale(self) -> nn.Parameter:
        """The logarithm `[]` of what cosines are multiplied by in the loss."""
        return self.logit_scale

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """Map images `[B, 3, H, W]` to unit rows `[B, D]`."""
        return F.normalize(self.image_head(self.image(pixel_values)).float(), dim=-1)

    def encode_texts(self, tokens: Tokens) -> Tensor:
        """Map `input_ids` and `attention_mask` `[B, L]` int64 to unit rows `[B, D]`."""
        if not isinstance(tokens, Mapping):
            raise TypeError("The tokens of a DualEncoder are a mapping with `input_ids` and `attention_mask`.")
        return F.normalize(self.text_head(self.text(tokens)).float(), dim=-1)

    def export(self, folder: Path) -> None:
        """Write the towers as their libraries load them, and the heads.

        `timm.create_model("local-dir:FOLDER/image", pretrained=True)` loads the image tower, transformers'
        `AutoModelForTextEncoding` and `AutoTokenizer` load FOLDER/text. `heads.safetensors` holds the weights of both
        heads and `logit_scale`, and in its metadata `pooling` and `max_length`: an embedding is the normalised head of
        the pooled states.
        """
        from safetensors.torch import save_file

        export_timm(self.image, self.hparams["image_preprocess"], self.hparams["image_options"], folder / "image")
        self.text.model.save_pretrained(folder / "text")
        tokenize = cast("CaptionTokenizer", self.processor.tokenize)
        tokenize.tokenizer.save_pretrained(folder / "text")
        heads = {name: one for name, one in self.state_dict().items() if name.startswith(_HEADS)}
        about = {"pooling": self.text.pooling, "max_length": str(tokenize.max_length)}
        save_file({name: one.cpu().contiguous() for name, one in heads.items()}, folder / "heads.safetensors", about)


def _tokenizer(given: str | dict[str, str] | None, text_model: str | None) -> Any:
    source = given if given is not None else text_model
    if source is None:
        raise ConfigError(
            "`model.init_args.tokenizer` and `model.init_args.text_model` are null: name the folder or hub id of a "
            "tokenizer."
        )
    return build_tokenizer(source)


def _check_tokenizer(tokenize: CaptionTokenizer, config: Any) -> None:
    words, places = len(tokenize.tokenizer), getattr(config, "max_position_embeddings", None)
    if words > config.vocab_size:
        raise ConfigError(
            f"`model.init_args.tokenizer` has {words} tokens and the text model only {config.vocab_size} "
            "(`text_config.vocab_size`): take the tokenizer that belongs to the model."
        )
    if not 0 < tokenize.max_length <= (places or tokenize.max_length):
        raise ConfigError(
            f"`model.init_args.max_length` is {tokenize.max_length}: give 1 to {places or 'as many as memory holds'}."
        )


def _head(width: int, hidden_dim: int | None, embed_dim: int) -> nn.Module:
    if hidden_dim is None:
        return nn.Linear(width, embed_dim, bias=False)
    return nn.Sequential(nn.Linear(width, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, embed_dim, bias=False))

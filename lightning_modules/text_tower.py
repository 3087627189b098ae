"""Text towers from transformers: any encoder of text that it has, and one vector for a caption from its states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from datamodules.errors import ConfigError
from lightning_modules.messages import UNREADABLE_WEIGHTS, a_few, gist, near, no_load_report

Pooling: TypeAlias = Literal["cls", "mean", "last"]

_LABELS = ("transformers_version", "architectures", "dtype", "_name_or_path")  # of a config; they decide nothing here


class TextTower(nn.Module):
    """A text encoder whose states become one vector for a caption.

    Args:
        model: made by `build_text_model`.
        pooling: "cls" takes the state of the first token, "last" that of the last one, "mean" the mean over all.
            Padding counts for none of them.

    Raises:
        ConfigError: when `pooling` is none of the three.
    """

    model: Any

    def __init__(self, model: nn.Module, pooling: Pooling) -> None:
        super().__init__()
        if pooling not in get_args(Pooling):
            raise ConfigError(f"`model.init_args.pooling` is {pooling!r}: give one of {', '.join(get_args(Pooling))}.")
        self.model, self.pooling = model, pooling

    def forward(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Map `input_ids` and `attention_mask` `[B, L]` int64 to vectors `[B, W]`, float32."""
        mask = tokens["attention_mask"]
        states: Tensor = self.model(input_ids=tokens["input_ids"], attention_mask=mask).last_hidden_state
        return (states.float() * pooling_weights(mask, self.pooling)[..., None]).sum(dim=1)


def pooling_weights(mask: Tensor, pooling: Pooling) -> Tensor:
    """Return how much the state of each token counts for the vector of its caption.

    Args:
        mask: `[B, L]` int64, 1 where a token is no padding, on either side.
        pooling: "cls", "mean" or "last".

    Returns:
        `[B, L]` float32, each row adds up to 1, or to 0 where all of it is padding.

    Example:
        >>> pooling_weights(torch.tensor([[0, 1, 1, 0]]), "last")
        tensor([[0., 0., 1., 0.]])
    """
    seen = mask.cumsum(dim=1) * mask
    if pooling == "mean":
        return mask / mask.sum(dim=1, keepdim=True).clamp(min=1)
    wanted = torch.ones_like(seen[:, :1]) if pooling == "cls" else seen.amax(dim=1, keepdim=True)
    return ((seen == wanted) & (mask > 0)).float()


def build_text_model(source: str | None, config: Mapping[str, Any] | None) -> Any:
    """Build an encoder of transformers, without the pooling layer that some have and no retrieval loss would train.

    Args:
        source: folder or hub id of a model with weights; None for random weights.
        config: overrides of its config; without `source` a whole one, with its `model_type`.

    Raises:
        ConfigError: there is no such model, it is none of text, weights are missing, or the config cannot work.
    """
    settings = _config(source, dict(config or {}))
    model = _random(settings) if source is None else _loaded(source, settings)
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return model


@torch.no_grad()
def check_length(tower: TextTower, length: int) -> None:
    """Check that a tower takes captions of so many tokens, by giving it one.

    What a config says of positions is not enough: RoBERTa's, for one, begin behind the number of its padding.

    Raises:
        ConfigError: it does not.
    """
    padding, training = getattr(tower.model.config, "pad_token_id", None), tower.training
    ids = torch.full((1, length), 1 if padding == 0 else 0)
    try:
        tower.eval()({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    except (IndexError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"`model.init_args.max_length` is {length}, and the text model takes no caption of so many tokens: "
            f"{gist(error)}; give less."
        ) from error
    finally:
        tower.train(training)


def rebuild_config(model: Any) -> dict[str, Any]:
    """Return the config of a text model as plain values, from which `build_text_model` builds the same one."""
    return {key: value for key, value in model.config.to_diff_dict().items() if key not in _LABELS}


def _config(source: str | None, given: dict[str, Any]) -> Any:
    from huggingface_hub.errors import StrictDataclassError

    key = f"`model.init_args.text_model: {source}`" if source else "`model.init_args.text_config`"
    start = _known(given) if source is None else _held(source, key)
    _check_keys(start, given)
    try:
        settings: Any = type(start).from_dict({**start.to_dict(), **given})
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise ConfigError(f"transformers refuses `model.init_args.text_config`: {gist(error)}") from error
    if not all(isinstance(getattr(settings, name, None), int) for name in ("hidden_size", "vocab_size")):
        raise ConfigError(f"{key} is a {settings.model_type}, which is no encoder of text alone.")
    if hasattr(settings, "use_cache"):
        settings.use_cache = False
    return settings


def _known(given: Mapping[str, Any]) -> Any:
    """Return the config that transformers has for a `model_type`."""
    from transformers import CONFIG_MAPPING

    if "model_type" not in given:
        raise ConfigError(
            "`model.init_args.text_model` is null, so `model.init_args.text_config` must be a whole config of "
            "transformers with its `model_type`, such as `{model_type: bert, hidden_size: 256, ...}`."
        )
    kind = given["model_type"]
    if kind not in CONFIG_MAPPING:
        hint = near(kind, list(CONFIG_MAPPING.keys()), "; bert, roberta and t5 are some that it has.")
        raise ConfigError(f"transformers has no `model.init_args.text_config.model_type: {kind}`{hint}")
    return CONFIG_MAPPING[kind]()


def _held(source: str, key: str) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(source)
    except (OSError, TypeError, ValueError) as error:
        raise ConfigError(f"{key} is no folder or id of a model that transformers can load: {gist(error)}") from error


def _check_keys(start: Any, given: Mapping[str, Any]) -> None:
    names = list(start.to_dict())
    for key in given:
        if key not in names and not hasattr(start, key):
            raise ConfigError(
                f"`model.init_args.text_config` holds {key!r}, which a {start.model_type} has not{near(key, names)}"
            )


def _family(settings: Any) -> Any:
    """Return what builds the model; of an encoder with a decoder it is the encoder alone."""
    from transformers import MODEL_FOR_TEXT_ENCODING_MAPPING, AutoModel, AutoModelForTextEncoding

    return AutoModelForTextEncoding if type(settings) in MODEL_FOR_TEXT_ENCODING_MAPPING else AutoModel


def _random(settings: Any) -> Any:
    try:
        return _family(settings).from_config(settings)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"transformers cannot build `model.init_args.text_config`: {gist(error)}") from error


def _loaded(source: str, settings: Any) -> Any:
    key = f"`model.init_args.text_model: {source}`"
    try:
        with no_load_report():
            model, report = _family(settings).from_pretrained(
                source, config=settings, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
            )
    except (*UNREADABLE_WEIGHTS, TypeError) as error:
        raise ConfigError(f"{key} is a model that transformers cannot load: {gist(error)}") from error
    if others := sorted(name for name, *_ in report["mismatched_keys"] if not name.startswith("pooler.")):
        raise ConfigError(f"{key} has other shapes than `model.init_args.text_config` asks for: {a_few(others)}.")
    if missing := sorted(name for name in report["missing_keys"] if not name.startswith("pooler.")):
        raise ConfigError(f"{key} lacks the weights {a_few(missing)}.")
    return model

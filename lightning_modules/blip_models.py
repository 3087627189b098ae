"""Building transformers' BLIP from a config, a model of transformers, or a checkpoint, of a run or BLIP's own code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.errors import ConfigError
from lightning_modules.blip_checkpoints import read_blip
from lightning_modules.messages import UNREADABLE_WEIGHTS, a_few, gist, near, no_load_report

if TYPE_CHECKING:
    from transformers import BlipConfig, BlipForImageTextRetrieval

# Where transformers' defaults are not BLIP's; with theirs the vision tower would start at weights of 1e-10.
_BASE: dict[str, Any] = {
    "text_config": {"num_attention_heads": 12},
    "vision_config": {"initializer_range": 0.02, "layer_norm_eps": 1e-6},
}
_PARTS = ("text_config", "vision_config")


@dataclass(frozen=True)
class BlipParts:
    """A BLIP model and what else a checkpoint may hold.

    Attributes:
        model: towers and heads.
        momentum: their momentum copy, None where it is to start as a copy of the model.
        temperature: scalar, None where none was found.
        queues: momentum embeddings of images and of captions, `[Q, D]` each; None where none were found.
    """

    model: BlipForImageTextRetrieval
    momentum: BlipForImageTextRetrieval | None = None
    temperature: Tensor | None = None
    queues: tuple[Tensor, Tensor] | None = None


def build_blip(
    pretrained: str | None, config: Mapping[str, Any] | None, image_size: int | None, text: Mapping[str, Any]
) -> BlipParts:
    """Build BLIP's towers and heads, and load what is asked for.

    Args:
        pretrained: folder or hub id of a model of transformers, a checkpoint of a run or of BLIP's own code, or
            None.
        config: overrides of the config; without `pretrained`, those of BLIP with ViT-B/16 at 384 pixels.
        image_size: side of the images in pixels; None: that of the config. Position embeddings are interpolated to it.
        text: overrides of the text tower's config that follow from elsewhere, such as the ids of tokens.

    Raises:
        ConfigError: when there is no such model, it lacks weights or has others, or the config cannot work.
    """
    _check_keys(config or {})
    overrides = _merged(config or {}, {"text_config": text})
    if pretrained is None:
        parts = BlipParts(_build(_config(_BASE, overrides)))
    elif Path(pretrained).is_file():
        parts = _checkpoint(Path(pretrained), overrides)
    else:
        parts = BlipParts(_transformers(pretrained, overrides))
    for model in (parts.model, parts.momentum):
        if model is not None and image_size is not None:
            _resize(model, image_size)
    return parts


def held_vocabulary(pretrained: str | None) -> list[str] | None:
    """Return the tokens, in the order of their ids, that a checkpoint was trained with; None where none says so.

    Raises:
        ConfigError: `pretrained` is a file that is no checkpoint of BLIP.
    """
    if pretrained is None or not Path(pretrained).is_file():
        return None
    return read_blip(Path(pretrained)).vocabulary


def rebuild_config(config: BlipConfig) -> dict[str, Any]:
    """Return the config as plain values, from which `build_blip` builds the same towers."""
    towers = {part: getattr(config, part).to_diff_dict() for part in _PARTS}
    plain = {part: {key: towers[part][key] for key in towers[part] if key not in _LABELS} for part in _PARTS}
    return {**plain, "image_text_hidden_size": config.image_text_hidden_size}


_LABELS = ("transformers_version", "model_type")  # that transformers writes itself


def _transformers(source: str, overrides: Mapping[str, Any]) -> BlipForImageTextRetrieval:
    from transformers import BlipConfig, BlipForImageTextRetrieval

    key = f"`model.init_args.pretrained: {source}`"
    try:
        held, _ = BlipConfig.get_config_dict(source)
        if (family := held.get("model_type")) != BlipConfig.model_type:
            raise ConfigError(f"{key} is a model of the family {family!r}, not of BLIP.")
        config = _config(held, overrides)
        with no_load_report():
            loaded: Any = BlipForImageTextRetrieval.from_pretrained(
                source, config=config, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
            )
    except UNREADABLE_WEIGHTS as error:
        raise ConfigError(
            f"{key} is neither a checkpoint file nor a folder or id that transformers can load: {gist(error)}"
        ) from error
    model: BlipForImageTextRetrieval = loaded[0]
    report = loaded[1]
    if others := sorted(name for name, *_ in report["mismatched_keys"]):
        raise ConfigError(f"{key} has other shapes than `model.init_args.config` asks for: {a_few(others)}.")
    unexpected = [name for name in report["unexpected_keys"] if not name.endswith("position_ids")]
    _check_names(key, report["missing_keys"], unexpected)
    return model


def _checkpoint(path: Path, overrides: Mapping[str, Any]) -> BlipParts:
    held = read_blip(path)
    config = _config(held.config, overrides)
    model = _filled(_build(config), held.weights, f"`model.init_args.pretrained: {path}`")
    momentum = None
    if held.momentum:
        heads = {name: weight for name, weight in held.weights.items() if name.startswith("itm_head.")}
        key = f"The momentum copy in `model.init_args.pretrained: {path}`"
        momentum = _filled(_build(config), heads | held.momentum, key)
    return BlipParts(model, momentum, held.temperature, held.queues)


def _filled(model: BlipForImageTextRetrieval, weights: Mapping[str, Tensor], key: str) -> BlipForImageTextRetrieval:
    try:
        report = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise ConfigError(f"{key} does not fit the sizes of `model.init_args.config`: {gist(error)}") from error
    _check_names(key, report.missing_keys, report.unexpected_keys)
    return model


def _build(config: BlipConfig) -> BlipForImageTextRetrieval:
    from transformers import BlipForImageTextRetrieval

    try:
        return BlipForImageTextRetrieval(config)
    except ValueError as error:
        raise ConfigError(f"transformers cannot build the model of `model.init_args.config`: {gist(error)}") from error


def _config(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> BlipConfig:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import BlipConfig

    try:
        return BlipConfig(**_merged(base, overrides))
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise ConfigError(f"transformers refuses `model.init_args.config`: {gist(error)}") from error


def _check_keys(config: Mapping[str, Any]) -> None:
    from transformers import BlipConfig

    whole = BlipConfig()
    for part, known in [("", whole), *((part, getattr(whole, part)) for part in _PARTS)]:
        given, names = config.get(part, {}) if part else config, list(known.to_dict())
        place = f"model.init_args.config{'.' if part else ''}{part}"
        if not isinstance(given, Mapping):
            raise ConfigError(f"`{place}` is {given!r}: give keys of transformers' config and their values.")
        for key in given:
            if key not in names:
                raise ConfigError(f"`{place}` holds {key!r}, which transformers' BLIP has not{near(key, names)}")


def _merged(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    parts = {part: {**base.get(part, {}), **overrides.get(part, {})} for part in _PARTS}
    return {**base, **overrides, **parts}


def _check_names(key: str, missing: Iterable[str], unexpected: Iterable[str]) -> None:
    words = {"lacks": sorted(missing), "also holds": sorted(unexpected)}
    found = [f"{word} {a_few(names)}" for word, names in words.items() if names]
    if found:
        raise ConfigError(f"{key} {' and '.join(found)}: it is not the checkpoint of a BLIP retrieval model.")


def _resize(model: BlipForImageTextRetrieval, image_size: int) -> None:
    """Interpolate the position embeddings of the vision tower, bicubically as BLIP's own code does."""
    tower: Any = model.vision_model.embeddings
    patch, old = tower.patch_size, tower.image_size
    if image_size < patch or image_size % patch:
        raise ConfigError(f"`model.init_args.image_size` is {image_size}: give a multiple of {patch}, a patch's side.")
    if image_size == old:
        return
    before, after = old // patch, image_size // patch
    with torch.no_grad():
        whole, patches = tower.position_embedding[:, :1], tower.position_embedding[:, 1:]
        grid = patches.transpose(1, 2).reshape(1, -1, before, before)
        grid = F.interpolate(grid, size=(after, after), mode="bicubic", align_corners=False)
        tower.position_embedding = nn.Parameter(torch.cat([whole, grid.flatten(2).transpose(1, 2)], dim=1))
    tower.image_size, tower.num_patches, tower.num_positions = image_size, after**2, after**2 + 1
    tower.config.image_size = image_size

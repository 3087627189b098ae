"""Checkpoints of BLIP, those of runs here and those in the layout of its own code, in the names of transformers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from datamodules.errors import ConfigError
from lightning_modules.checkpoints import is_run, read_plain

_LAYER = "vision_model.encoder.layers"
_RENAMED = (
    (r"^visual_encoder\.cls_token$", "vision_model.embeddings.class_embedding"),
    (r"^visual_encoder\.pos_embed$", "vision_model.embeddings.position_embedding"),
    (r"^visual_encoder\.patch_embed\.proj\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual_encoder\.blocks\.(\d+)\.norm(\d)\.", rf"{_LAYER}.\1.layer_norm\2."),
    (r"^visual_encoder\.blocks\.(\d+)\.attn\.qkv\.", rf"{_LAYER}.\1.self_attn.qkv."),
    (r"^visual_encoder\.blocks\.(\d+)\.attn\.proj\.", rf"{_LAYER}.\1.self_attn.projection."),
    (r"^visual_encoder\.blocks\.(\d+)\.mlp\.", rf"{_LAYER}.\1.mlp."),
    (r"^visual_encoder\.norm\.", "vision_model.post_layernorm."),
)
_MOMENTUM = re.compile(r"^(visual_encoder|text_encoder|vision_proj|text_proj)_m\.")
# The captioning decoder of pretraining, positions that transformers counts itself, and the ends and ids of queues.
_NOT_NEEDED = re.compile(
    r"^text_decoder\.|\.position_ids$|^(idx_queue|ptr_queue|queue_ptr|image_queue|text_queue|temp)$"
)
_COPY = "momentum_copy.model."
_HEAD_WIDTH = 64  # of every published BLIP


@dataclass(frozen=True)
class BlipCheckpoint:
    """What a checkpoint of BLIP holds.

    Attributes:
        config: of transformers' BLIP, `text_config` and `vision_config` within; of an original checkpoint read off the
            shapes.
        weights: of the towers and heads, in the names of transformers.
        momentum: those of their momentum copies, in the same names; empty where the checkpoint has none.
        temperature: scalar, None where there is none.
        queues: momentum embeddings of images and of captions, `[Q, D]` each; None where there are none. Their image ids
            are left out: they number the data of the run that wrote them.
        vocabulary: the tokens that it was trained with, in the order of their ids; None where it does not say.
    """

    config: dict[str, Any]
    weights: dict[str, Tensor]
    momentum: dict[str, Tensor]
    temperature: Tensor | None
    queues: tuple[Tensor, Tensor] | None
    vocabulary: list[str] | None = None


def read_blip(path: Path) -> BlipCheckpoint:
    """Read the checkpoint of a run, or of BLIP's own code (`{"model": {"visual_encoder.cls_token": ...}}`).

    Args:
        path: the file.

    Raises:
        ConfigError: when torch cannot load it safely, or it has another layout or holds another family.
    """
    held = read_plain(path, "model.init_args.pretrained")
    return _run(held, path) if is_run(held) else _original(held, path)


def _run(held: Mapping[str, Any], path: Path) -> BlipCheckpoint:
    kept, weights = held.get("hyper_parameters", {}), held["state_dict"]
    if not any(name.startswith(_COPY) for name in weights):
        family = str(kept.get("_class_path", "model")).rpartition(".")[2]
        raise ConfigError(f"`model.init_args.pretrained: {path}` holds a {family}, which is no BLIP.")
    return BlipCheckpoint(
        config=kept["config"],
        weights=_below("model.", weights),
        momentum=_below(_COPY, weights),
        temperature=weights["temperature"],
        queues=(weights["contrastive.image_queue"], weights["contrastive.text_queue"]),
        vocabulary=kept["tokenizer"],
    )


def _below(start: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(start): tensor for name, tensor in weights.items() if name.startswith(start)}


def _original(held: Any, path: Path) -> BlipCheckpoint:
    held = held.get("model", held) if isinstance(held, dict) else {}
    try:
        config = _config(held)
    except (AttributeError, KeyError) as error:
        raise ConfigError(
            f"`model.init_args.pretrained: {path}` is no checkpoint of a BLIP retrieval model: it lacks {error}, which "
            "the layout of BLIP's own code has; for a model of transformers give its folder or id."
        ) from error
    queues = (held["image_queue"].T, held["text_queue"].T) if {"image_queue", "text_queue"} <= held.keys() else None
    return BlipCheckpoint(
        config=config,
        weights={_renamed(name): held[name] for name in held if not _is_extra(name)},
        momentum={_renamed(_MOMENTUM.sub(r"\1.", name)): held[name] for name in held if _is_momentum(name)},
        temperature=held.get("temp"),
        queues=queues,
    )


def _config(held: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the sizes of the towers off the shapes of their weights."""
    patches, embeddings = held["visual_encoder.patch_embed.proj.weight"], "text_encoder.embeddings"
    patch, width = patches.shape[-1], patches.shape[0]
    words, words_width = held[f"{embeddings}.word_embeddings.weight"].shape
    vision = {
        "hidden_size": width,
        "num_attention_heads": max(1, width // _HEAD_WIDTH),
        "num_hidden_layers": _count(held, r"^visual_encoder\.blocks\.(\d+)\."),
        "intermediate_size": len(held["visual_encoder.blocks.0.mlp.fc1.weight"]),
        "patch_size": patch,
        "image_size": patch * round((held["visual_encoder.pos_embed"].shape[1] - 1) ** 0.5),
        "layer_norm_eps": 1e-6,  # that of BLIP's own code
    }
    text = {
        "vocab_size": words,
        "hidden_size": words_width,
        "num_attention_heads": max(1, words_width // _HEAD_WIDTH),
        "num_hidden_layers": _count(held, r"^text_encoder\.encoder\.layer\.(\d+)\."),
        "intermediate_size": len(held["text_encoder.encoder.layer.0.intermediate.dense.weight"]),
        "max_position_embeddings": len(held[f"{embeddings}.position_embeddings.weight"]),
    }
    dim = len(held["vision_proj.weight"])
    return {"text_config": text, "vision_config": vision, "image_text_hidden_size": dim}


def _count(held: Mapping[str, Tensor], pattern: str) -> int:
    return len({found[1] for found in map(re.compile(pattern).match, held) if found})


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def _is_momentum(name: str) -> bool:
    return bool(_MOMENTUM.match(name)) and not _NOT_NEEDED.search(name)


def _is_extra(name: str) -> bool:
    return bool(_MOMENTUM.match(name) or _NOT_NEEDED.search(name))

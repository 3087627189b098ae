"""Building open_clip models, tokenizers and transforms from a name, a checkpoint or an inline config."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datamodules.errors import ConfigError
from lightning_modules.arguments import check_crop
from lightning_modules.caption_tokenizer import unpacked
from lightning_modules.messages import UNREADABLE_WEIGHTS, gist, misfit, near
from lightning_modules.open_clip_files import check_activation, open_clip_run
from lightning_modules.processor import Processor
from lightning_modules.text_tower import rebuild_config

_INLINE = "inline-"


def build_open_clip(
    architecture: str,
    pretrained: str | None = None,
    model_config: dict[str, Any] | None = None,
    preprocess_config: dict[str, Any] | None = None,
    tokenizer: str | Mapping[str, str] | None = None,
) -> tuple[Any, Any]:
    """Return an open_clip model and its tokenizer.

    Args:
        architecture: name of an open_clip model, or `local-dir:FOLDER` or `hf-hub:NAME` for one with weights.
        pretrained: tag or path of weights, or of the checkpoint of a run; None for random weights.
        model_config: open_clip's own config format, given inline; it takes the place of `architecture`. Beside
            `text_cfg.hf_model_name` it may hold `hf_model_config`, the config of that model of transformers, which is
            asked for nowhere then.
        preprocess_config: overrides of the preprocessing.
        tokenizer: folder or hub id of one of transformers, or what `pack_tokenizer` returned, to take in place of the
            architecture's.

    Raises:
        ConfigError: when architecture, weights, tokenizer or config are unknown or do not fit each other.
    """
    import open_clip

    key = "architecture" if model_config is None else "model_config"
    name = architecture if model_config is None else _register(model_config)
    _check_names(name, pretrained)
    if run := open_clip_run(pretrained):
        preprocess = {**run.preprocess_config, **(preprocess_config or {})}
        model, tokenize = build_open_clip(architecture, None, model_config, preprocess, tokenizer or run.tokenizer)
        run.load_into(model, str(pretrained))
        return model, tokenize
    with _no_advice(pretrained is None), _own_text_config(model_config) as overrides:
        try:
            model = open_clip.create_model(
                name,
                pretrained=pretrained,
                force_preprocess_cfg=preprocess_config,
                pretrained_text=False,
                require_pretrained=pretrained is not None or _is_schema(name),
                **overrides,
            )
            return model, open_clip.get_tokenizer(name) if tokenizer is None else _tokenizer(name, tokenizer)
        except (KeyError, TypeError, *UNREADABLE_WEIGHTS) as error:
            if found := misfit(error):
                raise ConfigError(
                    f"`model.init_args.pretrained: {pretrained}` does not fit `model.init_args.{key}`: {found}."
                ) from error
            raise ConfigError(
                f"open_clip cannot build `model.init_args.{key}` with `pretrained: {pretrained}`: {gist(error)}"
                + ("" if pretrained is None else " (where there is no network, give the path of a checkpoint)")
            ) from error


def open_clip_processor(model: Any, tokenizer: Any, crop_scale: tuple[float, float]) -> Processor:
    """Return the transforms and the tokenizer that belong to an open_clip model.

    Raises:
        ConfigError: `crop_scale` is no range within (0, 1].
    """
    from open_clip.transform import PreprocessCfg, image_transform_v2

    check_crop(crop_scale)
    config = PreprocessCfg(**model.visual.preprocess_cfg)
    return Processor(
        train_image=image_transform_v2(config, is_train=True, aug_cfg={"scale": tuple(crop_scale)}),
        eval_image=image_transform_v2(config, is_train=False),
        tokenize=tokenizer,
    )


def rebuild_arguments(model: Any, architecture: str, model_config: dict[str, Any] | None) -> dict[str, Any]:
    """Return the arguments that rebuild the model from a checkpoint alone, with no download and no other file.

    So the config of a text tower of transformers (`text_cfg.hf_model_name`) is among them, as `hf_model_config`.
    """
    import open_clip

    config = model_config or open_clip.get_model_config(architecture)
    if "hf_model_name" in config["text_cfg"]:
        config = {**config, "text_cfg": {**config["text_cfg"], "hf_model_config": rebuild_config(model.text)}}
    return {
        "pretrained": None,
        "model_config": config,
        "preprocess_config": json.loads(json.dumps(model.visual.preprocess_cfg)),  # lists: a yaml knows no tuple
    }


def _tokenizer(name: str, given: str | Mapping[str, str]) -> Any:
    """Return another tokenizer than that of the architecture, set up as its config says."""
    import open_clip
    from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer

    text = open_clip.get_model_config(name)["text_cfg"]
    options = {"context_length": text.get("context_length", DEFAULT_CONTEXT_LENGTH), **text.get("tokenizer_kwargs", {})}
    with unpacked(given) as place:
        try:
            return HFTokenizer(place, tokenizer_mode=text.get("tokenizer_mode"), **options)
        except (OSError, TypeError, ValueError, KeyError) as error:
            raise ConfigError(
                f"`model.init_args.tokenizer: {place}` is no folder or id of a tokenizer that transformers can load: "
                f"{gist(error)}"
            ) from error


def _register(model_config: dict[str, Any]) -> str:
    """Make an inline config known to open_clip under a name of its own, so that it is treated as any other."""
    import open_clip

    missing = sorted({"embed_dim", "vision_cfg", "text_cfg"} - model_config.keys())
    if missing:
        raise ConfigError(
            f"`model.init_args.model_config` lacks {', '.join(missing)}, which every open_clip config has."
        )
    text = json.dumps(model_config, sort_keys=True)
    name = f"{_INLINE}{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    if name not in open_clip.list_models():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.json"
            path.write_text(text)
            open_clip.add_model_config(path)
    return name


@contextmanager
def _own_text_config(model_config: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """Give what makes open_clip build a text tower of transformers from a config that is given inline."""
    text = dict((model_config or {}).get("text_cfg", {}))
    if "hf_model_config" not in text:
        yield {}
        return
    with unpacked({"config.json": json.dumps(text.pop("hf_model_config"))}) as folder:
        yield {"text_cfg": {**text, "hf_model_name": folder, "hf_model_pretrained": False}}


def _check_names(name: str, pretrained: str | None) -> None:
    import open_clip

    if _is_schema(name):
        if pretrained is not None:
            raise ConfigError(
                f"`model.init_args.architecture: {name}` has weights of its own; give `pretrained: null`."
            )
        return
    names = open_clip.list_models()
    if name not in names:
        hint = near(name, names, "; `open_clip.list_models()` lists them.")
        raise ConfigError(f"open_clip has no architecture {name!r} (`model.init_args.architecture`){hint}")
    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained is None:
        return
    if pretrained not in tags and not Path(pretrained).is_file():
        owner = "an inline `model_config`" if name.startswith(_INLINE) else name
        raise ConfigError(
            f"`model.init_args.pretrained: {pretrained}` is neither a file nor a tag of {owner}; "
            f"its tags are: {', '.join(tags) or 'none'}."
        )
    check_activation(pretrained, name)


def _is_schema(name: str) -> bool:
    return name.startswith(("local-dir:", "hf-hub:"))


@contextmanager
def _no_advice(wanted: bool) -> Iterator[None]:
    """Silence open_clip's warning that the weights are random where random weights were asked for."""
    level = logging.root.level
    logging.root.setLevel(logging.ERROR if wanted else level)
    try:
        yield
    finally:
        logging.root.setLevel(level)

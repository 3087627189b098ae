"""Files of open_clip weights: runs to start from, the activation of weights, and folders that plain open_clip loads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from datamodules.errors import ConfigError
from lightning_modules.checkpoints import check_weights, is_run, read_checkpoint
from lightning_modules.messages import gist


class OpenClipRun(NamedTuple):
    """What the checkpoint of a run says of the open_clip model that it holds.

    Attributes:
        weights: by name.
        model_config: that the model was built from.
        preprocess_config: its preprocessing.
        tokenizer: as `pack_tokenizer` returned it.
    """

    weights: dict[str, Tensor]
    model_config: Mapping[str, Any]
    preprocess_config: dict[str, Any]
    tokenizer: Mapping[str, str] | None

    def load_into(self, model: Any, path: str) -> None:
        """Give the weights to a model.

        Raises:
            ConfigError: it is of another architecture; the message names `path`.
        """
        try:
            check_weights(model, self.weights)
        except ConfigError as error:
            misfit = str(error).removeprefix("The checkpoint ")
            raise ConfigError(
                f"`model.init_args.pretrained: {path}` holds another architecture, which {misfit}"
            ) from error
        model.load_state_dict(self.weights)


def open_clip_run(path: str | Path | None) -> OpenClipRun | None:
    """Read the checkpoint of a run whose model open_clip has built; None where the file is no checkpoint of a run.

    Raises:
        ConfigError: the model is of another family.
    """
    if path is None or not is_run(path):
        return None
    held = read_checkpoint(path)
    kept = held.get("hyper_parameters", {})
    if "model_config" not in kept:
        family = str(kept.get("_class_path", "model")).rpartition(".")[2]
        raise ConfigError(f"`model.init_args.pretrained: {path}` holds a {family}, which is no model of open_clip.")
    weights = {
        name.removeprefix("model."): tensor for name, tensor in held["state_dict"].items() if name.startswith("model.")
    }
    return OpenClipRun(weights, *(kept.get(key) for key in ("model_config", "preprocess_config", "tokenizer")))


def check_activation(path: Path, quick_gelu: bool) -> None:
    """Refuse weights that were trained with another activation than the architecture has, where it can be known.

    It is known of the checkpoint of a run, where a config lies beside the weights (`open_clip_config.json`, as every
    hub repository has it), and where the file has the name under which open_clip's own list of weights has it. Shapes
    tell nothing: weights of either activation load, and a model with the wrong one loses accuracy without a word.

    Args:
        path: of the weights.
        quick_gelu: whether the architecture has QuickGELU.

    Raises:
        ConfigError: the activations are known to differ, or the config cannot be read.
    """
    trained, source = _activation(path)
    if trained is None or trained == quick_gelu:
        return
    names = {True: "QuickGELU", False: "GELU"}
    raise ConfigError(
        f"The weights `model.init_args.pretrained: {path}` were trained with {names[trained]} (says {source}), but the "
        f"architecture has {names[quick_gelu]}; take an `architecture` {'with' if trained else 'without'} "
        f"'-quickgelu', or, in an inline `model_config`, `quick_gelu: {str(trained).lower()}`."
    )


def export_open_clip(model: Any, tokenizer: Any, model_config: dict[str, Any], folder: Path) -> None:
    """Write `open_clip_model.safetensors` and `open_clip_config.json`, and the tokenizer where open_clip has no own.

    Args:
        model: built by open_clip.
        tokenizer: likewise.
        model_config: that the model is built from.
        folder: of the files; `open_clip.create_model_and_transforms(f"local-dir:{folder}")` loads it. Of a text tower
            of transformers it asks the hub for the config, because open_clip's format has but its name.
    """
    from open_clip.push_to_hf_hub import save_config_for_hf
    from safetensors.torch import save_file

    weights = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    text = {key: value for key, value in model_config["text_cfg"].items() if key != "hf_model_config"}
    if hasattr(tokenizer, "save_pretrained"):
        tokenizer.save_pretrained(folder)
        text.setdefault("hf_tokenizer_name", "beside")  # without a name the files would not count
    save_config_for_hf(model, folder / "open_clip_config.json", {**model_config, "text_cfg": text})


def _activation(path: Path) -> tuple[bool | None, str]:
    """Return whether the weights were trained with QuickGELU, None where it is unknown, and who says so."""
    if run := open_clip_run(path):
        return bool(run.model_config.get("quick_gelu", False)), "the run"
    config = path.parent / "open_clip_config.json"
    if config.is_file():
        try:
            return bool(json.loads(config.read_text()).get("model_cfg", {}).get("quick_gelu", False)), str(config)
        except (AttributeError, OSError, ValueError) as error:
            raise ConfigError(
                f"{config} lies beside the weights `model.init_args.pretrained: {path}` and is no config of open_clip: "
                f"{gist(error)}."
            ) from error
    import open_clip

    known = [open_clip.get_pretrained_cfg(*pair) for pair in open_clip.list_pretrained()]
    found = {bool(one.get("quick_gelu", False)) for one in known if one.get("url", "").rpartition("/")[2] == path.name}
    return (found.pop() if len(found) == 1 else None), "open_clip's list of weights"

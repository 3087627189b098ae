"""Files of open_clip weights: runs to start from, the activation of weights, and folders that plain open_clip loads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from datamodules.errors import ConfigError
from lightning_modules.checkpoints import check_weights, is_run, read_plain
from lightning_modules.messages import gist

_KEY = "model.init_args.pretrained"
_NOT_OF_TORCH = (".safetensors", ".npz", ".npy")


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
    """Read the checkpoint of a run whose model open_clip has built; None where the file holds the weights alone.

    Raises:
        ConfigError: the model is of another family, or the file is damaged or holds no weights.
    """
    if path is None or not Path(path).is_file() or Path(path).suffix in _NOT_OF_TORCH:
        return None
    held = _read(path)
    if not is_run(held):
        return None
    kept = held.get("hyper_parameters", {})
    if "model_config" not in kept:
        family = str(kept.get("_class_path", "model")).rpartition(".")[2]
        raise ConfigError(f"`model.init_args.pretrained: {path}` holds a {family}, which is no model of open_clip.")
    weights = {
        name.removeprefix("model."): tensor for name, tensor in held["state_dict"].items() if name.startswith("model.")
    }
    return OpenClipRun(weights, *(kept.get(key) for key in ("model_config", "preprocess_config", "tokenizer")))


def check_activation(pretrained: str, name: str) -> None:
    """Refuse weights that were trained with another activation than the architecture has, where it can be known.

    It is known of a tag of open_clip's, before anything is downloaded, of the checkpoint of a run, where a config lies
    beside the weights (`open_clip_config.json`, as every hub repository has it), and where the file has the name under
    which open_clip's own list of weights has it. Shapes tell nothing: weights of either activation load, and a model
    with the wrong one loses accuracy without a word.

    Args:
        pretrained: tag or path of the weights.
        name: of the architecture, which may have QuickGELU or not.

    Raises:
        ConfigError: the activations are known to differ, or the config cannot be read.
    """
    import open_clip

    quick_gelu = open_clip.get_model_config(name).get("quick_gelu", False)
    if tag := open_clip.get_pretrained_cfg(name, pretrained):
        trained, source = tag.get("quick_gelu", False), "open_clip's list of weights"
    else:
        trained, source = _activation(Path(pretrained))
    if trained is None or trained == quick_gelu:
        return
    names = {True: "QuickGELU", False: "GELU"}
    raise ConfigError(
        f"The weights `{_KEY}: {pretrained}` were trained with {names[trained]} (says {source}), but the "
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


def _read(path: str | Path) -> dict[str, Any]:
    """Return what a file of torch's holds, which is weights by name, or has them as its `state_dict`."""
    try:
        held = read_plain(path, _KEY)
    except ConfigError as error:
        if "TorchScript" not in str(error.__cause__):
            raise
        raise ConfigError(
            f"`{_KEY}: {path}` is a TorchScript archive, as OpenAI published its weights, which can run code; convert "
            "one that you trust with `torch.save(open_clip.load_openai_model(PATH).float().state_dict(), NEW)` and "
            "take an architecture that ends in -quickgelu."
        ) from error
    weights = held.get("state_dict", held) if isinstance(held, dict) else None
    if is_run(held) or (isinstance(weights, dict) and weights and all(map(torch.is_tensor, weights.values()))):
        return cast("dict[str, Any]", held)
    raise ConfigError(f"`{_KEY}` is {path}, which holds no weights by name: give a state dict or a run's checkpoint.")


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

"""Image towers from timm: any of its models, weights by tag or from a file, and the transforms that belong to them."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from PIL.Image import Image
from torch import Tensor, nn

from datamodules.errors import ConfigError
from lightning_modules.arguments import check_crop
from lightning_modules.checkpoints import check_intact
from lightning_modules.messages import a_few, gist, near
from lightning_modules.processor import as_rgb

_PREPROCESSING = ("input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode")
_REFUSALS = (OSError, RuntimeError, ValueError, TypeError, KeyError, AssertionError, pickle.UnpicklingError)


def build_timm(
    name: str, weights: str | None = None, image_size: int | None = None, options: Mapping[str, Any] | None = None
) -> Any:
    """Build an image tower without a classifier, which maps `[B, 3, H, W]` to pooled features `[B, F]`.

    Args:
        name: of a timm model, such as "resnet50", or with a tag, "resnet50.a1_in1k", for the preprocessing of the tag.
        weights: a tag of timm's to download, the path of a file (`.safetensors`, `.pth`), or None for random weights.
            Tensors of a file that are named otherwise are taken in their order, where all shapes are the same but for
            sides of 1 (a convolution of one pixel is a linear map).
        image_size: side of the images in pixels; position embeddings are interpolated to it. None: the model's own.
        options: further arguments of the model, such as `drop_path_rate`.

    Returns:
        The tower; its attribute `pretrained_cfg` says what images it wants.

    Raises:
        ConfigError: timm has no such model or tag, the file does not fit it, or it refuses an option.
    """
    import timm

    _check_name(name)
    tags = [one.partition(".")[2] for one in timm.list_models(f"{name.partition('.')[0]}.*", pretrained=True)]
    if weights is None or Path(weights).is_file():
        tower = _create(name, options, pretrained=False)
    elif weights in tags:
        tower = _create(f"{name.partition('.')[0]}.{weights}", options, pretrained=True)
    else:
        raise ConfigError(
            f"`model.init_args.image_weights: {weights}` is neither a file nor a tag of {name}; its tags are: "
            f"{', '.join(tags) or 'none'}."
        )
    if weights is not None and Path(weights).is_file():
        _load(tower, Path(weights))
    tower.reset_classifier(0)
    return tower if image_size is None else _resized(tower, name, image_size)


def full_name(tower: Any) -> str:
    """Return the name of a tower with the tag that says what images, and how large ones, it was made for."""
    config = tower.pretrained_cfg
    return ".".join(filter(None, (config["architecture"], config.get("tag"))))


def preprocessing(tower: nn.Module, image_size: int | None, overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what images a tower wants, as plain values: `{input_size, interpolation, mean, std, crop_pct, crop_mode}`.

    Args:
        tower: made by `build_timm`.
        image_size: side of the images in pixels; None: the tower's own.
        overrides: of the result.

    Raises:
        ConfigError: an override has another name.
    """
    from timm.data.config import resolve_model_data_config

    if unknown := set(overrides or {}) - set(_PREPROCESSING):
        raise ConfigError(
            f"`model.init_args.image_preprocess` holds {', '.join(sorted(unknown))}; its keys are "
            f"{', '.join(_PREPROCESSING)}."
        )
    wanted: dict[str, Any] = resolve_model_data_config(tower)  # type: ignore[no-untyped-call]
    size = {} if image_size is None else {"input_size": (3, image_size, image_size)}
    merged = {**wanted, **size, **(overrides or {})}
    return {key: list(value) if isinstance(value, tuple | list) else value for key, value in merged.items()}


def image_transforms(
    wanted: Mapping[str, Any], crop_scale: tuple[float, float], flip: bool
) -> tuple[Callable[[Image], Tensor], Callable[[Image], Tensor]]:
    """Return the transforms of training, a random crop and flip, and of evaluation, a crop of the middle.

    Args:
        wanted: made by `preprocessing`.
        crop_scale: area range of the random crop.
        flip: whether half of the training images are mirrored.

    Raises:
        ConfigError: `crop_scale` is no range within (0, 1].
    """
    from timm.data.transforms_factory import create_transform
    from torchvision.transforms import Compose

    check_crop(crop_scale)
    settings: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in wanted.items()
    }
    augment: dict[str, Any] = {"scale": tuple(crop_scale), "hflip": 0.5 * flip, "color_jitter": None}
    training, evaluation = create_transform(**settings, is_training=True, **augment), create_transform(**settings)
    return Compose([as_rgb, training]), Compose([as_rgb, evaluation])


@torch.no_grad()
def feature_width(tower: nn.Module, input_size: list[int]) -> int:
    """Return F, the number of features of an image, found by looking at a black one.

    Raises:
        ConfigError: the tower cannot take images of this size, or gives no vector for an image.
    """
    training = tower.training
    try:
        features = tower.eval()(torch.zeros(1, *input_size))
    except _REFUSALS as error:
        raise ConfigError(f"The image tower cannot take images of {input_size} values: {gist(error)}") from error
    finally:
        tower.train(training)
    if features.ndim != 2:
        raise ConfigError(f"The image tower gives {list(features.shape)} for one image, which is no vector.")
    return int(features.shape[1])


def export_timm(tower: Any, wanted: Mapping[str, Any], options: Mapping[str, Any] | None, folder: Path) -> None:
    """Write `config.json` and `model.safetensors`, as timm loads them.

    Args:
        tower: made by `build_timm`.
        wanted: what images it wants, made by `preprocessing`.
        options: those that it was built with.
        folder: of the files; `timm.create_model(f"local-dir:{folder}", pretrained=True)` loads it, and
            `timm.data.resolve_model_data_config` of that says what images it wants.
    """
    from timm.models import save_for_hf

    published = {key: value for key, value in tower.pretrained_cfg.items() if not key.startswith("test_")}
    tower.pretrained_cfg = {**published, **wanted}
    save_for_hf(tower, str(folder), model_args={**(options or {}), "num_classes": 0}, safe_serialization=True)


def _check_name(name: str) -> None:
    import timm

    if timm.is_model(name):
        return
    hint = near(name.partition(".")[0], timm.list_models(), "; `timm.list_models()` lists them.")
    raise ConfigError(f"timm has no model {name!r} (`model.init_args.image_model`){hint}")


def _create(name: str, options: Mapping[str, Any] | None, *, pretrained: bool) -> Any:
    import timm

    try:
        return timm.create_model(name, pretrained=pretrained, **(options or {}))
    except _REFUSALS as error:
        raise ConfigError(
            f"timm cannot build `model.init_args.image_model: {name}` with `image_options: {dict(options or {})}`: "
            f"{gist(error)}" + (" (where there is no network, give the path of the weights)" if pretrained else "")
        ) from error


def _load(tower: Any, path: Path) -> None:
    """Load the weights of a file into a tower that still has its classifier; that of the file may be another."""
    held = _without_counters(_read(path))
    own = _without_counters(tower.state_dict())
    given = tower.pretrained_cfg.get("classifier") or ()
    classifiers = tuple(f"{name}." for name in ([given] if isinstance(given, str) else given))
    needed = {name: tensor for name, tensor in own.items() if not name.startswith(classifiers)}
    if all(name in held and held[name].shape == tensor.shape for name, tensor in needed.items()):
        chosen = {name: held[name] for name in needed}
    elif len(held) == len(own) and all(map(_alike, held.values(), own.values())):
        rank_zero_info(f"The tensors of {path} have other names than timm's: they are taken in their order.")
        chosen = {name: one.reshape(own[name].shape) for name, one in zip(own, held.values(), strict=True)}
    else:
        raise ConfigError(f"`model.init_args.image_weights: {path}` does not fit the model: {_misfit(needed, held)}.")
    tower.load_state_dict(chosen, strict=False)


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from timm.models import load_state_dict

    check_intact(path, "model.init_args.image_weights")
    try:
        held = load_state_dict(str(path))
    except (EOFError, SafetensorError, *_REFUSALS) as error:
        raise ConfigError(
            f"`model.init_args.image_weights: {path}` cannot be loaded safely: it is damaged or no file of weights."
        ) from error
    if not all(isinstance(tensor, Tensor) for tensor in held.values()):
        raise ConfigError(f"`model.init_args.image_weights: {path}` holds other things than weights.")
    return held


def _without_counters(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out how many batches a BatchNorm has seen: files may lack it, and no model here depends on it."""
    return {name: tensor for name, tensor in weights.items() if not name.endswith(".num_batches_tracked")}


def _alike(held: Tensor, own: Tensor) -> bool:
    """Say whether shapes agree up to sides of 1, or a matrix is a convolution with its last axes in one (VGG's fc6)."""
    if [side for side in held.shape if side != 1] == [side for side in own.shape if side != 1]:
        return True
    return (held.ndim, own.ndim) == (2, 4) and len(held) == len(own) and held.numel() == own.numel()


def _misfit(needed: Mapping[str, Tensor], held: Mapping[str, Tensor]) -> str:
    if lacking := [name for name in needed if name not in held]:
        return f"it lacks {a_few(lacking)}"
    name = next(name for name, tensor in needed.items() if held[name].shape != tensor.shape)
    return f"its {name} is {list(held[name].shape)} and should be {list(needed[name].shape)}"


def _resized(tower: Any, name: str, image_size: int) -> Any:
    if list(tower.pretrained_cfg["input_size"][1:]) == [image_size, image_size]:
        return tower
    if hasattr(tower, "set_input_size"):
        try:
            tower.set_input_size(img_size=image_size)
        except _REFUSALS as error:
            raise ConfigError(
                f"`model.init_args.image_size` is {image_size}, which timm's {name} refuses: {gist(error)}"
            ) from error
    elif tower.pretrained_cfg.get("fixed_input_size"):
        raise ConfigError(
            f"`model.init_args.image_size` is {image_size}, but timm's {name} takes no images but those of "
            f"{tower.pretrained_cfg['input_size'][1]} pixels."
        )
    return tower

"""Image towers of timm: weights of a file, sizes, transforms, and what is refused."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from datamodules.errors import ConfigError
from lightning_modules.timm_tower import build_timm, feature_width, full_name, image_transforms, preprocessing

WEIGHTS = Path(__file__).parents[3] / "shared" / "weights"
REAL = {
    "mobilenetv2_100": WEIGHTS / "mobilenet_v2_imagenet" / "mobilenet_v2-b0353104.pth",
    "tf_efficientnet_lite0": WEIGHTS / "efficientnet_lite0_imagenet" / "efficientnet-lite0-57934424.pth",
}
PICTURES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def _features(tower: Any) -> torch.Tensor:
    with torch.no_grad():
        return tower.eval()(PICTURES)


def _turned(held: dict[str, Any]) -> dict[str, Any]:
    """Other names, and tensors of as many numbers whose axes are in another order."""
    turned = {name: tensor.reshape(tensor.shape[::-1]) for name, tensor in held.items()}
    return {f"{place}.{name.split('.')[-1]}": turned[name] for place, name in enumerate(turned)}


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., tuple[Path, torch.Tensor]]:
    """Save the weights of a small model as `change` leaves them, and say what its features are."""

    def save(
        change: Callable[[dict[str, Any]], dict[str, Any]] = dict, ending: str = "pth", **options: Any
    ) -> tuple[Path, torch.Tensor]:
        torch.manual_seed(1)
        model = timm.create_model("test_resnet", **options)
        path, weights = tmp_path / f"weights.{ending}", change(model.state_dict())
        save_file(weights, path) if ending == "safetensors" else torch.save(weights, path)
        model.reset_classifier(0)
        return path, _features(model)

    return save


@pytest.mark.parametrize(
    ("change", "ending"),
    [
        (dict, "safetensors"),
        (dict, "pth"),
        (lambda held: {"state_dict": {f"module.{name}": tensor for name, tensor in held.items()}}, "pth"),
        (lambda held: {name: tensor for name, tensor in held.items() if not name.startswith("fc.")}, "pth"),
        (lambda held: {name: tensor for name, tensor in held.items() if "num_batches" not in name}, "pth"),
        (lambda held: {f"{place}.{name.split('.')[-1]}": held[name] for place, name in enumerate(held)}, "pth"),
    ],
    ids=["safetensors", "pth", "training checkpoint", "no classifier", "no counters", "other names"],
)
def test_weights_of_a_file_give_its_features(saved: Callable[..., Any], change: Any, ending: str) -> None:
    path, expected = saved(change, ending)
    assert torch.equal(_features(build_timm("test_resnet", str(path))), expected)
    assert not torch.allclose(_features(build_timm("test_resnet")), expected)


def test_a_classifier_of_other_classes_does_not_matter(saved: Callable[..., Any]) -> None:
    path, expected = saved(num_classes=7)
    assert torch.equal(_features(build_timm("test_resnet", str(path))), expected)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda held: dict(list(held.items())[9:]), ["lacks conv1.0.weight"]),
        (lambda held: {**held, "conv1.0.weight": torch.zeros(3)}, ["conv1.0.weight is [3] and should be"]),
        (lambda held: {"epoch": 3}, ["other things than weights"]),
        (_turned, ["lacks conv1.0.weight"]),
    ],
)
def test_a_file_that_does_not_fit_is_refused(saved: Callable[..., Any], change: Any, words: list[str]) -> None:
    path, _ = saved(change)
    with pytest.raises(ConfigError) as caught:
        build_timm("test_resnet", str(path))
    assert all(word in str(caught.value) for word in [*words, f"`model.init_args.image_weights: {path}`"])


@pytest.mark.parametrize("content", [b"", b"no weights", pickle.dumps({"run": print}, protocol=2)])
@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_a_damaged_file_is_refused_and_runs_nothing(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be loaded safely"):
        build_timm("test_resnet", str(tmp_path / name))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "resnet5O"}, ["'resnet5O'", "did you mean resnet50"]),
        ({"name": "zzzz"}, ["`timm.list_models()` lists them"]),
        ({"weights": "a1_in1k"}, ["image_weights: a1_in1k", "its tags are: r160_in1k"]),
        ({"weights": "r160_in1k"}, ["test_vit.r160_in1k", "give the path of the weights"]),
        ({"options": {"deptth": 3}}, ["image_options", "deptth"]),
        ({"image_size": 4}, ["`model.init_args.image_size` is 4", "test_vit"]),
        ({"name": "mixer_s32_224", "image_size": 64}, ["image_size` is 64", "of 224 pixels"]),
    ],
)
def test_what_timm_has_not_is_named(arguments: dict[str, Any], words: list[str], monkeypatch: Any) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # it asks a server many times
    with pytest.raises(ConfigError) as caught:
        build_timm(**{"name": "test_vit", **arguments})
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_efficientnet", "mobilenetv3_small_050"])
def test_the_images_may_be_of_another_size(name: str) -> None:
    tower = build_timm(name, image_size=96)
    wanted = preprocessing(tower, 96, None)
    assert wanted["input_size"] == [3, 96, 96]
    with torch.no_grad():
        assert feature_width(tower, [3, 96, 96]) == tower.eval()(torch.zeros(2, 3, 96, 96)).shape[1]


def test_position_embeddings_are_interpolated_from_the_weights() -> None:
    torch.manual_seed(0)
    weights = timm.create_model("test_vit").state_dict()
    weights["pos_embed"] = torch.ones_like(weights["pos_embed"]) * 0.25
    whole = build_timm("test_vit")
    whole.load_state_dict({name: weights[name] for name in whole.state_dict()})
    whole.set_input_size(img_size=64)
    assert whole.pos_embed.shape[1] < weights["pos_embed"].shape[1]
    assert torch.allclose(whole.pos_embed, torch.tensor(0.25))


def test_images_that_the_tower_cannot_take_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"cannot take images of \[3, 8, 8\] values"):
        feature_width(build_timm("test_vit"), [3, 8, 8])
    with pytest.raises(ConfigError, match="no vector"):
        feature_width(build_timm("test_resnet", options={"global_pool": ""}), [3, 64, 64])


def test_feature_width_leaves_the_mode_and_the_statistics_alone() -> None:
    tower = build_timm("test_resnet").train()
    before = {name: tensor.clone() for name, tensor in tower.state_dict().items()}
    assert feature_width(tower, [3, 32, 32]) == 96
    assert tower.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in tower.state_dict().items())


def test_the_name_has_the_tag_of_the_preprocessing() -> None:
    assert full_name(build_timm("resnet18.a3_in1k")) == "resnet18.a3_in1k"
    assert preprocessing(build_timm("resnet18.a3_in1k"), None, None)["input_size"] == [3, 160, 160]
    assert preprocessing(build_timm("resnet18.a1_in1k"), None, None)["input_size"] == [3, 224, 224]


def test_transforms_are_as_wanted_and_pickle() -> None:
    wanted = preprocessing(build_timm("test_resnet"), 32, {"mean": [0.1, 0.2, 0.3], "std": [1.0, 1.0, 1.0]})
    train, evaluate = pickle.loads(pickle.dumps(image_transforms(wanted, (0.2, 0.4), flip=True)))  # noqa: S301
    ramp = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8)[None, :, None] * 4, (50, 1, 3)))
    pictures = [evaluate(ramp), evaluate(ramp)]
    assert torch.equal(*pictures)
    assert pictures[0].shape == (3, 32, 32)
    assert torch.allclose(pictures[0][0] + 0.1, pictures[0][2] + 0.3, atol=1e-6)
    trained = [train(ramp)[0] for _ in range(24)]
    assert {bool(row[0, 0] < row[0, -1]) for row in trained} == {True, False}  # some are mirrored
    assert max(float(row.max() - row.min()) for row in trained) < float(pictures[0].max() - pictures[0].min())
    assert (image_transforms(wanted, (1.0, 1.0), flip=False)[0](ramp)[0].diff(dim=1) >= -1e-6).all()


def test_a_key_of_the_preprocessing_that_is_not_known_is_named() -> None:
    with pytest.raises(ConfigError, match=r"image_preprocess` holds meen; its keys are input_size"):
        preprocessing(build_timm("test_resnet"), None, {"meen": [0, 0, 0]})


@pytest.mark.real
@pytest.mark.parametrize("name", REAL)
def test_real_weights_tell_real_photos_apart(name: str) -> None:
    photos = WEIGHTS.parent / "data" / "coco-sample" / "images"
    if not REAL[name].is_file() or not photos.is_dir():
        pytest.skip(f"there is no {REAL[name]}, or no photos in {photos}")
    towers = [build_timm(name, weights).eval() for weights in (str(REAL[name]), None)]
    evaluate = image_transforms(preprocessing(towers[0], None, None), (1.0, 1.0), flip=False)[1]
    files = sorted(photos.iterdir())[:6]
    pictures = torch.stack([evaluate(Image.open(file).convert("RGB")) for file in files])
    with torch.no_grad():
        seen, random = (torch.nn.functional.normalize(tower(pictures)) for tower in towers)
        mirrored = torch.nn.functional.normalize(towers[0](pictures.flip(3)))
    assert ((seen @ mirrored.T).argmax(dim=1) == torch.arange(len(files))).all()
    off = ~torch.eye(len(files), dtype=bool)
    assert (seen @ seen.T)[off].mean() < 0.8 < (random @ random.T)[off].mean()


def test_a_grey_image_is_made_rgb() -> None:
    wanted = {"input_size": [3, 8, 8], "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 1.0}
    for transform in image_transforms(wanted, (1.0, 1.0), False):
        assert transform(Image.new("L", (10, 10), 255)).tolist() == torch.ones(3, 8, 8).tolist()

"""Building open_clip models from names, inline configs and checkpoints; every slip gets one sentence."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from transformers import CONFIG_MAPPING, BertTokenizer

from datamodules.errors import ConfigError
from lightning_modules.caption_tokenizer import pack_tokenizer
from lightning_modules.open_clip_files import export_open_clip
from lightning_modules.open_clip_models import build_open_clip, open_clip_processor, rebuild_arguments

TINY: dict[str, Any] = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 16, "head_width": 8, "layers": 1},
    "text_cfg": {"context_length": 12, "width": 16, "heads": 2, "layers": 1},
}


def _parameters(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_weights_come_back_from_a_checkpoint(tmp_path: Path, suffix: str) -> None:
    model, _ = build_open_clip("unused", None, TINY)
    path = tmp_path / f"weights.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(model.state_dict(), path)
    other, _ = build_open_clip("unused", str(path), TINY)
    assert torch.equal(_parameters(model), _parameters(other))


def test_a_pickled_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"state_dict": _Bomb()}, path)
    with pytest.raises(ConfigError, match=r"weights\.pt"):
        build_open_clip("unused", str(path), TINY)
    assert not _Bomb.exploded


class _Bomb:
    exploded = False

    def __reduce__(self) -> tuple[Any, ...]:
        return setattr, (_Bomb, "exploded", True)


def test_preprocessing_follows_the_config() -> None:
    model, tokenizer = build_open_clip("unused", None, TINY, {"mean": (0.5,) * 3, "std": (0.5,) * 3})
    processor = pickle.loads(pickle.dumps(open_clip_processor(model, tokenizer, (0.9, 1.0))))  # noqa: S301
    white = Image.new("RGB", (40, 20), "white")
    assert torch.equal(processor.eval_image(white), torch.ones(3, 16, 16))
    assert processor.train_image(white).shape == (3, 16, 16)
    assert processor.tokenize(["a dog", "a cat on a mat"]).shape == (2, 12)


def test_rebuild_arguments_need_no_file() -> None:
    model, _ = build_open_clip("unused", None, TINY, {"mean": (0.5,) * 3})
    again = rebuild_arguments(model, "unused", TINY)
    assert again["pretrained"] is None
    rebuilt, _ = build_open_clip("unused", **again)
    assert {key: value.shape for key, value in rebuilt.state_dict().items()} == {
        key: value.shape for key, value in model.state_dict().items()
    }
    assert json.dumps(rebuilt.visual.preprocess_cfg) == json.dumps(model.visual.preprocess_cfg)
    assert yaml.safe_load(yaml.safe_dump(again)) == again


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("ViT-B32",), ["architecture 'ViT-B32'", "did you mean ViT-B-32"]),
        (("ViT-B-32", "opnai"), ["`model.init_args.pretrained: opnai`", "laion400m_e31"]),
        (("unused", "opnai", TINY), ["neither a file nor a tag of an inline `model_config`"]),
        (("unused", None, {"embed_dim": 8}), ["`model.init_args.model_config` lacks text_cfg, vision_cfg"]),
        (("unused", None, {**TINY, "vision_cfg": {"wdth": 8}}), ["`model.init_args.model_config`", "'wdth'"]),
    ],
)
def test_slips_are_explained(arguments: tuple[Any, ...], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        build_open_clip(*arguments)
    for word in words:
        assert word in str(error.value)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    model, _ = build_open_clip("unused", None, {**TINY, "embed_dim": 4})
    torch.save({"strange": torch.ones(1), **model.state_dict()}, tmp_path / "other.pt")
    words = (
        r"other\.pt` does not fit `model.init_args.model_config`: it has too much: strange; of another shape: .*proj"
    )
    with pytest.raises(ConfigError, match=words) as error:
        build_open_clip("unused", str(tmp_path / "other.pt"), TINY)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04 nothing more", "damaged or foreign"),
        (b"a text", "damaged or foreign"),
        ([1, 2], "holds no weights by name"),
        ({}, "holds no weights by name"),
    ],
)
def test_files_that_hold_no_weights_are_refused(tmp_path: Path, content: Any, words: str) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(ConfigError, match=rf"`model.init_args.pretrained` is .*weights\.pt, .*{words}"):
        build_open_clip("unused", str(path), TINY)


def test_flipped_bytes_are_noticed(tmp_path: Path) -> None:
    path = Path(_weights(tmp_path, "flip.pt"))
    ones = torch.ones(4).numpy().tobytes()  # of a LayerNorm
    path.write_bytes(path.read_bytes().replace(ones, torch.full((4,), 2.0).numpy().tobytes()))
    with pytest.raises(ConfigError, match=r"flip\.pt, which is damaged: a checksum in it does not fit"):
        build_open_clip("unused", str(path), TINY)


def test_an_activation_mismatch_is_refused_before_a_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> str:
        raise AssertionError("weights must not be fetched before the activations agree")

    monkeypatch.setattr("open_clip.factory.download_pretrained", never)
    with pytest.raises(ConfigError, match=r"openai` were trained with QuickGELU .*'-quickgelu'"):
        build_open_clip("ViT-B-32", "openai")


@pytest.mark.parametrize("name", ["RN50", "ViT-L-14-336", "ViT-B-16-plus-240", "convnext_base", "coca_ViT-B-32"])
def test_other_architectures_are_built_shrunken(name: str) -> None:
    config = _shrunken(open_clip.get_model_config(name))
    model, tokenizer = build_open_clip("unused", None, config)
    processor = open_clip_processor(model, tokenizer, (0.9, 1.0))
    image = processor.train_image(Image.new("RGB", (7, 5)))[None]
    assert image.shape[-1] == config["vision_cfg"]["image_size"]
    with torch.no_grad():
        assert model.encode_image(image).shape == model.encode_text(processor.tokenize(["a dog"])).shape == (1, 8)
    assert rebuild_arguments(model, name, None)["model_config"] == open_clip.get_model_config(name)


def _shrunken(config: dict[str, Any]) -> dict[str, Any]:
    small: dict[str, Any] = {"width": 16, "head_width": 8, "layers": 1, "heads": 2, "context_length": 12}
    small |= {"timm_model_name": "test_byobnet", "timm_proj": "linear", "image_size": 64, "patch_size": 16}
    small |= {"embed_dim": 8, "attn_pooler_heads": 2, "latent_dim": 8}
    towers = {key: value for key, value in config.items() if isinstance(value, dict)}
    shrunken = {key: {name: small.get(name, value) for name, value in tower.items()} for key, tower in towers.items()}
    shrunken["vision_cfg"]["head_width"] = 8
    if isinstance(config["vision_cfg"].get("layers"), list):
        shrunken["vision_cfg"]["layers"] = [1, 1, 1, 1]
    return {**config, **shrunken, "embed_dim": 8}


def _weights(folder: Path, name: str, **config: Any) -> str:
    model, _ = build_open_clip("unused", None, {**TINY, **config})
    torch.save(model.state_dict(), folder / name)
    return str(folder / name)


@pytest.mark.parametrize("quick", [True, False])
def test_local_weights_of_another_activation_are_refused_where_a_config_lies_beside(
    tmp_path: Path, quick: bool
) -> None:
    path = _weights(tmp_path, "model.pt")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {**TINY, "quick_gelu": quick}}))
    build_open_clip("unused", path, {**TINY, "quick_gelu": quick})
    with pytest.raises(ConfigError, match=rf"open_clip_config.json\).*`quick_gelu: {str(quick).lower()}`"):
        build_open_clip("unused", path, {**TINY, "quick_gelu": not quick})


@pytest.mark.parametrize("content", ["{", "[]", '{"model_cfg": null}'])
def test_a_damaged_config_beside_the_weights_is_named(tmp_path: Path, content: str) -> None:
    path = _weights(tmp_path, "model.pt")
    (tmp_path / "open_clip_config.json").write_text(content)
    with pytest.raises(ConfigError, match=r"open_clip_config\.json lies beside .* is no config of open_clip"):
        build_open_clip("unused", path, TINY)


def test_local_weights_of_another_activation_are_refused_where_their_name_is_known(tmp_path: Path) -> None:
    path = _weights(tmp_path, "rn50-quickgelu-cc12m-f000538c.pt")
    build_open_clip("unused", path, {**TINY, "quick_gelu": True})
    with pytest.raises(ConfigError, match=r"were trained with QuickGELU .says open_clip's list of weights"):
        build_open_clip("unused", path, TINY)


def test_a_torchscript_archive_is_explained(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(1, 1)).save(tmp_path / "ViT.pt")
    with pytest.raises(ConfigError, match=r"convert one that you trust with `torch\.save"):
        build_open_clip("unused", str(tmp_path / "ViT.pt"), TINY)


@pytest.fixture
def run(tiny_clip: Callable[..., Any], quiet_trainer: Callable[..., Any], tmp_path: Path) -> tuple[Any, str]:
    """A CLIP, and the checkpoint of its run."""
    model = tiny_clip(quick_gelu=True, preprocess_config={"mean": [0.1, 0.2, 0.3]})
    (trainer := quiet_trainer()).strategy.connect(model)
    trainer.save_checkpoint(path := tmp_path / "best.ckpt")
    return model.eval(), str(path)


def test_a_run_is_started_from(run: tuple[Any, str], tiny_clip: Callable[..., Any]) -> None:
    model, path = run
    again = tiny_clip(pretrained=path, quick_gelu=True, lr=0.5)
    assert torch.equal(_parameters(again), _parameters(model))
    assert (again.lr, again.hparams["pretrained"]) == (0.5, None)
    photo = Image.effect_noise((40, 20), 80).convert("RGB")
    assert torch.equal(again.processor.eval_image(photo), model.processor.eval_image(photo))
    other = tiny_clip(pretrained=path, quick_gelu=True, preprocess_config={"mean": [0.5, 0.5, 0.5]})
    assert not torch.equal(other.processor.eval_image(photo), model.processor.eval_image(photo))
    stretched = tiny_clip(pretrained=path, quick_gelu=True, preprocess_config={"resize_mode": "squash"})
    seen = stretched.hparams["preprocess_config"]
    assert (seen["mean"], seen["resize_mode"]) == ([0.1, 0.2, 0.3], "squash")  # the rest stays that of the run


def test_a_run_of_another_model_is_refused(run: tuple[Any, str], tiny_clip: Callable[..., Any]) -> None:
    _, path = run
    with pytest.raises(ConfigError, match=r"were trained with QuickGELU \(says the run\)"):
        tiny_clip(pretrained=path)
    with pytest.raises(
        ConfigError, match=r"another architecture, which does not fit the CLIP .*: text_projection \[16"
    ):
        build_open_clip("unused", path, {**TINY, "embed_dim": 4, "quick_gelu": True})
    held = torch.load(path, weights_only=True)
    held["hyper_parameters"] = {"_class_path": "lightning_modules.VSEPP"}
    torch.save(held, path)
    with pytest.raises(ConfigError, match=r"best\.ckpt` holds a VSEPP, which is no model of open_clip"):
        tiny_clip(pretrained=path)


@pytest.mark.parametrize("kind", ["roberta", "mt5"])
def test_a_text_tower_of_transformers_is_rebuilt_without_its_source(tmp_path: Path, kind: str) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    sizes |= {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "vocab_size": 10}
    known = CONFIG_MAPPING[kind]
    known(**{key: size for key, size in sizes.items() if hasattr(known(), key)}).save_pretrained(tmp_path / "text")
    BertTokenizer(vocab={word: place for place, word in enumerate(["[PAD]", "[UNK]", "a", "dog"])}).save_pretrained(
        tmp_path / "text"
    )
    source = str(tmp_path / "text")
    text = {
        "hf_model_name": source,
        "hf_tokenizer_name": source,
        "hf_pooler_type": "mean_pooler",
        "hf_proj_type": "mlp",
    }
    config = {**TINY, "text_cfg": text}
    model, tokenizer = build_open_clip("unused", None, config)
    kept, words = rebuild_arguments(model, "unused", config), pack_tokenizer(tokenizer)
    assert yaml.safe_load(yaml.safe_dump(kept)) == kept
    shutil.rmtree(source)
    again, tokenize = build_open_clip("unused", **kept, tokenizer=words)
    again.load_state_dict(model.state_dict())
    tokens = tokenize(["a dog"])
    with torch.no_grad():
        assert torch.equal(again.eval().encode_text(tokens), model.eval().encode_text(tokenizer(["a dog"])))
    export_open_clip(again, tokenize, kept["model_config"], tmp_path)
    assert json.loads((tmp_path / "open_clip_config.json").read_text())["model_cfg"] == config


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("local-dir:nowhere",), "`model.init_args.architecture`.*nowhere"),
        (("local-dir:nowhere", "openai"), "has weights of its own; give `pretrained: null`"),
    ],
)
def test_folders_are_checked(arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_open_clip(*arguments)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY}))
    with pytest.raises(ConfigError, match="could not be loaded"):
        build_open_clip(f"local-dir:{tmp_path}")

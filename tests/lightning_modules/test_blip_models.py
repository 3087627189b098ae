"""Where BLIP's weights come from: transformers' folders, the layout of BLIP's own code, or a config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from datamodules.errors import ConfigError
from lightning_modules.blip import BLIP
from lightning_modules.blip_models import build_blip, rebuild_config
from lightning_modules.blip_towers import image_states, matching_logits, text_embeddings

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]
CONFIG: dict[str, Any] = {
    "text_config": {
        "vocab_size": 20,
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 12,
    },
    "vision_config": {
        "hidden_size": 24,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    },
    "image_text_hidden_size": 8,
}
TOKENS = {"input_ids": torch.tensor([[2, 5, 6, 3, 0], [2, 7, 3, 0, 0]]), "attention_mask": torch.ones(2, 5).long()}


def _pixels(side: int = 32) -> torch.Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def _model(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return build_blip(None, CONFIG, None, {}).model.eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    _model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_model_from_scratch_is_not_born_dead() -> None:
    spread = _model().vision_model.encoder.layers[0].mlp.fc1.weight.std().item()
    assert spread == pytest.approx(0.02, rel=0.1)


def test_a_folder_in_half_precision_is_trained_in_single_precision(tmp_path: Path) -> None:
    _model().to(torch.float16).save_pretrained(tmp_path)
    assert build_blip(str(tmp_path), None, None, {}).model.dtype == torch.float32


def test_a_folder_of_transformers_is_loaded_with_dropout_of_its_own(folder: Path) -> None:
    parts = build_blip(str(folder), None, None, {"hidden_dropout_prob": 0.25})
    assert (parts.momentum, parts.temperature, parts.queues) == (None, None, None)
    assert parts.model.text_encoder.embeddings.dropout.p == 0.25
    for name, weight in _model().state_dict().items():
        assert torch.equal(weight, parts.model.state_dict()[name]), name


def test_the_embeddings_are_those_of_transformers(folder: Path) -> None:
    model = BLIP(str(folder), tokenizer=WORDS, max_length=5).eval()
    images, texts = model.encode_images(_pixels()), model.encode_texts(TOKENS)
    expected = _model()(**TOKENS, pixel_values=_pixels(), use_itm_head=False).itm_score
    torch.testing.assert_close(images @ texts.T, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("side", [32, 16, 56])
def test_positions_are_interpolated_as_transformers_does(folder: Path, side: int) -> None:
    model = build_blip(str(folder), None, side, {}).model.eval()
    expected = _model().vision_model(_pixels(side), interpolate_pos_encoding=True).last_hidden_state
    torch.testing.assert_close(image_states(model, _pixels(side)), expected, rtol=0, atol=1e-5)
    again = build_blip(None, rebuild_config(model.config), None, {}).model
    again.load_state_dict(model.state_dict())


def _original(seed: int = 0) -> dict[str, torch.Tensor]:
    """A checkpoint of BLIP's own code: its vision tower is timm's, by name and by deed."""
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(seed)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 1, "mlp_ratio": 0.75}
    visual, text = VisionTransformer(**sizes, num_classes=0), _text_tower()
    held = {f"visual_encoder.{name}": weight for name, weight in visual.state_dict().items()}
    held |= {f"text_encoder.{name}": weight for name, weight in text.state_dict().items()}
    for name, (out, into) in {"vision_proj": (8, 64), "text_proj": (8, 64), "itm_head": (2, 64)}.items():
        held |= {f"{name}.{part}": weight for part, weight in nn.Linear(into, out).state_dict().items()}
    held["text_encoder.embeddings.position_ids"] = torch.arange(12)[None]
    return held


def _text_tower() -> Any:
    """Transformers has kept the names of the text tower."""
    from transformers import BlipTextConfig, BlipTextModel

    sizes = CONFIG["text_config"] | {"hidden_size": 64, "num_attention_heads": 1, "encoder_hidden_size": 64}
    return BlipTextModel(BlipTextConfig(**sizes), add_pooling_layer=False)


def _write(path: Path, **extra: torch.Tensor) -> Path:
    online, slow = _original(0), _original(1)
    towers = ("visual_encoder", "text_encoder", "vision_proj", "text_proj")
    copies = {f"{name.partition('.')[0]}_m.{name.partition('.')[2]}": slow[name] for name in slow}
    held = online | {
        name: weight for name, weight in copies.items() if name.startswith(tuple(f"{t}_m" for t in towers))
    }
    held |= {"temp": torch.tensor(0.03), "image_queue": torch.rand(8, 6), "text_queue": torch.rand(8, 6)}
    held |= {"idx_queue": torch.full((1, 6), 7), "ptr_queue": torch.tensor([3]), "text_decoder.x": torch.rand(2)}
    torch.save({"model": held | extra, "epoch": 3}, path)
    return path


def test_the_original_layout_gives_the_same_outputs(tmp_path: Path) -> None:
    from timm.models.vision_transformer import VisionTransformer

    parts = build_blip(str(_write(tmp_path / "blip.pth")), None, None, {})
    for seed, model in enumerate((parts.model.eval(), parts.momentum.eval())):
        held = _original(seed)
        sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 1, "mlp_ratio": 0.75}
        visual = VisionTransformer(**sizes, num_classes=0).eval()
        visual.load_state_dict({name[15:]: held[name] for name in held if name.startswith("visual_encoder.")})
        torch.testing.assert_close(
            image_states(model, _pixels()), visual.forward_features(_pixels()), rtol=0, atol=1e-5
        )
        text = _text_tower().eval()
        text.load_state_dict(
            {name[13:]: held[name] for name in held if name.startswith("text_encoder.") and "_ids" not in name}
        )
        states = text(**TOKENS).last_hidden_state[:, 0]
        expected = nn.functional.linear(states, held["text_proj.weight"], held["text_proj.bias"])
        torch.testing.assert_close(text_embeddings(model, TOKENS), nn.functional.normalize(expected), atol=1e-6, rtol=0)
    assert torch.equal(parts.model.itm_head.weight, _original(0)["itm_head.weight"])


def test_momentum_temperature_and_queues_of_the_original_go_on(tmp_path: Path) -> None:
    path = _write(tmp_path / "blip.pth")
    held = torch.load(path)["model"]
    for size in (4, 9):
        model = BLIP(str(path), tokenizer=WORDS, max_length=5, queue_size=size)
        assert model.temperature.item() == pytest.approx(0.03)
        assert torch.equal(model.momentum_copy.model.text_proj.weight, held["text_proj_m.weight"])
        count = min(size, 6)
        assert torch.equal(model.contrastive.image_queue[:count], held["image_queue"].T[:count])
        assert torch.equal(model.contrastive.text_queue[:count], held["text_queue"].T[:count])
        assert model.contrastive.id_queue.tolist() == [-100] * size  # the ids of another run mean other images
        assert model.contrastive.pointer.item() == 0


def test_an_original_of_another_size_and_with_given_heads(tmp_path: Path) -> None:
    path = _write(tmp_path / "blip.pth")
    heads = {"vision_config": {"num_attention_heads": 4}, "text_config": {"num_attention_heads": 2}}
    parts = build_blip(str(path), heads, 48, {})
    for model in (parts.model, parts.momentum):
        assert model.vision_model.encoder.layers[0].self_attn.num_heads == 4
        assert image_states(model, _pixels(48)).shape == (2, 37, 64)
        assert matching_logits(model, image_states(model, _pixels(48)), TOKENS, 9).shape == (2, 2)


def _drop(path: Path, *names: str) -> Path:
    held = torch.load(path)
    torch.save({"model": {name: weight for name, weight in held["model"].items() if name not in names}}, path)
    return path


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda path: _drop(_write(path), "itm_head.bias", "text_proj.bias"),
            "lacks itm_head.bias, text_proj.bias: it",
        ),
        (lambda path: _drop(_write(path), "text_proj_m.bias"), "momentum copy in .* lacks text_proj.bias"),
        (lambda path: _drop(_write(path), "visual_encoder.cls_token"), "lacks vision_model.embeddings.class_embedding"),
        (lambda path: _write(path, strange=torch.ones(1)), "also holds strange"),
        (lambda path: torch.save({"state_dict": {}}, path), "lacks 'visual_encoder.patch_embed.proj.weight'"),
        (lambda path: torch.save([1, 2], path), "is no checkpoint of a BLIP retrieval model"),
        (lambda path: path.write_bytes(b"\x00not a checkpoint"), "damaged or foreign"),
        (lambda path: path.write_bytes(b"abc"), "damaged or foreign"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, spoil: Any, words: str) -> None:
    path = tmp_path / "blip.pth"
    spoil(path)
    with pytest.raises(ConfigError, match=words) as caught:
        build_blip(str(path), None, None, {})
    assert str(path) in str(caught.value)


def test_folders_of_other_models_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers import BertConfig, BlipConfig, BlipForConditionalGeneration

    BertConfig().save_pretrained(tmp_path / "bert")
    BlipForConditionalGeneration(BlipConfig(**CONFIG)).save_pretrained(tmp_path / "captioner")
    with pytest.raises(ConfigError, match="of the family 'bert', not of BLIP"):
        build_blip(str(tmp_path / "bert"), None, None, {})
    with pytest.raises(ConfigError, match=r"lacks itm_head.bias.* and also holds text_decoder"):
        build_blip(str(tmp_path / "captioner"), None, None, {})
    assert "MISSING" not in capfd.readouterr().err
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="no/such` is neither a checkpoint file nor a folder or id"):
        build_blip("no/such", None, None, {})


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("model.safetensors", b""),
        ("model.safetensors", b"\xff" * 99),
        ("pytorch_model.bin", b"abc"),
        ("pytorch_model.bin", b"\x80"),
    ],
)
def test_damaged_weights_in_a_folder_are_told(folder: Path, name: str, held: bytes) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(held)
    with pytest.raises(ConfigError, match=r"`model.init_args.pretrained: .*model` is neither"):
        build_blip(str(folder), None, None, {})


def test_weights_of_other_shapes_are_named(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"model` has other shapes than .*: text_proj.bias, text_proj.weight, vis"):
        build_blip(str(folder), {"image_text_hidden_size": 16}, None, {})


@pytest.mark.parametrize("value", [None, "small", ["hidden_size"]])
def test_a_tower_without_keys_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"`model.init_args.config.text_config` is .*: give keys"):
        build_blip(None, {"text_config": value}, None, {})


@pytest.mark.parametrize(
    ("config", "size", "words"),
    [
        ({"vision_confg": {}}, None, "`model.init_args.config` holds 'vision_confg'.*did you mean vision_config"),
        ({"text_config": {"num_heads": 2}}, None, "`model.init_args.config.text_config` holds 'num_heads'"),
        ({"text_config": {"hidden_size": "wide"}}, None, "transformers refuses `model.init_args.config`"),
        ({"text_config": {"hidden_size": 33}}, None, "cannot build.*33"),
        ({}, 20, "`model.init_args.image_size` is 20: give a multiple of 8"),
        ({}, 0, "`model.init_args.image_size` is 0"),
    ],
)
def test_configs_that_cannot_work_are_refused(config: dict[str, Any], size: int | None, words: str) -> None:
    whole = {part: CONFIG[part] | config.get(part, {}) for part in ("text_config", "vision_config")}
    with pytest.raises(ConfigError, match=words):
        build_blip(None, {**config, **whole}, size, {})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"tokenizer": [*WORDS, *(f"w{n}" for n in range(9))]}, "has 24 tokens with .DEC. and .ENC., .* only 20"),
        ({"max_length": 13}, "`model.init_args.max_length` is 13: give 2 to 12"),
        ({"max_words": 0}, "`model.init_args.max_words` is 0"),
        ({"alpha": 1.5}, "`model.init_args.alpha` is 1.5: give a number from 0 to 1"),
        ({"alpha_epochs": -1}, "`model.init_args.alpha_epochs` is -1: give a number of 0 or more"),
        ({"temperature": 2.0}, "`model.init_args.temperature` is 2.0"),
        ({"text_dropout": -0.1}, "`model.init_args.text_dropout` is -0.1"),
        ({"momentum": 1.0}, "`model.init_args.momentum` is 1.0"),
        ({"queue_size": 0}, "`model.init_args.queue_size` is 0"),
        ({"negatives": "rank"}, "`model.init_args.negatives` is 'rank': give one of all_ranks, local"),
        ({"counterfactual_weight": -1}, "`model.init_args.counterfactual_weight` is -1"),
    ],
)
def test_arguments_that_cannot_work_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        BLIP(**{"config": CONFIG, "tokenizer": WORDS, "max_length": 5, "queue_size": 4} | arguments)

"""SigLIP: the loss, what is trained, the tokenizer in the checkpoint, export, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import BertTokenizer

from datamodules.errors import ConfigError
from lightning_modules import RetrievalModule, SigLIP

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "picture", "of", "dogs", *"0123456789"]
TINY: dict[str, Any] = {
    "embed_dim": 64,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {"image_size": 32, "timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none"},
    "text_cfg": {
        "context_length": 8,
        "vocab_size": 24,
        "hf_tokenizer_name": "timm/ViT-B-16-SigLIP",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "width": 16,
        "heads": 2,
        "layers": 1,
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
    },
}
SQUASHED = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}


@pytest.fixture
def tokenizer(tmp_path: Path) -> str:
    BertTokenizer(vocab={word: place for place, word in enumerate(WORDS)}).save_pretrained(tmp_path / "words")
    return str(tmp_path / "words")


@pytest.fixture
def tiny(tokenizer: str) -> Callable[..., SigLIP]:
    """Build a SigLIP in small, with the parts that open_clip's large ones have."""

    def build(**arguments: Any) -> SigLIP:
        torch.manual_seed(0)
        return SigLIP(**{"model_config": TINY, "preprocess_config": SQUASHED, "tokenizer": tokenizer, **arguments})

    return build


@pytest.fixture
def batch(pairs: Callable[..., Any]) -> Callable[..., Any]:
    def make(model: SigLIP) -> Any:
        return pairs(model, pixel_values=torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)))

    return make


def test_the_loss_is_that_of_every_pair_alone(tiny: Callable[..., Any], batch: Callable[..., Any]) -> None:
    model = tiny()
    given = batch(model)
    images, texts = model.encode_images(given.pixel_values), model.encode_texts(given.tokens)
    expected = torch.tensor(0.0)
    for row, image in enumerate(images):
        for column, text in enumerate(texts):
            sign = 1 if row == column else -1
            expected = expected - F.logsigmoid(sign * (model.model.logit_scale.exp() * (image @ text) - 10)) / 4
    loss = model.training_loss(given)
    assert torch.allclose(loss, expected, rtol=1e-5)
    loss.backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


def test_gradient_checkpointing_changes_no_gradient(tiny: Callable[..., Any], batch: Callable[..., Any]) -> None:
    plain, saved = tiny(), tiny(gradient_checkpointing=True)
    assert saved.model.visual.trunk.grad_checkpointing
    for model in (plain, saved):
        model.training_loss(batch(model)).backward()
    for one, other in zip(plain.parameters(), saved.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_a_scale_above_the_bound_of_clip_stays(
    tiny: Callable[..., Any], batch: Callable[..., Any], quiet_trainer: Callable[..., Any]
) -> None:
    model = tiny(lr=1e-6)
    model.model.logit_scale.data.fill_(4.7215)
    quiet_trainer(max_steps=1).fit(model, DataLoader([batch(model)], batch_size=None))
    assert model.model.logit_scale.item() == pytest.approx(4.7215, abs=1e-4)
    assert model.model.logit_bias.item() != -10


@pytest.fixture
def trained(
    tiny: Callable[..., Any], batch: Callable[..., Any], quiet_trainer: Callable[..., Any], tmp_path: Path
) -> tuple[SigLIP, Path]:
    """A model after a step, and its checkpoint; the tokenizer it was made with is gone."""
    model, trainer = tiny(), quiet_trainer(max_steps=1)
    trainer.fit(model, DataLoader([batch(model)], batch_size=None))
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    shutil.rmtree(tmp_path / "words")
    return model.eval(), tmp_path / "run.ckpt"


def test_a_checkpoint_rebuilds_model_tokenizer_and_preprocessing(trained: Any, batch: Callable[..., Any]) -> None:
    model, path = trained
    again = RetrievalModule.load_from_checkpoint(path).eval()
    assert isinstance(again, SigLIP)
    assert again.processor.tokenize(["A picture, of 2 dogs!", ""]).tolist() == [
        [2, 5, 6, 7, 11, 8, 3, 0],
        [2, 3] + [0] * 6,
    ]
    photo = Image.new("RGB", (40, 30), "red")
    assert torch.equal(again.processor.eval_image(photo), model.processor.eval_image(photo))
    given = batch(model)
    with torch.no_grad():
        assert torch.equal(again.training_loss(given), model.training_loss(given))


def test_plain_open_clip_loads_what_is_exported(trained: Any, batch: Callable[..., Any], tmp_path: Path) -> None:
    model, _ = trained
    (tmp_path / "export").mkdir()
    model.export(tmp_path / "export")
    place = f"local-dir:{tmp_path / 'export'}"
    plain, _, transform = open_clip.create_model_and_transforms(place)
    given = batch(model)
    photo = Image.new("RGB", (40, 30), "red")
    with torch.no_grad():
        images = plain.eval().encode_image(given.pixel_values, normalize=True)
        texts = plain.encode_text(open_clip.get_tokenizer(place)(["a picture of 3 dogs"]), normalize=True)
        assert torch.allclose(images, model.encode_images(given.pixel_values), atol=1e-6)
        assert torch.allclose(texts, model.encode_texts(given.tokens)[3:], atol=1e-6)
    assert torch.equal(transform(photo), model.processor.eval_image(photo))
    assert plain.logit_bias == model.model.logit_bias


def test_every_siglip_of_open_clip_has_what_the_loss_learns() -> None:
    names = [name for name in open_clip.list_models() if "siglip" in name.lower()]
    assert len(names) > 10
    assert all(open_clip.get_model_config(name)["init_logit_bias"] == -10 for name in names)


def test_the_tokenizer_of_open_clip_is_no_part_of_the_checkpoint(tiny: Callable[..., Any]) -> None:
    text = {"context_length": 8, "width": 16, "heads": 2, "layers": 1}
    model = tiny(model_config={**TINY, "text_cfg": text}, tokenizer=None)
    assert model.hparams["tokenizer"] is None
    assert model.processor.tokenize(["a dog"]).shape == (1, 8)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            {"model_config": {key: value for key, value in TINY.items() if key != "init_logit_bias"}},
            ["init_logit_bias: -10"],
        ),
        (
            {"architecture": "ViT-B-16-SigLIPP", "model_config": None, "tokenizer": None},
            ["did you mean ViT-B-16-SigLIP"],
        ),
        ({"tokenizer": "no folder"}, ["`model.init_args.tokenizer: no folder`"]),
        (
            {"architecture": "ViT-B-16-SigLIPP", "model_config": None},
            ["did you mean ViT-B-16-SigLIP"],
        ),
        ({"architecture": "ViT-B-16-SigLIP", "model_config": None, "pretrained": "web"}, ["its tags are: webli"]),
    ],
)
def test_what_cannot_work_is_named(
    tiny: Callable[..., Any], arguments: dict[str, Any], words: list[str], monkeypatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError) as caught:
        tiny(**arguments)
    assert all(word in str(caught.value) for word in words)

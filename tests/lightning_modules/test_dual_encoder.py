"""Two towers of other libraries: training on real photos, gradients, checkpoints, and what is refused."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from timm.data import create_transform, resolve_model_data_config
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import AutoModelForTextEncoding, AutoTokenizer, BertTokenizer

from datamodules.batch import RetrievalBatch
from datamodules.errors import ConfigError
from lightning_modules import DualEncoder, RetrievalModule

SHARED = Path(__file__).parents[3] / "shared"
REAL = {
    "mobilenetv2_100": SHARED / "weights" / "mobilenet_v2_imagenet" / "mobilenet_v2-b0353104.pth",
    "tf_efficientnet_lite0": SHARED / "weights" / "efficientnet_lite0_imagenet" / "efficientnet-lite0-57934424.pth",
}
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
BERT = {"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}

ROBERTA = {**BERT, "model_type": "roberta", "intermediate_size": 32, "max_position_embeddings": 12}


def _tokenizer(folder: Path, words: list[str]) -> str:
    BertTokenizer(vocab={word: place for place, word in enumerate([*SPECIAL, *words])}).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., DualEncoder]:
    """Build two towers of a few thousand parameters, the same ones every time."""
    tokenizer = _tokenizer(tmp_path / "words", ["a", "picture", "of", "dogs", *"0123456789"])

    def build(**arguments: Any) -> DualEncoder:
        torch.manual_seed(0)
        text = {**BERT, "vocab_size": 24, "intermediate_size": 32}
        usual = {"image_model": "test_efficientnet", "image_size": 16, "text_model": None, "text_config": text}
        return DualEncoder(**{**usual, "tokenizer": tokenizer, "max_length": 9, "embed_dim": 8, **arguments})

    return build


def _loss(model: RetrievalModule, batch: RetrievalBatch) -> torch.Tensor:
    """Compute the loss outside of training, where nothing can be logged."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model), "log", lambda *_, **__: None)
        return model.training_loss(batch)


def _fit(model: RetrievalModule, batch: RetrievalBatch, trainer: Any) -> None:
    trainer.fit(model, DataLoader([batch], batch_size=None))


@pytest.mark.parametrize(("hidden_dim", "weights"), [(None, 1), (12, 3)])
def test_every_weight_gets_a_gradient(
    tiny: Callable[..., Any], pairs: Callable[..., Any], hidden_dim: Any, weights: int
) -> None:
    model = tiny(hidden_dim=hidden_dim).train()
    _loss(model, pairs(model)).backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert len(list(model.image_head.parameters())) == weights
    with torch.no_grad():
        rows = model.encode_texts(model.processor.tokenize(["", "a picture of dogs", "wug " * 500]))
    assert torch.allclose(rows.norm(dim=1), torch.ones(3))


def test_half_precision_leaves_the_norms_exact(tiny: Callable[..., Any], pairs: Callable[..., Any]) -> None:
    model = tiny().eval()
    batch = pairs(model)
    with torch.no_grad():
        whole = model.encode_images(batch.pixel_values), model.encode_texts(batch.tokens)
        with torch.autocast("cpu", torch.bfloat16):
            half = model.encode_images(batch.pixel_values), model.encode_texts(batch.tokens)
    for rows, exact in zip(half, whole, strict=True):
        assert rows.dtype == torch.float32
        assert torch.allclose(rows.norm(dim=1), torch.ones(4), atol=1e-6)
        assert (rows * exact).sum(dim=1).min() > 0.99


def test_the_loss_is_the_contrastive_one(tiny: Callable[..., Any], pairs: Callable[..., Any]) -> None:
    model = tiny(temperature=0.5).eval()
    batch = pairs(model)
    images, texts = model.encode_images(batch.pixel_values), model.encode_texts(batch.tokens)
    logits, own = images @ texts.T / 0.5, torch.arange(4)
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    assert torch.allclose(_loss(model, batch), expected, atol=1e-6)


def test_the_counterfactual_margin_is_added(tiny: Callable[..., Any], pairs: Callable[..., Any]) -> None:
    plain, model = tiny().eval(), tiny(counterfactual_weight=2.0, counterfactual_margin=0.5).eval()
    made = {
        "synthetic": torch.tensor([False, True, False, False]),
        "source_caption_ids": torch.tensor([100, 100, 102, 103]),
    }
    batch = pairs(model, **made)
    images, texts = model.encode_images(batch.pixel_values), model.encode_texts(batch.tokens)
    s = images @ texts.T
    margin = F.relu(0.5 + s[1, 0] - s[1, 1]) + F.relu(0.5 + s[0, 1] - s[0, 0])
    logged: dict[str, torch.Tensor] = {}
    model.log = lambda name, value, **_: logged.update({name: value})
    assert torch.allclose(model.training_loss(batch) - _loss(plain, batch), 2 * margin, atol=1e-5)
    assert logged["train/counterfactual_loss"].item() == pytest.approx(margin.item(), abs=1e-5)
    assert logged["train/logit_scale"].item() == pytest.approx(1 / 0.07)


@pytest.mark.parametrize(("temperature", "lr", "bound"), [(0.0101, -1.0, 100.0), (0.99, 1.0, 1.0)])
def test_the_scale_stays_in_its_bounds(
    tiny: Callable[..., Any],
    pairs: Callable[..., Any],
    quiet_trainer: Callable[..., Any],
    temperature: float,
    lr: float,
    bound: float,
) -> None:
    model = tiny(temperature=temperature, freeze=["image*", "text*"], optimizer="SGD", lr=1.0)
    batch = pairs(model)
    model.loss = _Pull(lr)
    _fit(model, batch, quiet_trainer(max_steps=2))
    assert model.logit_scale.exp().item() == pytest.approx(bound)


class _Pull(torch.nn.Module):
    """A loss that does nothing but move the scale."""

    def __init__(self, direction: float) -> None:
        super().__init__()
        self.direction = direction

    def forward(self, images: Any, texts: Any, scale: torch.Tensor, image_ids: Any) -> torch.Tensor:
        return self.direction * scale.log() * 10


def test_frozen_towers_stay_as_they_are(
    tiny: Callable[..., Any], pairs: Callable[..., Any], quiet_trainer: Callable[..., Any]
) -> None:
    model = tiny(freeze=["image.*", "text.*"], optimizer="SGD", lr=1.0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    _fit(model, pairs(model), quiet_trainer(max_steps=2))
    moved = {name.split(".")[0] for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"image_head", "text_head", "logit_scale"}


def test_a_checkpoint_rebuilds_towers_and_preprocessing_alone(
    tiny: Callable[..., Any], pairs: Callable[..., Any], quiet_trainer: Callable[..., Any], tmp_path: Path
) -> None:
    model = tiny(hidden_dim=6, pooling="cls", positives="same_image_soft", image_preprocess={"mean": [0.1, 0.2, 0.3]})
    trainer = quiet_trainer(max_steps=1)
    _fit(model, pairs(model), trainer)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    for file in (tmp_path / "words").iterdir():
        file.unlink()
    again = RetrievalModule.load_from_checkpoint(tmp_path / "run.ckpt").eval()
    assert isinstance(again, DualEncoder)
    batch = pairs(model.eval())
    assert again.processor.tokenize(["a picture"]).keys() == {"input_ids", "attention_mask"}
    assert torch.equal(
        again.processor.tokenize(["2 dogs"])["input_ids"], model.processor.tokenize(["2 dogs"])["input_ids"]
    )
    photo = Image.new("RGB", (40, 30), "red")
    assert torch.equal(again.processor.eval_image(photo), model.processor.eval_image(photo))
    with torch.no_grad():
        assert torch.equal(_loss(again, batch), _loss(model, batch))


T5 = {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "vocab_size": 24}


@pytest.mark.parametrize("arguments", [{"hidden_dim": 6}, {"text_config": T5, "pooling": "cls"}])
def test_timm_and_transformers_load_an_export(
    tiny: Callable[..., Any], pairs: Callable[..., Any], tmp_path: Path, arguments: dict[str, Any]
) -> None:
    seen = {"image_options": {"drop_path_rate": 0.1}, "image_preprocess": {"mean": [0.1, 0.2, 0.3], "crop_pct": 0.5}}
    model = tiny(image_model="test_vit", image_size=32, **seen, **arguments).eval()
    model.export(tmp_path)
    image = timm.create_model(f"local-dir:{tmp_path / 'image'}", pretrained=True).eval()
    photo = Image.effect_noise((40, 30), 80).convert("RGB")
    pixels = create_transform(**resolve_model_data_config(image))(photo)
    assert torch.equal(pixels, model.processor.eval_image(photo))
    text = AutoModelForTextEncoding.from_pretrained(tmp_path / "text")
    with safe_open(tmp_path / "heads.safetensors", "pt") as file:
        weights, about = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    assert about == {"pooling": arguments.get("pooling", "mean"), "max_length": "9"}
    assert weights.pop("logit_scale") == model.logit_scale
    heads = torch.nn.ModuleDict({"image_head": model.image_head, "text_head": model.text_head})
    assert all(torch.equal(tensor, weights[name]) for name, tensor in heads.state_dict().items())
    words = AutoTokenizer.from_pretrained(tmp_path / "text")
    tokens = words(["a dog"], padding="max_length", max_length=9, return_tensors="pt")
    tokens = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        assert torch.equal(image(pixels[None]), model.image(pixels[None]))
        states = text(**tokens).last_hidden_state
        assert torch.equal(states, model.text.model(**model.processor.tokenize(["a dog"])).last_hidden_state)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"tokenizer": None}, ["`model.init_args.tokenizer` and `model.init_args.text_model` are null"]),
        ({"max_length": 0}, ["max_length` is 0", "1 to 512"]),
        ({"max_length": 513}, ["max_length` is 513", "1 to 512"]),
        ({"text_config": {**BERT, "vocab_size": 8}}, ["has 19 tokens", "only 8"]),
        ({"max_length": 11, "text_config": {**ROBERTA, "vocab_size": 24}}, ["max_length` is 11", "give less"]),
        ({"temperature": 0.0}, ["temperature` is 0.0"]),
        ({"embed_dim": 0}, ["embed_dim` is 0"]),
        ({"hidden_dim": -1}, ["hidden_dim` is -1"]),
        ({"counterfactual_weight": -0.1}, ["counterfactual_weight` is -0.1"]),
        ({"crop_scale": (0.5, 1.5)}, ["crop_scale` is [0.5, 1.5]"]),
        ({"image_model": "test_rednet"}, ["did you mean test_resnet"]),
        ({"image_size": 4, "image_model": "test_vit"}, ["image_size` is 4"]),
        ({"positives": "all"}, ["positives` is 'all'"]),
    ],
)
def test_what_cannot_work_is_named(tiny: Callable[..., Any], arguments: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        tiny(**arguments)
    assert all(word in str(caught.value) for word in words)


def test_tokens_of_another_backbone_are_refused(tiny: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="`input_ids` and `attention_mask`"):
        tiny().encode_texts(torch.ones(1, 4, dtype=torch.int64))


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("name", REAL)
def test_real_photos_and_captions_are_learned(name: str, tmp_path: Path, quiet_trainer: Callable[..., Any]) -> None:
    sample = SHARED / "data" / "coco-sample"
    if not REAL[name].is_file() or not sample.is_dir():
        pytest.skip(f"there is no {REAL[name]}, or no photos in {sample}")
    listed = json.loads((sample / "annotations" / "karpathy_sample.json").read_text())["images"][:16]
    said = [image["sentences"][0]["raw"] for image in listed]
    counts = Counter(word for caption in said for word in re.findall(r"\w+", caption.lower()))
    torch.manual_seed(0)
    model = DualEncoder(
        image_model=name,
        image_weights=str(REAL[name]),
        image_size=128,
        text_model=None,
        text_config={**BERT, "hidden_size": 64, "intermediate_size": 128, "vocab_size": len(counts) + len(SPECIAL)},
        tokenizer=_tokenizer(tmp_path / "words", sorted(counts)),
        max_length=24,
        embed_dim=64,
        freeze=["image.*"],
        lr=3e-3,
    )
    photos = [Image.open(sample / "images" / image["filename"]).convert("RGB") for image in listed]
    ids = torch.arange(len(listed))
    batch = RetrievalBatch(
        image_ids=ids,
        caption_ids=ids,
        source_ids=ids,
        source_caption_ids=ids,
        synthetic=torch.zeros(len(listed), dtype=torch.bool),
        pixel_values=torch.stack([model.processor.eval_image(photo) for photo in photos]),
        tokens=model.processor.tokenize(said),
    )
    with torch.no_grad():
        before = _loss(model.eval(), batch).item()
    trainer = quiet_trainer(max_epochs=12)
    _fit(model, batch, trainer)
    with torch.no_grad():
        images, texts = model.eval().encode_images(batch.pixel_values), model.encode_texts(batch.tokens)
        after = _loss(model, batch).item()
    assert after < before / 4
    assert ((images @ texts.T).argmax(dim=1) == ids).float().mean() > 0.8

"""VSE++: where its words come from, what it trains, what its checkpoints hold, and features in place of images."""

from __future__ import annotations

import copy
import csv
import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import yaml
from lightning import LightningDataModule
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from datamodules import CocoDataModule
from datamodules.batch import RetrievalBatch
from datamodules.errors import ConfigError
from datamodules.features import FeatureReader
from lightning_modules import VSEPP, RetrievalModule
from lightning_modules.feature_files import write_features

SHARED = Path(__file__).parents[3] / "shared"
TINY: dict[str, Any] = {
    "image_model": "test_byobnet",
    "image_weights": None,
    "image_size": 32,
    "word_dim": 6,
    "embed_dim": 8,
    "image_dropout": 0.0,
}
WORDS = ["a", "picture", "of", "dogs", "0", "1", "2", "3"]


def _model(**arguments: Any) -> VSEPP:
    torch.manual_seed(0)
    return VSEPP(**{**TINY, "vocabulary": WORDS, **arguments})


def _batch(model: VSEPP, count: int = 4, **columns: Tensor) -> RetrievalBatch:
    ids = torch.arange(count)
    return RetrievalBatch(
        **{
            "image_ids": ids,
            "caption_ids": ids + 100,
            "source_ids": ids,
            "source_caption_ids": ids + 100,
            "synthetic": torch.zeros(count, dtype=torch.bool),
            "pixel_values": torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0)),
            "tokens": model.processor.tokenize([f"a picture of {number} dogs" for number in range(count)]),
            **columns,
        }
    )


def _loss(model: VSEPP, batch: RetrievalBatch) -> Tensor:
    model.log = lambda *_, **__: None
    loss = model.training_loss(batch)
    del model.log
    return loss


class Data(LightningDataModule):
    """Four pairs an epoch in batches of two, tokenized by the model of the trainer."""

    def training_captions(self) -> list[str]:
        return ["two dogs", "two cats", "a dog", "a cat and two dogs"]

    def train_dataloader(self) -> DataLoader[Any]:
        processor = self.trainer.lightning_module.processor
        captions = self.training_captions()
        pixels = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        batches = []
        for rows in (slice(0, 2), slice(2, 4)):
            ids = torch.arange(4)[rows]
            batches.append(
                RetrievalBatch(ids, ids, ids, ids, ids < 0, pixels[rows], processor.tokenize(captions[rows]))
            )
        return DataLoader(batches, batch_size=None)


def test_images_and_captions_become_unit_rows() -> None:
    model = _model().eval()
    pictures = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        images = model.encode_images(pictures)
        features = F.normalize(model.cnn(pictures), dim=1)
        torch.testing.assert_close(images, F.normalize(features @ model.projection.weight.T, dim=1))
        texts = model.encode_texts(model.processor.tokenize(["two dogs", "zebra " * 500, ""]))
        nothing = model.encode_texts(torch.zeros(1, 7, dtype=torch.int64))
    for rows in (images, texts, nothing):
        assert rows.shape[1] == 8
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows)))
    bound = (6 / (features.shape[1] + 8)) ** 0.5
    assert 0.9 * bound < model.projection.weight.abs().max() <= bound
    assert model.projection.bias.eq(0).all()


def test_tokens_of_another_backbone_are_refused() -> None:
    with pytest.raises(TypeError, match="one tensor"):
        _model().encode_texts({"input_ids": torch.ones(1, 2, dtype=torch.int64)})


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (64, 48)])
def test_images_of_any_size_fit(size: tuple[int, int]) -> None:
    processor = _model().processor
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8))
    for transform in (processor.train_image, processor.eval_image):
        assert transform(image).shape == (3, 32, 32)


def test_the_loss_is_that_of_the_formula() -> None:
    model = _model(margin=0.3)
    batch = _batch(model)
    scores = (model.encode_images(batch.pixel_values) @ model.encode_texts(batch.tokens).T).tolist()
    places = range(len(scores))
    hinges = {
        (i, j): (max(0, 0.3 + scores[i][j] - scores[i][i]), max(0, 0.3 + scores[j][i] - scores[i][i]))
        for i in places
        for j in places
        if i != j
    }
    expected = sum(max(hinges[i, j][side] for j in places if j != i) for i in places for side in (0, 1))
    assert _loss(model, batch).item() == pytest.approx(expected, abs=1e-5)
    model.hinges = "sum"
    assert _loss(model, batch).item() == pytest.approx(sum(map(sum, hinges.values())), abs=1e-5)


def test_the_counterfactual_margin_is_added_by_its_weight() -> None:
    plain = _model()
    batch = _batch(
        plain,
        caption_ids=torch.tensor([1, 2, 3, 9]),
        source_caption_ids=torch.tensor([1, 2, 3, 2]),
        synthetic=torch.tensor([False, False, False, True]),
    )
    scores = plain.encode_images(batch.pixel_values) @ plain.encode_texts(batch.tokens).T
    margins = F.relu(0.5 + scores[3, 1] - scores[3, 3]) + F.relu(0.5 + scores[1, 3] - scores[1, 1])
    weighted = _model(counterfactual_weight=2.0, counterfactual_margin=0.5)
    assert margins > 0
    torch.testing.assert_close(_loss(weighted, batch) - _loss(plain, batch), 2 * margins)


@pytest.mark.parametrize("ids", [[5, 5, 5, 5], [5]])
def test_a_batch_without_negatives_trains_nothing(ids: list[int]) -> None:
    model = _model(mask_same_image=True)
    model.cnn.eval()  # BatchNorm has no statistics of one image
    loss = _loss(model, replace(_batch(model, len(ids)), image_ids=torch.tensor(ids)))
    loss.backward()
    assert loss == 0
    assert all(parameter.grad is None or parameter.grad.eq(0).all() for parameter in model.parameters())


@pytest.fixture
def fitted(quiet_trainer: Callable[..., Any], tmp_path: Path) -> tuple[VSEPP, Path]:
    """A model that took its words from a data module, and its checkpoint."""
    model = _model(vocabulary=None, min_count=2, lr=1e-3)
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(model, datamodule=Data())
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    return model, tmp_path / "run.ckpt"


def test_words_come_from_the_training_captions_and_live_in_the_checkpoint(fitted: tuple[VSEPP, Path]) -> None:
    model, checkpoint = fitted
    assert model.hparams["vocabulary"] == ["two", "a", "dogs"]
    again = RetrievalModule.load_from_checkpoint(checkpoint)
    assert isinstance(again, VSEPP)
    captions = ["two dogs and a cat", "dogs"]
    assert again.processor.tokenize(captions).tolist() == [[1, 4, 6, 3, 5, 3, 2], [1, 6, 2, 0, 0, 0, 0]]
    pictures = torch.rand(2, 3, 32, 32)
    for ours, theirs in (
        (model.eval().encode_images(pictures), again.eval().encode_images(pictures)),
        (
            model.encode_texts(model.processor.tokenize(captions)),
            again.encode_texts(again.processor.tokenize(captions)),
        ),
    ):
        assert torch.equal(ours, theirs)
    photo = Image.new("RGB", (50, 40), (90, 60, 30))
    assert torch.equal(again.processor.eval_image(photo), model.processor.eval_image(photo))


def test_a_run_goes_on_from_its_checkpoint_with_its_own_words(
    fitted: tuple[VSEPP, Path], quiet_trainer: Callable[..., Any]
) -> None:
    quiet_trainer(max_epochs=2).fit(_model(vocabulary=None, min_count=2), datamodule=Data(), ckpt_path=fitted[1])
    for words, problem in ((["two", "a", "cats"], "another vocabulary"), (WORDS, "does not fit")):
        with pytest.raises(ConfigError, match=problem):
            quiet_trainer(max_epochs=2).fit(_model(vocabulary=words), datamodule=Data(), ckpt_path=fitted[1])


def test_another_training_starts_from_the_words_and_weights_of_a_run(
    fitted: tuple[VSEPP, Path], tmp_path: Path
) -> None:
    model = _model(vocabulary=None, pretrained=str(fitted[1]), image_weights="no tag, and not looked at", lr=1e-5)
    assert model.hparams["vocabulary"] == ["two", "a", "dogs"]
    assert (model.hparams["pretrained"], model.hparams["finetune"], model.lr) == (None, False, 1e-5)
    for name, tensor in fitted[0].state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    for arguments, problem in (
        ({"embed_dim": 9}, r"projection.weight \[8, "),
        ({"vocabulary": ["a"]}, "a vocabulary of its own"),
    ):
        with pytest.raises(ConfigError, match=problem):
            _model(**{"vocabulary": None, "pretrained": str(fitted[1]), **arguments})


def test_without_words_somebody_has_to_have_captions(quiet_trainer: Callable[..., Any]) -> None:
    model = _model(vocabulary=None)
    with pytest.raises(ConfigError, match=r"`model.init_args.vocabulary` is null.*give a list of words"):
        quiet_trainer(max_epochs=1).fit(model, DataLoader([_batch(_model())], batch_size=None))


def test_the_cnn_rests_where_it_has_weights(quiet_trainer: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(timm.create_model("test_byobnet").state_dict(), path)
    assert _model().hparams["finetune"]
    assert _model(image_weights=str(path), finetune=True).freeze_patterns == ()
    model = _model(image_weights=str(path), image_dropout=0.5, freeze=["captions.embedding.*"])
    before = copy.deepcopy(model.state_dict())
    quiet_trainer(max_epochs=1).fit(model, datamodule=Data())
    moved = {name.partition(".")[0] for name, tensor in model.state_dict().items() if not tensor.equal(before[name])}
    assert moved == {"projection", "captions"}
    assert model.state_dict()["captions.embedding.weight"].equal(before["captions.embedding.weight"])
    model.train()
    assert not any(module.training for module in model.cnn.modules())
    kept = model.image_features(torch.rand(64, 3, 32, 32)).ne(0).float().mean()
    resting = model.eval().image_features(torch.rand(64, 3, 32, 32)).ne(0).float().mean()
    assert 0.4 < kept / resting < 0.6


@pytest.mark.parametrize(("epochs", "sums"), [(0, 0), (0.5, 1), (1.5, 3), (2, 4)])
def test_the_loss_warms_up_with_the_sum(quiet_trainer: Callable[..., Any], epochs: float, sums: int) -> None:
    model = _model(warmup_epochs=epochs)
    found = []
    model.on_train_batch_end = lambda *_: found.append(model.loss.hinges)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quiet_trainer(max_epochs=2).fit(model, datamodule=Data())
    assert found == ["sum"] * sums + ["max"] * (4 - sums)
    assert sum("`model.init_args.warmup_epochs` is" in str(one.message) for one in caught) == (sums == 4)


@pytest.mark.parametrize(
    "arguments",
    [
        {"image_dropout": 1.5},
        {"min_count": 0},
        {"max_words": 0},
        {"embed_dim": 0},
        {"feature_size": 0},
        {"warmup_epochs": -1},
        {"counterfactual_weight": -0.1},
        {"hinges": "hardest"},
    ],
)
def test_values_that_cannot_work_are_refused(arguments: dict[str, Any]) -> None:
    (key,) = arguments
    with pytest.raises(ConfigError, match=rf"`model.init_args.{key}` is "):
        _model(**arguments)


def test_features_that_were_computed_once_take_the_place_of_images(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 255, (5, 40, 50, 3), dtype=np.uint8)
    model = _model(image_dropout=0.5)
    (tmp_path / "few_image_ids.npy").touch()
    write_features(model, range(10, 15), lambda row: Image.fromarray(pictures[row]), tmp_path / "few", batch_size=2)
    assert model.training
    reader = FeatureReader([tmp_path / "few"])
    other = _model(feature_size=reader.feature_size)
    assert not list(other.cnn.parameters())
    other.projection.load_state_dict(model.projection.state_dict())
    features = torch.stack([other.processor.eval_image(reader.read(Path(), image)) for image in range(10, 15)])
    images = torch.stack([model.processor.eval_image(Image.fromarray(picture)) for picture in pictures])
    with torch.no_grad():
        torch.testing.assert_close(
            other.eval().encode_images(features), model.eval().encode_images(images), atol=1e-3, rtol=0
        )
    other.train()
    _loss(other, _batch(other, pixel_values=features[:4])).backward()
    assert other.projection.weight.grad.ne(0).any()
    other.zero_grad()
    other.encode_images(torch.zeros(2, reader.feature_size)).sum().backward()
    assert other.projection.bias.grad.eq(0).all()


def test_features_that_were_broken_off_have_no_ids(tmp_path: Path) -> None:
    def read(row: int) -> Image.Image:
        if row == 2:
            raise KeyboardInterrupt
        return Image.new("RGB", (8, 8))

    (tmp_path / "few_image_ids.npy").touch()
    with pytest.raises(KeyboardInterrupt):
        write_features(_model(), [1, 2, 3], read, tmp_path / "few", batch_size=2)
    assert not (tmp_path / "few_image_ids.npy").exists()


@pytest.mark.slow
def test_a_run_is_scored_again_from_its_checkpoint_alone(tmp_path: Path) -> None:
    from train import main

    scenes = {"train": 12, "val": 6, "test": 6, "resolution": 48}
    arguments = {**TINY, "lr": 1e-2, "image_preprocess": {"crop_pct": 0.9}, "min_count": 2}
    small = {"batch_size": 16, "num_workers": 0}
    places = {"root": str(tmp_path / "scenes"), "cache_dir": str(tmp_path / "cache")}
    quiet = {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False}
    run = {
        "runs": str(tmp_path / "runs"),
        "trainer": quiet,
        "model": {"class_path": "lightning_modules.VSEPP", "init_args": arguments},
        "data": {"class_path": "ScenesDataModule", "init_args": {**places, "scenes": scenes, **small}},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    assert main(["fit", "--config", str(tmp_path / "run.yaml")]) == 0
    (checkpoint,) = tmp_path.glob("runs/*/*/checkpoints/last.ckpt")
    other = ["--model.init_args.embed_dim", "99", "--model.init_args.image_model", "vgg19"]
    assert main(["validate", "--config", str(tmp_path / "run.yaml"), *other, "--ckpt_path", str(checkpoint)]) == 0
    first, second = (_scores(file) for file in sorted(tmp_path.glob("runs/*/*/metrics.csv"), key=os.path.getmtime))
    assert float(first["val/rsum"]) > 0
    assert {key: second[key] for key in first} == first
    words = RetrievalModule.load_from_checkpoint(checkpoint).hparams["vocabulary"]
    assert {"a", "the", "."} <= set(words)
    assert all(type(word) is str for word in words)


def _scores(file: Path) -> dict[str, str]:
    with file.open() as lines:
        rows = list(csv.DictReader(lines))
    return {key: row[key] for row in rows for key in row if key.startswith("val/") and row[key]}


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the photos and weights in ../shared")
def test_photos_are_told_apart_by_their_captions(quiet_trainer: Callable[..., Any], tmp_path: Path) -> None:
    sample = SHARED / "data" / "coco-sample"
    data = CocoDataModule(
        sample / "images",
        sample / "annotations" / "karpathy_sample.json",
        [sample / "annotations" / "instances.json"],
        train_splits=["val"],
        batch_size=30,
        num_workers=0,
        cache_dir=tmp_path,
        features=[tmp_path / "photos"],
    )
    weights = SHARED / "weights" / "mobilenet_v2_imagenet" / "mobilenet_v2-b0353104.pth"
    tower = VSEPP("mobilenetv2_100", image_weights=str(weights), image_size=128, vocabulary=["a"])
    rows = data.tables.rows("val")
    write_features(tower, data.tables.image_ids[rows], lambda row: data.read_image(rows[row]), tmp_path / "photos")
    recipe = {"lr": 5e-3, "lr_halving_epochs": None, "warmup_epochs": 2, "mask_same_image": True, "top_k": [1]}
    model = _model(feature_size=1280, vocabulary=None, min_count=2, word_dim=32, embed_dim=64, **recipe)
    trainer = quiet_trainer(max_epochs=10, gradient_clip_val=2.0, use_distributed_sampler=False)
    before, _ = trainer.validate(model, datamodule=data, verbose=False)
    trainer.fit(model, datamodule=data)
    after, _ = trainer.validate(model, datamodule=data, verbose=False)
    assert max(before["val/i2t/R@1"], before["val/t2i/R@1"]) < 15
    assert min(after["val/i2t/R@1"], after["val/t2i/R@1"]) > 80


@pytest.mark.slow
def test_vgg19_gives_fc7_by_the_weights_of_torchvision(tmp_path: Path) -> None:
    from torchvision.models import vgg19

    torch.manual_seed(0)
    reference = vgg19(init_weights=False).eval()
    torch.save(reference.state_dict(), tmp_path / "vgg19.pth")
    model = VSEPP(image_weights=str(tmp_path / "vgg19.pth"), image_size=64, vocabulary=WORDS).eval()
    assert model.freeze_patterns == ("cnn.*",)
    assert model.projection.weight.shape == (1024, 4096)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8))
    pixels = model.processor.eval_image(photo)[None]
    with torch.no_grad():
        fc7 = reference.classifier[:-1](reference.avgpool(reference.features(pixels)).flatten(1))
        torch.testing.assert_close(model.image_features(pixels), F.normalize(fc7, dim=1))
    middle = np.asarray(photo.resize((97, 73), Image.Resampling.BILINEAR))[4:68, 16:80] / 255
    expected = (middle - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    torch.testing.assert_close(pixels[0].permute(1, 2, 0), torch.tensor(expected).float(), atol=0.02, rtol=0)

"""A checkpoint rebuilds its model alone; what is foreign, damaged or of another family gets one sentence."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from datamodules.errors import ConfigError, MissingPathError
from lightning_modules import CLIP, Processor, RetrievalModule
from lightning_modules.checkpoints import check_weights


class Lines(RetrievalModule):
    """The smallest model: two linear maps, of images and of token ids taken as numbers."""

    def __init__(self, dim: int = 3, **options: Any) -> None:
        super().__init__(**options)
        self.save_hyperparameters(logger=False)
        self.image, self.text = nn.Linear(3 * 16 * 16, dim), nn.Linear(4, dim)
        self.processor = Processor(
            train_image=_never, eval_image=_never, tokenize=lambda texts: torch.ones(len(texts), 4)
        )

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        return nn.functional.normalize(self.image(pixel_values.flatten(1)), dim=1)

    def encode_texts(self, tokens: Any) -> Tensor:
        return nn.functional.normalize(self.text(tokens), dim=1)

    def training_loss(self, batch: Any) -> Tensor:
        images, texts = self.embed_pairs(batch)
        return -(images * texts).sum()


class Wider(Lines):
    """Hands on an argument that is none of its own."""

    def __init__(self, **options: Any) -> None:
        super().__init__(dim=5, **options)


class Widest(Lines):
    """Has an argument of its own with another default."""

    def __init__(self, dim: int = 7, **options: Any) -> None:
        super().__init__(dim=dim, **options)


def _never(image: Any) -> Tensor:
    raise AssertionError("no image is read here")


@pytest.fixture
def save(pairs: Callable[..., Any], quiet_trainer: Callable[..., Any], tmp_path: Path) -> Callable[[Any], Path]:
    """Train a model for a step and save its checkpoint."""

    def trained(model: Any) -> Path:
        trainer = quiet_trainer(max_epochs=1)
        trainer.fit(model, DataLoader([pairs(model)], batch_size=None))
        trainer.save_checkpoint(path := tmp_path / "model.ckpt")
        return path

    return trained


@pytest.mark.parametrize("kind", [RetrievalModule, Lines])
def test_the_class_is_found_by_itself(save: Callable[[Any], Path], kind: type[RetrievalModule]) -> None:
    model = Lines(dim=5, lr=0.25, freeze=["text.*"], lr_scales={"image.*": 0.5})
    again = kind.load_from_checkpoint(save(model))
    assert type(again) is Lines
    assert (again.lr, again.lr_scales, again.freeze_patterns) == (0.25, {"image.*": 0.5}, ("text.*",))
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_a_subclass_with_another_default_comes_back_and_one_that_fixes_it_is_told_how(
    save: Callable[[Any], Path],
) -> None:
    assert Lines.load_from_checkpoint(save(Widest())).image.out_features == 7
    with pytest.raises(ConfigError, match=r"whose class fixes `dim`.*: give its `__init__` an argument `dim` with"):
        Lines.load_from_checkpoint(save(Wider()))


def test_a_clip_comes_back_with_its_processor(
    save: Callable[[Any], Path], tiny_clip: Callable[..., Any], pairs: Callable[..., Any]
) -> None:
    model = tiny_clip(preprocess_config={"mean": [0.1, 0.2, 0.3]}, positives="same_image_soft", top_k=[1, 2])
    again = RetrievalModule.load_from_checkpoint(save(model), map_location="cpu").eval()
    batch = pairs(model.eval())
    assert again.hparams["positives"] == "same_image_soft"
    assert again.evaluations["val"].top_k == (1, 2)
    assert torch.equal(again.processor.tokenize(["a dog"]), model.processor.tokenize(["a dog"]))
    photo = Image.new("RGB", (20, 20), "black")
    assert torch.equal(again.processor.eval_image(photo), model.processor.eval_image(photo))
    assert again.processor.eval_image(photo)[0, 0, 0] == pytest.approx(-0.1 / 0.26862954)
    torch.testing.assert_close(again.encode_images(batch.pixel_values), model.encode_images(batch.pixel_values))
    torch.testing.assert_close(again.encode_texts(batch.tokens), model.encode_texts(batch.tokens))


def test_another_family_is_named(save: Callable[[Any], Path]) -> None:
    path = save(Lines())
    with pytest.raises(ConfigError, match=r"`checkpoint_path` is .*model.ckpt, which holds a Lines and no CLIP;"):
        CLIP.load_from_checkpoint(path)


@pytest.mark.parametrize(
    "class_path", ["this.Zen", "lightning_modules.nowhere.CLIP", "lightning_modules.CLIPP", "CLIP"]
)
def test_an_unknown_class_is_not_imported(save: Callable[[Any], Path], class_path: str) -> None:
    path = save(Lines())
    _edit(path, lambda held: held["hyper_parameters"].update(_class_path=class_path))
    with pytest.raises(ConfigError, match=f"holds a {class_path}, a class that is not known here"):
        RetrievalModule.load_from_checkpoint(path)
    assert "this" not in sys.modules


def test_a_class_that_is_no_model_is_not_called(save: Callable[[Any], Path]) -> None:
    path = save(Lines())
    _edit(path, lambda held: held["hyper_parameters"].update(_class_path="subprocess.Popen", args=["false"]))
    with pytest.raises(ConfigError, match="holds a Popen and no RetrievalModule"):
        RetrievalModule.load_from_checkpoint(path)


def _edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    held = torch.load(path, weights_only=True)
    change(held)
    torch.save(held, path)


class _Bomb:
    exploded = False

    def __reduce__(self) -> tuple[Any, ...]:
        return setattr, (_Bomb, "exploded", True)


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path: Path) -> None:
    held = torch.load(path, weights_only=True)["state_dict"]["image.weight"].numpy().tobytes()
    path.write_bytes(path.read_bytes().replace(held, held[::-1]))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.unlink(), "is no file; a run keeps its checkpoints at RUNS"),
        (_half, "damaged or foreign"),
        (_flip, "damaged: a checksum in it does not fit"),
        (lambda path: path.write_text("no checkpoint"), "damaged or foreign"),
        (lambda path: path.write_bytes(b""), "damaged or foreign"),
        (lambda path: torch.save(_Bomb(), path), "damaged or foreign"),
        (lambda path: torch.save(nn.Linear(1, 1).state_dict(), path), "holds weights but is no checkpoint of a run"),
        (lambda path: torch.save([1], path), "holds weights but is no checkpoint of a run"),
        (lambda path: _edit(path, lambda held: held.pop("hyper_parameters")), "does not say what model it holds"),
    ],
    ids=["gone", "half", "flipped", "text", "empty", "program", "weights", "list", "another project"],
)
def test_files_that_cannot_be_used(save: Callable[[Any], Path], damage: Callable[[Path], Any], words: str) -> None:
    path = save(Lines())
    damage(path)
    with pytest.raises((ConfigError, MissingPathError), match=words) as error:
        RetrievalModule.load_from_checkpoint(path)
    assert "\n" not in str(error.value)
    assert not _Bomb.exploded


def test_weights_that_do_not_fit_are_named_when_rebuilding_and_when_resuming(
    save: Callable[[Any], Path], pairs: Callable[..., Any], quiet_trainer: Callable[..., Any]
) -> None:
    path = save(Lines(dim=3))
    _edit(path, lambda held: held["state_dict"].update(extra=held["state_dict"].pop("text.bias")))
    _edit(path, lambda held: held["hyper_parameters"].update(dim=4))
    words = (
        r"does not fit the Lines that the arguments build: it lacks text.bias; it has extra too much; "
        r"image.weight \[3, 768\] should be \[4, 768\], image.bias"
    )
    with pytest.raises(ConfigError, match=words):
        RetrievalModule.load_from_checkpoint(path)
    model = Lines(dim=4)
    with pytest.raises(ConfigError, match=words):
        quiet_trainer(max_epochs=2).fit(model, DataLoader([pairs(model)], batch_size=None), ckpt_path=path)


def test_many_names_are_counted() -> None:
    model = nn.Sequential(*(nn.Linear(1, 1) for _ in range(3)))
    with pytest.raises(ConfigError, match=r"lacks 0.weight, 0.bias, 1.weight and 3 more\."):
        check_weights(model, {})

"""What `python -m lightning_modules export` writes, plain open_clip loads."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast

from lightning_modules import CLIP, RetrievalModule
from lightning_modules.__main__ import main


@pytest.fixture
def trained(
    tiny_clip: Callable[..., Any], pairs: Callable[..., Any], quiet_trainer: Callable[..., Any], tmp_path: Path
) -> tuple[Any, Path]:
    """A CLIP after one step, and its checkpoint."""
    model = tiny_clip(lr=1e-2, quick_gelu=True, preprocess_config={"mean": [0.1, 0.2, 0.3], "resize_mode": "squash"})
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(model, DataLoader([pairs(model)], batch_size=None))
    trainer.save_checkpoint(path := tmp_path / "model.ckpt")
    return model.eval(), path


def test_open_clip_loads_an_export(
    trained: tuple[Any, Path], pairs: Callable[..., Any], tmp_path: Path, capsys
) -> None:
    model, checkpoint = trained
    folder = tmp_path / "new" / "export"
    assert main(["export", str(checkpoint), str(folder)]) == 0
    assert capsys.readouterr().out == (
        f"CLIP exported to {folder}: open_clip_config.json, open_clip_model.safetensors\n"
    )
    theirs, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}", require_pretrained=True)
    theirs.eval()
    batch, photo = pairs(model), Image.effect_noise((40, 20), 80).convert("RGB")
    assert torch.equal(transform(photo), model.processor.eval_image(photo))
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(["a dog"])
    assert torch.equal(tokens, model.processor.tokenize(["a dog"]))
    images = theirs.encode_image(batch.pixel_values, normalize=True)
    torch.testing.assert_close(images, model.encode_images(batch.pixel_values))
    texts = theirs.encode_text(batch.tokens, normalize=True)
    torch.testing.assert_close(texts, model.encode_texts(batch.tokens))


def test_an_export_can_be_trained_on(
    trained: tuple[Any, Path], pairs: Callable[..., Any], quiet_trainer: Callable[..., Any], tmp_path: Path
) -> None:
    model, checkpoint = trained
    model.export(tmp_path)
    again = CLIP(architecture=f"local-dir:{tmp_path}", lr=0.0)
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(again, DataLoader([pairs(again)], batch_size=None))
    trainer.save_checkpoint(checkpoint)
    (tmp_path / "open_clip_config.json").unlink()
    rebuilt = RetrievalModule.load_from_checkpoint(checkpoint).eval()
    batch, photo = pairs(model), Image.effect_noise((40, 20), 80).convert("RGB")
    torch.testing.assert_close(rebuilt.encode_images(batch.pixel_values), model.encode_images(batch.pixel_values))
    assert torch.equal(rebuilt.processor.eval_image(photo), model.processor.eval_image(photo))


def test_a_tokenizer_of_transformers_travels_along(
    tiny_clip: Callable[..., Any], pairs: Callable[..., Any], quiet_trainer: Callable[..., Any], tmp_path: Path
) -> None:
    words = Tokenizer(WordLevel({"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "a": 4, "dog": 5}, "[UNK]"))
    words.pre_tokenizer = Whitespace()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(tmp_path / "words")
    model = tiny_clip(tokenizer=str(tmp_path / "words"))
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(model, DataLoader([pairs(model)], batch_size=None))
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    shutil.rmtree(tmp_path / "words")
    rebuilt = RetrievalModule.load_from_checkpoint(tmp_path / "model.ckpt")
    for tokens in (rebuilt.processor.tokenize(["A dog"]), model.processor.tokenize(["A dog"])):
        assert tokens.tolist() == [[1, 5] + [0] * 10]
    (tmp_path / "export").mkdir()
    rebuilt.export(tmp_path / "export")
    place = f"local-dir:{tmp_path / 'export'}"
    assert open_clip.get_tokenizer(place)(["A dog"]).tolist() == [[1, 5] + [0] * 10]
    given = rebuilt.hparams["tokenizer"]
    again = CLIP(architecture=place, tokenizer=given)  # a tokenizer of one's own takes no weights away
    assert torch.equal(again.model.text_projection, model.model.text_projection)


def test_slips_get_one_sentence(trained: tuple[Any, Path], tmp_path: Path, capsys) -> None:
    full = str(tmp_path)
    for arguments, words in (
        (["export", str(trained[1]), full], f"error: {full} is there already and not empty"),
        (["export", "nowhere.ckpt", str(tmp_path / "new")], "nowhere.ckpt, but"),
    ):
        assert main(arguments) == 1
        assert words in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    for arguments in ([], ["exprt"], ["export", "one"]):
        with pytest.raises(SystemExit):
            main(arguments)
        assert capsys.readouterr().err.count("\n") == 1


def test_a_model_of_ones_own_has_no_format_to_export_to(
    trained: tuple[Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(CLIP, "export", RetrievalModule.export)
    (tmp_path / "empty").mkdir()
    before = set(tmp_path.rglob("*"))
    for folder in ("new", "new/below", "empty", "empty/new"):
        assert main(["export", str(trained[1]), str(tmp_path / folder)]) == 1
        assert "CLIP is no architecture of another library" in capsys.readouterr().err
    assert set(tmp_path.rglob("*")) == before

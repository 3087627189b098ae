"""BLIP's captions and images: what is dropped, cut, padded, squashed and augmented."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from datamodules.errors import ConfigError, MissingPathError
from datamodules.scenes.config import ScenesConfig
from datamodules.scenes.writer import SceneDrawer
from lightning_modules.blip_processor import (
    MEAN,
    STD,
    BlipTokenizer,
    blip_processor,
    build_tokenizer,
    clean_caption,
    random_augment,
)

PROJECT = Path(__file__).parents[2]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "##s", "?"]


@pytest.mark.parametrize(
    ("caption", "cleaned"),
    [
        ("Two dogs.", "two dogs"),
        ('A "big" dog!', "a big dog"),
        ("A dog (left): cat; dog~#1 *", "a dog left cat dog 1"),
        ("a dog's cat-flap, really?", "a dog's cat-flap, really?"),
        ("a.dog", "a dog"),
        (" \n ", ""),
        ("", ""),
        ("dog " * 500, " ".join(["dog"] * 30)),
    ],
)
def test_clean_captions(caption: str, cleaned: str) -> None:
    assert clean_caption(caption, max_words=30) == cleaned


def test_captions_are_padded_and_cut_between_their_ends() -> None:
    tokenize = BlipTokenizer(build_tokenizer(WORDS), max_length=6, max_words=30)
    found = tokenize(["A dogs!", "", "zebra", "dog " * 500])
    rows = [[2, 5, 6, 7, 3, 0], [2, 3, 0, 0, 0, 0], [2, 1, 3, 0, 0, 0], [2, 6, 6, 6, 6, 3]]
    assert found["input_ids"].tolist() == rows
    assert found["attention_mask"].tolist() == [[int(one != 0) for one in row] for row in rows]
    assert {name: tensor.dtype for name, tensor in found.items()} == dict.fromkeys(found, torch.int64)


def test_one_caption_is_a_row_and_none_are_no_rows() -> None:
    tokenize = BlipTokenizer(build_tokenizer(WORDS), 6, 30)
    assert tokenize("a dog")["input_ids"].tolist() == tokenize(["a dog"])["input_ids"].tolist()
    assert {name: list(one.shape) for name, one in tokenize([]).items()} == {
        "input_ids": [0, 6],
        "attention_mask": [0, 6],
    }


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_an_image_of_another_mode_is_made_rgb(mode: str) -> None:
    photo = Image.new("RGB", (20, 20), (255, 255, 255)).convert(mode)
    processor = blip_processor(BlipTokenizer(build_tokenizer(WORDS), 6, 30), 8, (1.0, 1.0), False, (0, 0))
    assert torch.equal(processor.eval_image(photo), processor.eval_image(photo.convert("RGB")))
    assert processor.train_image(photo).shape == (3, 8, 8)


def test_the_tokens_of_blip_follow_those_of_bert() -> None:
    tokenize = BlipTokenizer(build_tokenizer([*WORDS[:5], *(f"w{n}" for n in range(30_517))]), 35, 30)
    assert tokenize.match_token == 30_523
    assert tokenize.ids == {"pad_token_id": 0, "sep_token_id": 3, "bos_token_id": 30_522}


def test_every_source_gives_the_same_tokens(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    sources = [WORDS, str(tmp_path / "vocab.txt"), str(tmp_path)]
    built = [BlipTokenizer(build_tokenizer(source), 8, 30) for source in sources]
    built[1].tokenizer.save_pretrained(tmp_path / "saved")
    built += [
        BlipTokenizer(build_tokenizer(source), 8, 30) for source in (str(tmp_path / "saved"), built[0].vocabulary)
    ]
    for one in built:
        assert one.vocabulary == [*WORDS, "[DEC]", "[ENC]"]
        assert one(["A dogs?"])["input_ids"].tolist() == [[2, 5, 6, 7, 8, 3, 0, 0]]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (["[PAD]", "[UNK]", "dog"], r"lacks \[CLS\], \[SEP\], \[MASK\]"),
        ([*WORDS, "dog"], "holds 'dog' twice"),
        ("no/such-tokenizer", r"`model.init_args.tokenizer: no/such-tokenizer` is no vocabulary file"),
    ],
)
def test_vocabularies_that_cannot_work_are_refused(
    source: list[str] | str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=words):
        build_tokenizer(source)


@pytest.mark.parametrize("source", ["nope.txt", "nope/tokenizer.json", "./nope", "/nope", "~/nope", "a/b/c"])
def test_a_missing_file_is_sought_on_no_hub(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.setattr("transformers.BertTokenizer.from_pretrained", lambda *_: pytest.fail("a hub was asked"))
    with pytest.raises(MissingPathError, match=rf"`model.init_args.tokenizer` is {source}, but .* is not there"):
        build_tokenizer(source)


def test_a_vocabulary_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "blip.pth").write_bytes(b"PK\x03\x04\x80\xff")
    with pytest.raises(ConfigError, match=r"`model.init_args.tokenizer: .*blip.pth` is no text"):
        build_tokenizer(str(tmp_path / "blip.pth"))


def test_the_vocabulary_of_scenes_knows_its_captions_and_spells_the_rest() -> None:
    config = yaml.safe_load((PROJECT / "configs/blip_scenes.yaml").read_text())["model"]["init_args"]
    tokenize = BlipTokenizer(build_tokenizer(str(PROJECT / config["tokenizer"])), config["max_length"], 30)
    tokenize.check(SimpleNamespace(**config["config"]["text_config"]))
    drawer = SceneDrawer(ScenesConfig(resolution=64))
    captions = [caption.text for index in range(40) for caption in drawer.draw("train", index)[1]]
    found = tokenize([*captions, "A xylophone, quite cheap!"])
    unknown = tokenize.vocabulary.index("[UNK]")
    assert not (found["input_ids"] == unknown).any()
    words = sum(len(re.findall(r"[\w'-]+|,", clean_caption(caption, 30))) for caption in captions)
    assert found["attention_mask"][:-1].sum().item() - 2 * len(captions) < 1.02 * words


def _image(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(40, 200, (height, width, 3), dtype=np.uint8))


def _processor(**options: object):
    settings = {"image_size": 24, "crop_scale": (0.5, 1.0), "flip": True, "augment": (2, 5.0)} | options
    return blip_processor(BlipTokenizer(build_tokenizer(WORDS), 8, 30), **settings)


@pytest.mark.parametrize("size", [(60, 40), (24, 24), (3, 2), (1, 1)])
def test_evaluation_squashes(size: tuple[int, int]) -> None:
    pixels = np.asarray(_image(*size).resize((24, 24), Image.Resampling.BICUBIC), dtype=np.float64) / 255
    expected = torch.tensor((pixels - MEAN) / STD, dtype=torch.float32).permute(2, 0, 1)
    found = _processor().eval_image(_image(*size))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_training_without_augmentation_is_evaluation() -> None:
    still = _processor(crop_scale=(1.0, 1.0), flip=False, augment=(0, 0.0))
    image = _image(40, 40)
    torch.testing.assert_close(still.train_image(image), still.eval_image(image), rtol=0, atol=0)


def test_training_draws_from_torch_and_survives_pickling() -> None:
    processor = pickle.loads(pickle.dumps(_processor()))  # noqa: S301 (loader workers get it so)
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(processor.train_image(_image(60, 40)))
    assert drawn[0].shape == (3, 24, 24)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def _augmented(magnitude: float) -> dict[bytes, int]:
    (augment,) = random_augment(1, magnitude)
    torch.manual_seed(0)
    found = [augment(_image(30, 30)).tobytes() for _ in range(600)]
    return {one: found.count(one) for one in set(found)}


def test_the_operations_are_those_of_blip() -> None:
    image, found = np.asarray(_image(30, 30)), _augmented(5)
    # Autocontrast, equalise, and shear and translate along either axis and rotate, each in two directions.
    assert len(found) == 1 + 2 + 5 * 2
    assert found[image.tobytes()] / 600 == pytest.approx(0.5 + 0.5 * 0.3, abs=0.06)  # half, and three that do nothing
    for axis in (0, 1):
        for shift in (-5, 5):
            moved = np.roll(image, shift, axis)
            edge = slice(0, shift) if shift > 0 else slice(shift, None)
            moved[(slice(None),) * axis + (edge,)] = 128
            assert moved.tobytes() in found


def test_another_magnitude_also_changes_brightness_and_sharpness() -> None:
    found, image = _augmented(7), np.asarray(_image(30, 30))
    assert len(found) == 3 + 2 + 5 * 2
    brighter = np.clip(image.astype(np.float64) * (0.1 + 1.8 * 0.7), 0, 255)
    closest = min(np.abs(np.frombuffer(one, np.uint8).reshape(image.shape) - brighter).max() for one in found)
    assert closest <= 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"crop_scale": (0.0, 1.0)}, r"`model.init_args.crop_scale` is \[0.0, 1.0\]"),
        ({"crop_scale": (0.9, 0.5)}, "two ascending shares"),
        ({"augment": (-1, 5.0)}, r"`model.init_args.augment` is \[-1, 5.0\]"),
        ({"augment": (2, 11.0)}, "a magnitude from 0 to 10"),
    ],
)
def test_numbers_that_cannot_work_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        _processor(**options)

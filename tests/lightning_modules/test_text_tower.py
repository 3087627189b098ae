"""Text towers of transformers: every kind of encoder, pooling beside padding, weights, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, BertConfig, BertForMaskedLM, BertTokenizer, GPT2TokenizerFast

from datamodules.errors import ConfigError
from lightning_modules.caption_tokenizer import CaptionTokenizer, build_tokenizer, pack_tokenizer, unpacked
from lightning_modules.text_tower import TextTower, build_text_model, pooling_weights, rebuild_config

SMALL = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
BERT = {"model_type": "bert", **SMALL}
KINDS: dict[str, dict[str, Any]] = {
    "bert": BERT,
    "roberta": {"model_type": "roberta", **SMALL},
    "distilbert": {
        "model_type": "distilbert",
        "vocab_size": 30,
        "dim": 16,
        "n_layers": 1,
        "n_heads": 2,
        "hidden_dim": 8,
    },
    "reads from left to right": {"model_type": "gpt2", "vocab_size": 30, "n_embd": 16, "n_layer": 1, "n_head": 2},
    "has a decoder": {"model_type": "t5", "vocab_size": 30, "d_model": 16, "d_kv": 8, "d_ff": 8, "num_layers": 1},
}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "and", "frisbee"]
TOKENS = {
    "input_ids": torch.tensor([[2, 5, 6, 3, 0, 0], [2, 6, 3, 0, 0, 0], [2, 5, 5, 5, 5, 3]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1]]),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
def test_every_weight_is_trained_and_padding_does_not_matter(kind: str, pooling: Any) -> None:
    torch.manual_seed(0)
    tower = TextTower(build_text_model(None, KINDS[kind]), pooling).eval()
    rows = tower(TOKENS)
    assert rows.shape == (3, 16)
    for place, length in enumerate([4, 3, 6]):
        alone = tower({key: tokens[place : place + 1, :length] for key, tokens in TOKENS.items()})
        assert torch.allclose(rows[place], alone[0], atol=1e-5)
    rows.square().sum().backward()
    untrained = [name for name, parameter in tower.named_parameters() if parameter.grad is None]
    assert not untrained  # under DDP they would be an error


@pytest.mark.parametrize(("pooling", "picked"), [("cls", [0, 0, 0, 1]), ("last", [3, 2, 0, 4])])
def test_pooling_picks_the_first_and_the_last_token_on_either_side_of_padding(pooling: str, picked: list[int]) -> None:
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [0, 1, 1, 1, 1]])
    weights = pooling_weights(mask, pooling)  # type: ignore[arg-type]
    assert torch.equal(weights, torch.eye(5)[picked])


def test_mean_pooling_is_the_mean_of_what_is_no_padding() -> None:
    mask = torch.tensor([[0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
    states = torch.randn(3, 4, 2)
    mean = torch.einsum("blw,bl->bw", states, pooling_weights(mask, "mean"))
    assert torch.allclose(mean[0], states[0, 1:3].mean(0))
    assert torch.allclose(mean[1], states[1].mean(0))
    assert torch.equal(mean[2], torch.zeros(2))
    assert not pooling_weights(mask, "cls")[2].any()


def test_weights_come_from_a_folder_in_single_precision(tmp_path: Path, capfd) -> None:
    torch.manual_seed(0)
    saved = BertForMaskedLM(BertConfig(**SMALL))
    saved.to(torch.bfloat16).save_pretrained(tmp_path)
    capfd.readouterr()
    model = build_text_model(str(tmp_path), {"hidden_dropout_prob": 0.3})
    assert "UNEXPECTED" not in "".join(capfd.readouterr())  # the head of the language model is none of ours
    assert model.dtype == torch.float32
    assert model.pooler is None
    assert model.config.hidden_dropout_prob == 0.3
    expected = saved.bert.encoder.layer[0].output.dense.weight.float()
    assert torch.equal(model.encoder.layer[0].output.dense.weight, expected)


def test_missing_weights_are_no_random_weights(tmp_path: Path) -> None:
    AutoModel.from_config(AutoConfig.for_model(**{"model_type": "bert", **SMALL})).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"lacks the weights encoder\.layer\.1\.attention"):
        build_text_model(str(tmp_path), {"num_hidden_layers": 2})


def test_weights_that_are_damaged_or_of_other_shapes_are_told(tmp_path: Path) -> None:
    AutoModel.from_config(AutoConfig.for_model(**{"model_type": "bert", **SMALL})).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"has other shapes than `model.init_args.text_config` asks for: .*weight"):
        build_text_model(str(tmp_path), {"intermediate_size": 2 * SMALL["intermediate_size"]})
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(ConfigError, match="is a model that transformers cannot load"):
        build_text_model(str(tmp_path), None)


@pytest.mark.parametrize("kind", KINDS)
def test_the_config_that_is_kept_builds_the_same_model(kind: str) -> None:
    model = build_text_model(None, KINDS[kind])
    again = build_text_model(None, rebuild_config(model))
    again.load_state_dict(model.state_dict())
    towers = [TextTower(one, "mean").eval()(TOKENS) for one in (model, again)]
    assert torch.equal(*towers)


@pytest.mark.parametrize(
    ("source", "config", "words"),
    [
        (None, {}, ["text_model` is null", "`model_type`"]),
        (None, {"model_type": "berd"}, ["model_type: berd", "did you mean bert"]),
        (None, {**BERT, "hiden_size": 8}, ["'hiden_size'", "did you mean hidden_size"]),
        (None, {**BERT, "hidden_size": 15}, ["text_config", "15", "multiple"]),
        (None, {**BERT, "hidden_size": "wide"}, ["text_config", "'wide'"]),
        (None, {"model_type": "clip"}, ["a clip", "no encoder of text alone"]),
        (None, {"model_type": "vit"}, ["a vit", "no encoder of text alone"]),
        ("no folder", None, ["`model.init_args.text_model: no folder`", "transformers can load"]),
    ],
)
def test_what_transformers_has_not_is_named(source: Any, config: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        build_text_model(source, config)
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


def test_an_unknown_pooling_is_named() -> None:
    with pytest.raises(ConfigError, match=r"`model.init_args.pooling` is 'max': give one of cls, mean, last"):
        TextTower(torch.nn.Identity(), "max")  # type: ignore[arg-type]


@pytest.fixture
def bert_folder(tmp_path: Path) -> str:
    BertTokenizer(vocab={word: place for place, word in enumerate(WORDS)}).save_pretrained(tmp_path / "bert")
    return str(tmp_path / "bert")


def test_captions_become_tokens_of_one_length(bert_folder: str) -> None:
    tokens = CaptionTokenizer(build_tokenizer(bert_folder), 6)(["A dog", "", "dog " * 500, "dog wug"])
    assert tokens["input_ids"].tolist() == [
        [2, 5, 6, 3, 0, 0],
        [2, 3, 0, 0, 0, 0],
        [2, 6, 6, 6, 6, 3],
        [2, 6, 1, 3, 0, 0],
    ]
    assert tokens["attention_mask"].sum(dim=1).tolist() == [4, 2, 6, 4]


def test_a_tokenizer_travels_as_plain_text(bert_folder: str) -> None:
    packed = pack_tokenizer(build_tokenizer(bert_folder))
    assert packed is not None
    assert all(isinstance(text, str) for text in packed.values())
    first, again = (CaptionTokenizer(build_tokenizer(source), 5) for source in (bert_folder, packed))
    captions = ["a dog and a frisbee", "", "Frisbee!"]
    assert torch.equal(first(captions)["input_ids"], again(captions)["input_ids"])
    assert pack_tokenizer(len) is None


def test_a_tokenizer_with_a_binary_file_is_refused() -> None:
    class Pieces:
        def save_pretrained(self, folder: str) -> None:
            (Path(folder) / "tokenizer.model").write_bytes(b"\xff\xfe\x80")

    with pytest.raises(ConfigError, match=r"`model.init_args.tokenizer`. has a binary file"):
        pack_tokenizer(Pieces())


def test_a_tokenizer_without_special_tokens_pads_with_its_end(tmp_path: Path) -> None:
    words = {word: place for place, word in enumerate(["<|endoftext|>", "d", "o", "g"])}
    GPT2TokenizerFast(vocab=words, merges=[]).save_pretrained(tmp_path)
    tokens = CaptionTokenizer(build_tokenizer(str(tmp_path)), 4)(["dog", ""])
    assert tokens["input_ids"].tolist() == [[1, 2, 3, 0], [0, 0, 0, 0]]
    assert tokens["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("no folder", ["`model.init_args.tokenizer: no folder`"]),
        ({"../tokenizer.json": "{}"}, ["'../tokenizer.json'", "no plain name"]),
        ({"tokenizer.json": "{"}, ["no folder or id of a tokenizer"]),
    ],
)
def test_a_tokenizer_that_cannot_be_loaded_is_named(source: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        build_tokenizer(source)
    assert all(word in str(caught.value) for word in words)


def test_a_tokenizer_without_padding_or_end_is_refused(bert_folder: str) -> None:
    tokenizer = build_tokenizer(bert_folder)
    tokenizer.pad_token = tokenizer.eos_token = None
    packed = pack_tokenizer(tokenizer)
    assert packed is not None
    with pytest.raises(ConfigError, match="neither a token for padding nor one for the end"):
        build_tokenizer(packed)


def test_packed_files_are_there_for_as_long_as_they_are_needed() -> None:
    with unpacked({"a.txt": "grüße"}) as folder:
        assert (Path(folder) / "a.txt").read_text(encoding="utf-8") == "grüße"
    assert not Path(folder).exists()

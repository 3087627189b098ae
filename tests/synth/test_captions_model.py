"""Captions of tiny random models of three kinds, saved and loaded as real ones are."""

import json
import pickle
import re

import numpy as np
import pytest

from datamodules.errors import ConfigError, MissingPathError
from synth.captions import CaptioningModel, CaptionRequest
from synth.rules import Rule

torch = pytest.importorskip("torch")

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["a", "photo", "of", "two", "dogs", "cats", "men", "on", "the", "near", "red", "grass", "sits", "runs", "sea"]
PAD, START, END = 0, 2, 3
VOCABULARY = {word: index for index, word in enumerate([*SPECIAL, *WORDS])}
SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION = {**SMALL, "image_size": 16, "patch_size": 8}
IDS = {"pad_token_id": PAD, "bos_token_id": START, "eos_token_id": END}


def blip(folder, tokenizer):
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    text = {**SMALL, "vocab_size": len(VOCABULARY), "encoder_hidden_size": 16, "sep_token_id": END, **IDS}
    config = BlipConfig(text_config=text, vision_config=VISION, projection_dim=16)
    BlipProcessor(BlipImageProcessor(size={"height": 16, "width": 16}), tokenizer).save_pretrained(folder)
    return BlipForConditionalGeneration(config)


def git(folder, tokenizer):
    from transformers import CLIPImageProcessor, GitConfig, GitForCausalLM, GitProcessor

    images = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    GitProcessor(images, tokenizer).save_pretrained(folder)
    return GitForCausalLM(GitConfig(vision_config=VISION, vocab_size=len(VOCABULARY), **SMALL, **IDS))


def encoder_decoder(folder, tokenizer):
    from transformers import (
        GPT2Config,
        VisionEncoderDecoderConfig,
        VisionEncoderDecoderModel,
        ViTConfig,
        ViTImageProcessor,
    )

    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    text = GPT2Config(vocab_size=len(VOCABULARY), n_embd=16, n_layer=1, n_head=2, **IDS)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(**VISION), text)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = START, PAD, END
    return VisionEncoderDecoderModel(config=config)


KINDS = {"blip": blip, "git": git, "encoder_decoder": encoder_decoder}


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory):
    """A saved model whose captions differ from image to image."""
    from transformers import BertTokenizer

    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    model = KINDS[request.param](folder, BertTokenizer(vocab=VOCABULARY))
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1:
                weights.normal_(0, 0.5)
    model.save_pretrained(folder)
    return folder


def images(number, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (20 + 3 * index, 30, 3), dtype=np.uint8) for index in range(number)]


def requests(pictures):
    return [CaptionRequest("", [], frozenset({0}), frozenset({1}), ("dog", "cat"), image=image) for image in pictures]


def captioner(folder, **options):
    return CaptioningModel(str(folder), **{"max_new_tokens": 6, "num_beams": 3, **options})


def as_the_library_does(folder, pictures, **options):
    """Return the captions of the model itself, with a decoder of its own."""
    from transformers import AutoImageProcessor, AutoModelForImageTextToText

    processor, model = AutoImageProcessor.from_pretrained(folder), AutoModelForImageTextToText.from_pretrained(folder)
    pixels = processor(images=pictures, return_tensors="pt", input_data_format="channels_last")["pixel_values"]
    tokens = model.eval().generate(pixel_values=pixels, do_sample=False, max_new_tokens=6, **options)
    names = list(VOCABULARY)
    return [" ".join(names[token] for token in row if token >= len(SPECIAL)) for row in tokens.tolist()]


def test_captions_are_those_of_the_library_whatever_the_batch(folder):
    pictures = images(5)
    captions = captioner(folder, batch_size=2).write(requests(pictures))
    assert captions == captioner(folder, batch_size=1).write(requests(pictures))
    assert len({str(caption) for caption in captions}) > 1
    assert captions == [text or Rule.NO_WORDS for text in as_the_library_does(folder, pictures, num_beams=3)]


def test_a_prompt_opens_every_caption_as_if_given_to_the_model_itself(folder):
    pictures = images(3)
    captions = captioner(folder, prompt="A photo of", num_beams=1).write(requests(pictures))
    assert all(caption.startswith("a photo of") for caption in captions)
    prompt = [START, *(VOCABULARY[word] for word in ("a", "photo", "of"))]
    own_way = {
        "blip": {"input_ids": [[*prompt, END]] * 3},  # the last token is dropped
        "git": {"input_ids": [prompt] * 3},
        "encoder_decoder": {"decoder_input_ids": [prompt] * 3},
    }
    (options,) = (way for kind, way in own_way.items() if folder.name.startswith(kind))
    given = {key: torch.tensor(value) for key, value in options.items()}
    assert captions == as_the_library_does(folder, pictures, num_beams=1, **given)


def test_a_copy_for_a_worker_takes_no_weights_along_and_writes_the_same(folder):
    strategy = captioner(folder)
    before = strategy.write(requests(images(2)))
    strategy.to("cpu")
    copy = pickle.dumps(strategy)
    assert len(copy) < 2000
    assert pickle.loads(copy).write(requests(images(2))) == before  # noqa: S301 (it was made one line above)


def test_a_number_type_is_that_of_the_model(folder):
    strategy = captioner(folder, dtype="bfloat16")
    assert len(strategy.write(requests(images(1)))) == 1
    assert strategy._loaded.model.dtype == torch.bfloat16


def test_a_checkpoint_of_another_task_is_refused(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["architectures"] = ["BlipForImageTextRetrieval"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="holds a BlipForImageTextRetrieval"):
        captioner(tmp_path).write(requests(images(1)))


@pytest.mark.parametrize("lost", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_without_a_part_is_refused_in_one_sentence(folder, tmp_path, lost):
    for file in folder.iterdir():
        if file.name != lost:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    if lost == "model.safetensors":
        (tmp_path / lost).write_bytes(b"not a model")
    with pytest.raises(ConfigError, match=f"`model` {re.escape(str(tmp_path))} of CaptioningModel cannot be loaded"):
        captioner(tmp_path).write(requests(images(1)))


def test_the_hub_is_asked_only_for_an_id_that_is_not_whole_here(monkeypatch):
    strategy, asked = CaptioningModel("some/model"), []

    def parts(**where):
        asked.append(where)
        if where["local_files_only"]:
            raise ConfigError("not here")
        raise ConfigError("nor there")

    monkeypatch.setattr(strategy, "_parts", parts)
    with pytest.raises(ConfigError, match="nor there"):
        strategy.write(requests(images(1)))
    assert asked == [{"local_files_only": True}, {"local_files_only": False}]


def test_a_folder_is_never_looked_up_on_the_hub(monkeypatch, tmp_path):
    strategy, asked = CaptioningModel(str(tmp_path)), []

    def parts(**where):
        asked.append(where)
        raise ConfigError("not whole")

    monkeypatch.setattr(strategy, "_parts", parts)
    with pytest.raises(ConfigError, match="not whole"):
        strategy.write(requests(images(1)))
    assert asked == [{"local_files_only": True}]


@pytest.mark.slow
def test_an_id_that_is_not_at_hand_is_refused_in_one_sentence(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # it asks a server many times
    with pytest.raises(ConfigError, match="`model` nobody/no-such-captioner of CaptioningModel cannot be loaded"):
        CaptioningModel("nobody/no-such-captioner").write(requests(images(1)))


@pytest.mark.parametrize("path", ["/nowhere/blip", "./nowhere", "~/nowhere", "models/blip/base"])
def test_a_path_that_leads_nowhere_is_refused_at_once(path):
    with pytest.raises(MissingPathError, match=f"`model` of CaptioningModel is {path}"):
        CaptioningModel(path)


@pytest.mark.parametrize("key", ["num_beams", "max_new_tokens", "batch_size"])
def test_numbers_below_one_are_refused(key):
    with pytest.raises(ConfigError, match=f"`{key}` of CaptioningModel is 0"):
        CaptioningModel("some/model", **{key: 0})


def test_a_request_without_an_image_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="a request has none"):
        CaptioningModel("some/model").write([CaptionRequest("", [], frozenset(), frozenset(), ())])


def test_the_batch_size_is_no_part_of_the_identity():
    few, many = CaptioningModel("some/model", batch_size=1), CaptioningModel("some/model", batch_size=9)
    assert few.identity() == many.identity()
    assert few.identity() != CaptioningModel("some/model", num_beams=2).identity()


def test_a_folder_counts_by_what_it_holds_not_where_it_lies(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"weights")
    before = CaptioningModel(str(first)).identity()
    assert before == CaptioningModel(str(second)).identity()
    assert json.loads(json.dumps(before)) == before
    (second / "model.safetensors").write_bytes(b"others")
    assert CaptioningModel(str(second)).identity() != before
    (second / "model.safetensors").rename(second / "other.safetensors")
    (second / "other.safetensors").write_bytes(b"weights")
    assert CaptioningModel(str(second)).identity() != before

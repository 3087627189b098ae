"""A recording pipeline in place of a diffusion model."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from datamodules.errors import ConfigError, MissingPathError
from synth.fills import DiffusersFill, box_mask


class Pipeline:
    """Paints each hole in noise of its generator, and remembers what it was given."""

    def __init__(self, flags=None):
        self.flags, self.calls, self.loaded, self.moves, self.bar = flags, [], [], [], True

    def from_pretrained(self, model, local_files_only):
        if model == "nowhere" or (model == "on/the-hub" and local_files_only):
            raise OSError("nowhere is no local folder and no valid id\nsecond line")
        self.loaded.append(model)
        return self

    def set_progress_bar_config(self, disable):
        self.bar = not disable

    def to(self, device):
        self.moves.append(device)
        return self

    def __call__(self, **given):
        self.calls.append(given)
        size = (given["height"], given["width"], 3)
        images = np.stack([torch.rand(size, generator=generator).numpy() for generator in given["generator"]])
        return SimpleNamespace(images=images, nsfw_content_detected=self.flags)


@pytest.fixture
def pipeline(monkeypatch):
    module = ModuleType("diffusers")
    module.AutoPipelineForInpainting = Pipeline()
    monkeypatch.setitem(sys.modules, "diffusers", module)
    return module.AutoPipelineForInpainting


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_pipeline_gets_images_masks_and_options(pipeline):
    fill = DiffusersFill("some/model", "lawn", "dog", steps=3, guidance=2.0, dtype="bfloat16", options={"strength": 1})
    image, mask = noise(70, 100), box_mask([[20, 10, 60, 40]], (100, 70))
    fill.to("meta")
    filled = fill.batch([image, image], [mask, mask])
    assert pipeline.loaded == ["some/model"]
    assert (pipeline.moves, pipeline.bar) == ([torch.bfloat16, "meta"], False)
    (given,) = pipeline.calls
    assert (given["prompt"], given["negative_prompt"]) == (["lawn", "lawn"], ["dog", "dog"])
    assert (given["num_inference_steps"], given["guidance_scale"], given["strength"]) == (3, 2.0, 1)
    assert (given["height"], given["width"]) == (128, 128)
    shown = np.asarray(given["image"][1])
    assert np.array_equal(shown[:70, :100][~mask], image[~mask])
    assert len(np.unique(shown[:70, :100][mask], axis=0)) == 1
    assert np.array_equal(np.asarray(given["mask_image"][0])[:70, :100], mask * np.uint8(255))
    assert np.array_equal(filled[0][~mask], image[~mask])
    assert np.array_equal(filled[0], filled[1])


def test_the_seed_alone_decides_the_noise(pipeline):
    image, mask = noise(64, 64), box_mask([[20, 10, 60, 40]], (64, 64))
    first = DiffusersFill("m")(image, mask)
    assert np.array_equal(DiffusersFill("m")(image, mask), first)
    assert np.array_equal(DiffusersFill("m").batch([noise(64, 64, 5), image], [mask, mask])[1], first)
    assert not np.array_equal(DiffusersFill("m", seed=1)(image, mask), first)
    assert "negative_prompt" not in pipeline.calls[0]


def test_a_folder_counts_by_what_its_parts_hold_not_where_it_lies(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        (folder / "unet").mkdir(parents=True)
        (folder / "model_index.json").write_text("{}")
        (folder / "unet" / "weights.safetensors").write_bytes(b"weights")
    before = DiffusersFill(str(first)).identity()
    assert before == DiffusersFill(str(second)).identity()
    assert str(tmp_path) not in str(before)
    (second / "unet" / "weights.safetensors").write_bytes(b"others")
    assert DiffusersFill(str(second)).identity() != before
    assert DiffusersFill("some/model").identity()["model"] == "some/model"


def test_a_pipeline_that_is_not_here_comes_from_the_hub(pipeline):
    DiffusersFill("on/the-hub").to("cpu")
    assert pipeline.loaded == ["on/the-hub"]


def test_a_blackened_image_keeps_the_mean_colour_and_is_told(pipeline):
    image, mask = np.full((64, 64, 3), 80, np.uint8), box_mask([[20, 10, 60, 40]], (64, 64))
    image[mask] = 255
    pipeline.flags = [True, False]
    with pytest.warns(UserWarning, match="safety checker of m blackened 1"):
        black, other = DiffusersFill("m").batch([image, image], [mask, mask])
    assert (black == 80).all()
    assert not (other == 80).all()


def test_a_missing_extra_or_model_is_one_sentence(pipeline, monkeypatch):
    with pytest.raises(ConfigError, match=r"`model` nowhere of DiffusersFill cannot be loaded \(.*valid id\); give"):
        DiffusersFill("nowhere").to("cpu")
    with pytest.raises(MissingPathError, match=r"`model` of DiffusersFill is \./nowhere"):
        DiffusersFill("./nowhere")
    with pytest.raises(ConfigError, match="`steps` of DiffusersFill is 0"):
        DiffusersFill("m", steps=0)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ConfigError, match=r"needs the extra `diffusers`.*pip install 'odmap\[diffusers\]'"):
        DiffusersFill("m").to("cpu")


@pytest.mark.slow
def test_a_tiny_real_pipeline(tmp_path):
    """Saves a random Stable Diffusion of a few thousand weights and fills with it."""
    diffusers = pytest.importorskip("diffusers")
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 32, "intermediate_size": 37, "num_attention_heads": 4, "num_hidden_layers": 1}
    letters = [chr(number) for number in range(97, 123)]
    words = {
        word: n for n, word in enumerate([*letters, *[f"{c}</w>" for c in letters], "<|startoftext|>", "<|endoftext|>"])
    }
    torch.manual_seed(0)
    pipeline = diffusers.StableDiffusionInpaintPipeline(
        vae=diffusers.AutoencoderKL(block_out_channels=(32, 64), latent_channels=4, **_blocks("Encoder", "Decoder")),
        unet=diffusers.UNet2DConditionModel(
            sample_size=32, in_channels=9, out_channels=4, layers_per_block=1, block_out_channels=(32, 64),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=32, attention_head_dim=8,
        ),
        scheduler=diffusers.DDIMScheduler(),
        text_encoder=transformers.CLIPTextModel(transformers.CLIPTextConfig(vocab_size=len(words), **small)),
        tokenizer=transformers.CLIPTokenizer(vocab=words, merges=[], model_max_length=77),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(tmp_path / "tiny")
    fill = DiffusersFill(str(tmp_path / "tiny"), "a lawn", steps=2)
    image, mask = noise(70, 100), box_mask([[20, 10, 60, 40]], (100, 70))
    filled = fill(image, mask)
    assert np.array_equal(filled[~mask], image[~mask])
    assert not np.array_equal(filled[mask], image[mask])
    assert np.array_equal(fill(image, mask), filled)


def _blocks(*sides):
    kinds = {"Encoder": ("down_block_types", "DownEncoderBlock2D"), "Decoder": ("up_block_types", "UpDecoderBlock2D")}
    return {kinds[side][0]: (kinds[side][1],) * 2 for side in sides}

"""Grad-CAM and attention rollout against formulas by hand, on every kind of image tower that is at hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.errors import ConfigError
from lightning_modules import CLIP
from lightning_modules.maps import attention_rollout, find_layer, grad_cam
from lightning_modules.maps.grids import as_grid, as_maps, grid_of

TEXT = {"context_length": 12, "width": 16, "heads": 2, "layers": 1}
VIT = {"image_size": 32, "patch_size": 8, "width": 16, "head_width": 8, "layers": 3}
RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8}


def _timm(name: str, pool: str, size: int = 160) -> dict[str, Any]:
    return {"image_size": size, "timm_model_name": name, "timm_pool": pool, "timm_proj": "linear"}


def _clip(vision: dict[str, Any], **options: Any) -> tuple[CLIP, Tensor, Tensor]:
    torch.manual_seed(0)
    model = CLIP(model_config={"embed_dim": 8, "vision_cfg": vision, "text_cfg": TEXT}, **options)
    size = vision["image_size"]
    return model, torch.rand(3, 3, size, size), F.normalize(torch.randn(3, 8), dim=1)


class Pooled(nn.Module):
    """A convolution, a ReLU, the mean over all places."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(3, 5, 4, stride=4), nn.ReLU(inplace=True))

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        return F.normalize(self.features(pixel_values).mean(dim=(2, 3)), dim=1)


def test_grad_cam_is_the_weighted_sum_of_channels() -> None:
    model = Pooled()
    pixels, texts = torch.randn(2, 3, 16, 8), F.normalize(torch.randn(2, 5), dim=1)
    maps = grad_cam(model, pixels, texts)
    with torch.no_grad():
        features = model.features(pixels)
        means = features.mean(dim=(2, 3))
        for found, channels, mean, text in zip(maps, features, means, texts, strict=True):
            cosine = mean @ text / mean.norm()
            weights = (text - cosine * mean / mean.norm()) / mean.norm()  # the gradient of a cosine
            heat = sum(weight * channel for weight, channel in zip(weights, channels, strict=True)).clamp(min=0)
            heat = (heat - heat.min()) / (heat.max() - heat.min())
            wide = F.interpolate(heat[None, None], (16, 8), mode="bilinear")[0, 0]
            torch.testing.assert_close(found, wide, atol=1e-5, rtol=1e-4)


class Planted(nn.Module):
    """One channel is the red of the picture, one the blue; what is read out is their mean."""

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        return F.normalize(self.pool(pixel_values)[:, [0, 2]].mean(dim=(2, 3)), dim=1)

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(2)


@pytest.mark.parametrize(("text", "quarter"), [((1.0, 0.0), (0, 0)), ((0.0, 1.0), (1, 1))])
def test_grad_cam_lies_where_the_text_is(text: tuple[float, float], quarter: tuple[int, int]) -> None:
    pixels = torch.zeros(1, 3, 16, 16)
    pixels[:, 0, :8, :8], pixels[:, 2, 8:, 8:] = 1, 1
    found = grad_cam(Planted(), pixels, torch.tensor(text))[0]
    rows, columns = (slice(8 * part, 8 * part + 8) for part in quarter)
    assert found[rows, columns].sum() / found.sum() > 0.85
    assert find_layer(Planted(), pixels, torch.tensor(text)) == "pool"


TOWERS = [
    (VIT, "model.visual.transformer.resblocks.2.ln_1"),
    (RESNET, "model.visual.layer4"),
    (_timm("test_byobnet", "avg", 64), "model.visual.trunk.final_conv"),
    (_timm("test_vit", "", 64), "model.visual.trunk.blocks.5.norm1"),
    (_timm("test_vit", "avg", 64), "model.visual.trunk.norm"),
    (_timm("test_resnet", "avg"), "model.visual.trunk.layer4"),
]


@pytest.mark.parametrize(("vision", "layer"), TOWERS, ids=[layer for _, layer in TOWERS])
def test_the_layer_is_found_by_what_it_does(vision: dict[str, Any], layer: str) -> None:
    model, pixels, texts = _clip(vision)
    assert find_layer(model, pixels[:1], texts[:1]) == layer
    maps = grad_cam(model, pixels, texts)
    assert maps.shape == (3, vision["image_size"], vision["image_size"])
    assert maps.dtype == torch.float32
    assert maps.amin() >= 0
    assert maps.amax() <= 1
    assert torch.equal(maps, grad_cam(model, pixels, texts, layer))


@pytest.mark.parametrize("vision", [VIT, RESNET], ids=["vit", "resnet"])
def test_a_map_depends_on_its_own_image_alone_and_leaves_the_model_as_it_was(vision: dict[str, Any]) -> None:
    model, pixels, texts = _clip(vision)
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    maps = grad_cam(model, pixels, texts)
    torch.testing.assert_close(maps[1:2], grad_cam(model, pixels[1:2], texts[1:2]), atol=1e-4, rtol=1e-3)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, tensor in model.state_dict().items():  # batch statistics among them
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("vision", [VIT, RESNET], ids=["vit", "resnet"])
def test_frozen_weights_and_checkpointing_change_nothing(vision: dict[str, Any]) -> None:
    model, pixels, texts = _clip(vision)
    expected = grad_cam(model, pixels, texts)
    frozen, _, _ = _clip(vision, freeze=["model.visual.*"], gradient_checkpointing=vision is VIT)
    frozen.configure_model()
    assert not any(parameter.requires_grad for parameter in frozen.model.visual.parameters())
    with torch.no_grad():
        torch.testing.assert_close(grad_cam(frozen, pixels, texts), expected)


def test_rollout_equals_the_formula() -> None:
    model, pixels, _ = _clip(VIT)
    inputs: list[Tensor] = []
    blocks = model.model.visual.transformer.resblocks
    hooks = [block.ln_1.register_forward_hook(lambda _, __, output: inputs.append(output)) for block in blocks]
    with torch.no_grad():
        model.eval().encode_images(pixels)
        for hook in hooks:
            hook.remove()
        flow = torch.eye(17).expand(3, 17, 17)
        for block, tokens in zip(blocks, inputs, strict=True):
            query, key, _ = F.linear(tokens, block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, dim=-1)
            query, key = (part.unflatten(2, (2, 8)).transpose(1, 2) for part in (query, key))
            attention = (query @ key.transpose(2, 3) / 8**0.5).softmax(dim=-1).mean(dim=1)
            flow = (0.5 * attention + 0.5 * torch.eye(17)) @ flow
    expected = as_maps(flow[:, 0, 1:].reshape(3, 4, 4), 32, 32)
    torch.testing.assert_close(attention_rollout(model, pixels), expected, atol=1e-4, rtol=1e-3)


def test_rollout_sees_the_attention_of_timm_fused_or_not() -> None:
    model, pixels, texts = _clip(_timm("test_vit", "", 64))
    maps = attention_rollout(model, pixels)
    assert maps.shape == (3, 64, 64)
    assert maps.flatten(1).std(dim=1).min() > 0.05
    for block in model.model.visual.trunk.blocks:  # weights that are a square of 17 x 17, and go through a dropout
        block.attn.fused_attn = False
    torch.testing.assert_close(attention_rollout(model, pixels), maps, atol=1e-4, rtol=1e-3)
    assert find_layer(model, pixels, texts) == "model.visual.trunk.blocks.5.norm1"


def test_rollout_reads_a_pooling_query_where_there_is_one() -> None:
    class Attending(nn.Module):
        def encode_images(self, pixel_values: Tensor) -> Tensor:
            tokens = F.avg_pool2d(pixel_values, 4).flatten(2).transpose(1, 2)[:, None]
            tokens = F.scaled_dot_product_attention(tokens, tokens, tokens)
            return F.scaled_dot_product_attention(
                torch.eye(3)[None, None, :1].expand(len(tokens), 1, 1, 3) * 9, tokens, tokens
            )[:, 0, 0]

    pixels = torch.zeros(2, 3, 8, 8)
    pixels[:, 0, :4, 4:] = 9
    found = attention_rollout(Attending(), pixels)
    assert found[:, 1, 6].tolist() == [1.0, 1.0]
    assert found[:, 6, 1].max() < 0.1


def test_a_convolutional_network_has_no_attention_to_roll_out() -> None:
    model, pixels, _ = _clip(_timm("test_byobnet", "avg", 64))
    with pytest.raises(ConfigError, match=r"CLIP has no self-attention over patches.*take Grad-CAM"):
        attention_rollout(model, pixels)


def test_mistakes_about_layers_are_named() -> None:
    model, pixels, texts = _clip(RESNET)
    with pytest.raises(ConfigError, match=r"no layer 'model.visual.layer5'.*model.visual.layer"):
        grad_cam(model, pixels, texts, "model.visual.layer5")
    with pytest.raises(ConfigError, match=r"model.visual.attnpool puts out .*no grid"):
        grad_cam(model, pixels, texts, "model.visual.attnpool")
    with pytest.raises(ConfigError, match=r"model.transformer is not called"):
        grad_cam(model, pixels, texts, "model.transformer")


def test_features_in_place_of_images_have_no_map() -> None:
    class Features(Pooled):
        def encode_images(self, pixel_values: Tensor) -> Tensor:
            return F.normalize(pixel_values, dim=1)

    for make in (lambda model, rows: grad_cam(model, rows, rows), attention_rollout):
        with pytest.raises(ConfigError, match=r"Features has no layer|encoder of Features"):
            make(Features(), torch.randn(2, 5))


def test_grids_hold_the_proportions_of_the_image() -> None:
    assert grid_of(577, 336, 336) == (24, 24)
    assert grid_of(1 + 4 * 6, 64, 96) == (4, 6)
    assert grid_of(2, 64, 64) is None
    tokens = torch.arange(2 * 5 * 3.0).reshape(2, 5, 3)
    grid = as_grid(tokens, 8, 8)
    assert grid.shape == (2, 3, 2, 2)
    torch.testing.assert_close(grid[1, :, 1, 0], tokens[1, 3])
    torch.testing.assert_close(as_grid(torch.ones(2, 4, 6, 16), 64, 96), torch.ones(2, 16, 4, 6))  # channels last
    assert as_grid(torch.ones(2, 3, 5, 16), 32, 32) is None

"""Channels last: the same embeddings and gradients from another layout."""

from __future__ import annotations

import torch

from lightning_modules import VSEPP


def _model(channels_last: bool) -> VSEPP:
    torch.manual_seed(0)
    made = VSEPP(
        image_model="test_resnet",
        image_weights=None,
        image_size=64,
        image_dropout=0.0,
        vocabulary=["dog"],
        finetune=True,
        channels_last=channels_last,
    )
    made.configure_model()
    return made.eval()  # statistics of so few images would magnify the rounding


def test_only_the_layout_changes() -> None:
    plain, last = _model(False), _model(True)
    pixels = torch.rand(16, 3, 64, 64)
    rows = [model.encode_images(pixels) for model in (plain, last)]
    for one in rows:
        (one * torch.arange(one.shape[1])).sum().backward()
    torch.testing.assert_close(rows[1], rows[0], rtol=1e-4, atol=1e-5)
    wide = [one for one in last.parameters() if one.ndim == 4 and min(one.shape[1], one.shape[2]) > 1]
    assert wide
    assert all(one.is_contiguous(memory_format=torch.channels_last) for one in wide)
    for one, other in zip(last.parameters(), plain.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None:
            assert (one.grad - other.grad).norm() <= 1e-3 * other.grad.norm() + 1e-6

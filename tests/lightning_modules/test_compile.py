"""Compiled encoders: the same embeddings, and nothing of it in checkpoints or copies."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch

from lightning_modules import image_text


@pytest.fixture
def _eager(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let Dynamo trace, and the graphs run as they are: no compiler is needed."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    image_text._compiled.cache_clear()
    yield
    image_text._compiled.cache_clear()
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.usefixtures("_eager")
def test_compiled_encoders_give_the_same(tiny_clip: Callable[..., Any], pairs: Callable[..., Any]) -> None:
    plain, compiled = tiny_clip(), tiny_clip(compile=True, micro_batch_size=3)
    batch = pairs(plain, 5)
    for model in (plain, compiled):
        model.log = lambda *_, **__: None
        model.training_loss(batch).backward()
    assert plain.state_dict().keys() == compiled.state_dict().keys()
    for one, other in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad)
    copied = copy.deepcopy(compiled)
    with torch.no_grad():
        compiled.model.visual.proj.mul_(-1)
        for ours, theirs in zip(copied.embed_pairs(batch), plain.embed_pairs(batch), strict=True):
            torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(compiled._encode(batch), compiled.embed_pairs(batch)[0])  # whole, and in parts
        torch.testing.assert_close(compiled._encode(batch), -plain._encode(batch))

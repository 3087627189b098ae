"""A batch encoded in parts: values and gradients of the whole, memory of a part."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_modules.micro_batches import encode_in_parts


def _net(*middle: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), *middle, nn.Tanh(), nn.Linear(16, 3)).double()


def _rows(count: int = 8) -> Tensor:
    return torch.rand(count, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def _gradients(net: nn.Module, embeddings: Tensor) -> list[Tensor]:
    """Gradients of a loss that ties every row to every other."""
    similarities = embeddings @ embeddings.T
    return list(torch.autograd.grad(torch.logsumexp(similarities, dim=1).sum(), tuple(net.parameters())))


@pytest.mark.parametrize("size", [1, 3, 7, 8, 100, None])
def test_gradients_are_those_of_the_undivided_batch(size: int | None) -> None:
    net, rows = _net(), _rows()
    embeddings = encode_in_parts(net, rows, size, net)
    torch.testing.assert_close(embeddings, net(rows))
    torch.testing.assert_close(_gradients(net, embeddings), _gradients(net, net(rows)))


def test_tokens_in_a_mapping_are_divided_alike() -> None:
    net, rows = _net(), _rows()
    tokens = {"left": rows, "right": rows * 2}

    def encode(part: Any) -> Tensor:
        return net(part["left"] + part["right"])

    found = encode_in_parts(encode, tokens, 3, net)
    torch.testing.assert_close(found, net(rows * 3))
    torch.testing.assert_close(_gradients(net, found), _gradients(net, net(rows * 3)))


def test_dropout_falls_the_same_both_times() -> None:
    net, rows = _net(nn.Dropout(0.5)), _rows()
    torch.manual_seed(2)
    expected = torch.cat([net(part) for part in rows.split(3)])
    torch.manual_seed(2)
    found = encode_in_parts(net, rows, 3, net)
    assert torch.equal(found, expected)
    torch.testing.assert_close(_gradients(net, found), _gradients(net, expected))


def test_running_statistics_are_updated_once() -> None:
    net, reference = _net(nn.BatchNorm1d(16)), _net(nn.BatchNorm1d(16))
    rows = _rows()
    expected = torch.cat([reference(part) for part in rows.split(4)])
    found = encode_in_parts(net, rows, 4, net)
    torch.testing.assert_close(_gradients(net, found), _gradients(reference, expected))
    for name, buffer in reference.named_buffers():
        torch.testing.assert_close(net.get_buffer(name), buffer)
    assert net[1].momentum == reference[1].momentum


def test_frozen_statistics_are_used_both_times() -> None:
    net, rows = _net(nn.BatchNorm1d(16)), _rows()
    net[1].running_mean.normal_()
    net[1].eval()
    found = encode_in_parts(net, rows, 3, net)
    torch.testing.assert_close(_gradients(net, found), _gradients(net, net(rows)))


def test_between_the_passes_only_the_parts_and_their_embeddings_are_kept() -> None:
    net, rows = _net(*(nn.Linear(16, 16) for _ in range(6))), _rows(64)

    def kept(size: int | None) -> int:
        total = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal total
            total += 0 if isinstance(tensor, nn.Parameter) else tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            encode_in_parts(net, rows, size, net)
        return total

    assert kept(8) < kept(None) / 4

"""What every loss keeps: its gradient, its value under a permutation, its precision, and both over ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from lightning_modules.losses import (
    ClassAffinityLoss,
    CounterfactualMarginLoss,
    GroupDROLoss,
    InfoNCELoss,
    MatchingLoss,
    MomentumContrastiveLoss,
    PromptCrossEntropyLoss,
    SigmoidLoss,
    SpuriousPairsLoss,
    TripletLoss,
)

Batch = dict[str, Tensor]
Call = Callable[[nn.Module, Tensor, Tensor, Tensor, Tensor, Batch], Tensor]
PAIRS = 8


def _contrastive(loss: nn.Module, images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor, batch: Batch) -> Tensor:
    return loss(images, texts, scale, batch["image_ids"])


def _sigmoid(loss: nn.Module, images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor, batch: Batch) -> Tensor:
    return loss(images, texts, scale, bias)


def _triplet(loss: nn.Module, images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor, batch: Batch) -> Tensor:
    return loss(images, texts, batch["image_ids"])


def _margin(loss: nn.Module, images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor, batch: Batch) -> Tensor:
    return loss(images, texts, batch["caption_ids"], batch["source_caption_ids"], batch["synthetic"])


def _momentum(loss: nn.Module, images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor, batch: Batch) -> Tensor:
    momentum = (F.normalize(batch[f"momentum_{kind}"], dim=1) for kind in ("images", "texts"))
    return loss(images, texts, *momentum, batch["image_ids"], temperature=scale / 20, alpha=0.4)


def _matching(loss: nn.Module, images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor, batch: Batch) -> Tensor:
    return loss(scale * (images * texts)[:, :2] + bias, batch["synthetic"])


def _affinity(loss: nn.Module, images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor, batch: Batch) -> Tensor:
    return loss(images, batch["image_ids"])


def _prompts(loss: nn.Module, images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor, batch: Batch) -> Tensor:
    return loss(images, _fixed_prompts(images) + bias, scale, batch["caption_ids"] % 3)


def _group_dro(loss: nn.Module, images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor, batch: Batch) -> Tensor:
    labels, prompts = batch["caption_ids"] % 3, _fixed_prompts(images) + bias
    losses = PromptCrossEntropyLoss().per_image(images, prompts, scale, labels)
    return loss(losses, 2 * labels + batch["synthetic"])


def _partners(loss: nn.Module, images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor, batch: Batch) -> Tensor:
    shown = batch["caption_ids"][:, None] % torch.tensor([2, 3, 5]) == 0
    return loss(images, _fixed_prompts(images) + bias, scale, shown, torch.tensor([[0, 1], [2, 0]]))


def _fixed_prompts(images: Tensor) -> Tensor:
    """Three prompts, the same on all ranks as those that a text tower makes."""
    return torch.eye(3, dtype=images.dtype)


CASES: dict[str, tuple[Callable[[], nn.Module], Call]] = {
    "diagonal": (InfoNCELoss, _contrastive),
    "soft": (lambda: InfoNCELoss("same_image_soft"), _contrastive),
    "masked": (lambda: InfoNCELoss("mask_same_image"), _contrastive),
    "sigmoid": (SigmoidLoss, _sigmoid),
    "max, sum": (TripletLoss, _triplet),
    "max, mean": (lambda: TripletLoss(reduction="mean"), _triplet),
    "max, sum, masked": (lambda: TripletLoss(mask_same_image=True), _triplet),
    "sum, sum": (lambda: TripletLoss(hinges="sum"), _triplet),
    "sum, mean, masked": (lambda: TripletLoss(0.5, "sum", "mean", mask_same_image=True), _triplet),
    "counterfactual": (lambda: CounterfactualMarginLoss(0.4), _margin),
    "momentum": (lambda: MomentumContrastiveLoss(3, queue_size=11), _momentum),
    "momentum, short queue": (lambda: MomentumContrastiveLoss(3, queue_size=5), _momentum),
    "matching": (MatchingLoss, _matching),
    "affinity": (ClassAffinityLoss, _affinity),
    "affinity, temperature": (lambda: ClassAffinityLoss(0.5), _affinity),
    "prompts": (PromptCrossEntropyLoss, _prompts),
    "partners": (SpuriousPairsLoss, _partners),
    "group DRO": (lambda: GroupDROLoss(6, step_size=0.5), _group_dro),
}


def _batch(seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    rows = {
        name: torch.randn(PAIRS, width, generator=generator, dtype=torch.double)
        for name, width in {"images": 4, "texts": 4, "momentum_images": 3, "momentum_texts": 3}.items()
    }
    return rows | {
        "image_ids": torch.tensor([1, 2, 1, 3, 2**40, 2, 4, 2**40 + 1]),
        "caption_ids": torch.tensor([10, 11, 12, 13, 90, 14, 15, 91]),
        "source_caption_ids": torch.tensor([10, 11, 12, 13, 15, 14, 15, 10]),
        "synthetic": torch.tensor([False, False, False, False, True, False, False, True]),
    }


class Towers(nn.Module):
    """Two linear encoders, two scalars, and a loss over them."""

    def __init__(self, case: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.images, self.texts = nn.Linear(4, 3), nn.Linear(4, 3)
        self.scale, self.bias = nn.Parameter(torch.tensor(7.0)), nn.Parameter(torch.tensor(-1.0))
        build, self.call = CASES[case]
        self.loss = build()
        self.double()

    def forward(self, batch: Batch) -> Tensor:
        images, texts = self.embed(batch)
        return self.call(self.loss, images, texts, self.scale, self.bias, batch)

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return F.normalize(self.images(batch["images"]), dim=1), F.normalize(self.texts(batch["texts"]), dim=1)


@pytest.mark.parametrize("case", CASES)
def test_gradient_is_that_of_finite_differences(case: str) -> None:
    towers, batch = Towers(case).eval(), _batch()
    inputs = [*(rows.detach() for rows in towers.embed(batch)), towers.scale.detach(), towers.bias.detach()]
    learned = 2 if "momentum" in case else 4  # its targets depend on the temperature too, without a gradient
    inputs = [tensor.requires_grad_(number < learned) for number, tensor in enumerate(inputs)]
    assert torch.autograd.gradcheck(lambda *tensors: towers.call(towers.loss, *tensors, batch), inputs)
    towers(batch).backward()
    assert towers.images.weight.grad.abs().max() > 1e-3  # the case is not a flat one


@pytest.mark.parametrize("case", CASES)
def test_order_of_the_pairs_does_not_matter(case: str) -> None:
    towers, batch = Towers(case).eval(), _batch()
    order = torch.randperm(PAIRS, generator=torch.Generator().manual_seed(1))
    shuffled = {name: rows[order] for name, rows in batch.items()}
    torch.testing.assert_close(towers(shuffled), towers(batch), rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_half_precision_embeddings_are_computed_in_float32(case: str) -> None:
    towers, batch = Towers(case).float().eval(), {name: rows.float() for name, rows in _batch().items()}
    batch |= {name: rows for name, rows in _batch().items() if not rows.is_floating_point()}
    rounded = [rows.detach().bfloat16() for rows in towers.embed(batch)]
    exact = towers.call(towers.loss, *(rows.float() for rows in rounded), towers.scale, towers.bias, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = towers.call(towers.loss, *rounded, towers.scale, towers.bias, batch)
    assert found.dtype == torch.float32
    if case != "matching":  # its logits are made in half precision here
        assert found.item() == exact.item()


def _two_steps(case: str, own: slice, wrap: Callable[[nn.Module], nn.Module]) -> dict[str, list[Any]]:
    """Return the losses, gradients and buffers of two training steps on these rows."""
    towers = Towers(case)
    model, seen = wrap(towers), {"losses": [], "grads": []}
    for seed in range(2):
        model.zero_grad()
        loss = model({name: rows[own] for name, rows in _batch(seed).items()})
        loss.backward()
        seen["losses"].append(loss.item())
        used = [parameter.grad for parameter in towers.parameters() if parameter.grad is not None]
        seen["grads"] += [grad.tolist() for grad in used if grad.abs().max() > 1e-12]  # not those that cancel out
    return seen | {"buffers": [buffer.tolist() for buffer in towers.buffers()]}


def _ranks(rank: int, world: int, splits: list[list[int]]) -> dict[tuple[int, str], dict[str, list[Any]]]:
    def wrap(model: nn.Module) -> nn.Module:
        return DistributedDataParallel(model, find_unused_parameters=True)

    found = {}
    for number, sizes in enumerate(splits):
        start = sum(sizes[:rank])
        for case in CASES:
            found[number, case] = _two_steps(case, slice(start, start + sizes[rank]), wrap)
    return found


@pytest.mark.slow
@pytest.mark.ddp
@pytest.mark.parametrize("splits", [[[4, 4], [5, 3]], [[3, 1, 4], [4, 0, 4]]], ids=["2 ranks", "3 ranks"])
def test_ranks_do_what_one_process_does_on_the_whole_batch(run_ranks, splits: list[list[int]]) -> None:
    alone = {case: _two_steps(case, slice(PAIRS), lambda model: model) for case in CASES}
    for found in run_ranks(_ranks, len(splits[0]), splits):
        for (_, case), seen in found.items():
            for kind, right in alone[case].items():
                assert len(seen[kind]) == len(right), (case, kind)
                for value, expected in zip(seen[kind], right, strict=True):
                    torch.testing.assert_close(
                        torch.tensor(value, dtype=torch.double),
                        torch.tensor(expected, dtype=torch.double),
                        rtol=0,
                        atol=1e-10,
                        msg=lambda text, case=case, kind=kind: f"{kind} of {case}: {text}",
                    )

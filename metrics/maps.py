"""Scores of activation maps: does a model look at the object, as a number."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from metrics.checks import check_tensor


def mass_inside(maps: Tensor, regions: Tensor) -> Tensor:
    """Return which share of the mass of each map lies inside its region.

    A map that looks nowhere in particular has the share of the area that the region covers; that is the chance level.

    Args:
        maps: `[B, H, W]` floating point, 0 or more, finite.
        regions: `[B, H, W]` bool, True where the object is.

    Returns:
        `[B]` float32 from 0 to 1, NaN where a map is 0 everywhere or a region is empty.

    Raises:
        TypeError: A tensor has the wrong dtype.
        ValueError: Shapes do not fit, or a map holds a number that is negative or not finite.

    Example:
        >>> import torch
        >>> maps = torch.tensor([[[3.0, 1.0]], [[0.0, 0.0]]])
        >>> mass_inside(maps, torch.tensor([[[True, False]], [[True, False]]]))
        tensor([0.7500,    nan])
    """
    _check(maps, regions)
    maps = maps.float()
    share = (maps * regions).sum(dim=(1, 2)) / maps.sum(dim=(1, 2))
    return share.where(regions.flatten(1).any(dim=1), torch.nan)


def iou(maps: Tensor, regions: Tensor, threshold: float = 0.5) -> Tensor:
    """Return the intersection over union of each region and the part of its map that reaches a threshold.

    Args:
        maps: `[B, H, W]` floating point from 0 to 1.
        regions: `[B, H, W]` bool, True where the object is.
        threshold: What a map has to reach, above 0, in the unit of the maps.

    Returns:
        `[B]` float32 from 0 to 1, NaN where a region is empty; a map that reaches the threshold nowhere has 0.

    Raises:
        TypeError: A tensor has the wrong dtype.
        ValueError: Shapes do not fit, a map holds a number that is negative or not finite, or the threshold is 0 or
            less.

    Example:
        >>> import torch
        >>> iou(torch.tensor([[[1.0, 0.5, 0.2]]]), torch.tensor([[[True, False, False]]]))
        tensor([0.5000])
    """
    _check(maps, regions)
    if not threshold > 0:
        raise ValueError(f"threshold must be above 0, got {threshold}: every place of a map reaches 0.")
    bright = maps >= threshold
    both, either = (places.flatten(1).sum(dim=1) for places in (bright & regions, bright | regions))
    return (both / either).where(regions.flatten(1).any(dim=1), torch.nan)


class MapScores(Metric):
    """Mean scores of activation maps against where the object is, in per cent.

    Source: the share of the map's mass inside the object and its IoU at a threshold are this project's own choice; see
    `mass_inside` and `iou`. Maps come from `lightning_modules.maps`, in [0, 1].

    Args:
        threshold: Of the IoU, above 0.
        **options: Those of `torchmetrics.Metric`.

    Raises:
        ValueError: The threshold is 0 or less.

    Example:
        >>> import torch
        >>> scores = MapScores()
        >>> maps = torch.tensor([[[1.0, 0.5, 0.5, 0.0]], [[0.0, 0.0, 0.0, 0.0]]])
        >>> scores.update(maps, torch.tensor([[[True, False, False, False]], [[True, True, False, False]]]))
        >>> for name, value in scores.compute().items():
        ...     print(name, round(value.item(), 2))
        mass_inside 50.0
        chance 25.0
        iou 16.67
        maps 2
        blank 1
        no_region 0
    """

    full_state_update = False
    inside: Tensor
    area: Tensor
    overlap: Tensor
    maps: Tensor
    blank: Tensor
    no_region: Tensor

    def __init__(self, threshold: float = 0.5, **options: Any) -> None:
        super().__init__(**options)
        if not threshold > 0:
            raise ValueError(f"threshold must be above 0, got {threshold}.")
        self.threshold = threshold
        for name in ("inside", "area", "overlap"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        for name in ("maps", "blank", "no_region"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, maps: Tensor, regions: Tensor) -> None:
        """Add maps.

        Args:
            maps: `[B, H, W]` floating point from 0 to 1; the resolution may differ from batch to batch.
            regions: `[B, H, W]` bool.

        Raises:
            TypeError: A tensor has the wrong dtype.
            ValueError: Shapes do not fit, or a map holds a number that is negative or not finite.
        """
        share, overlap = mass_inside(maps, regions), iou(maps, regions, self.threshold)
        scored, seen = ~share.isnan(), ~overlap.isnan()
        self.inside += share[scored].double().sum()
        self.area += regions.double().mean(dim=(1, 2))[scored].sum()
        self.overlap += overlap[seen].double().sum()
        self.maps += len(maps)
        self.no_region += (~seen).sum()
        self.blank += (seen & ~scored).sum()

    def compute(self) -> dict[str, Tensor]:
        """Compute the means over all maps.

        Returns:
            `mass_inside` and beside it `chance`, what maps without a preference would have there (the mean area of the
            regions), both over maps that are not 0 everywhere; `iou` over all maps with a region; and how many there
            are: `maps`, of which `blank` are 0 everywhere and `no_region` have an empty region, which is scored
            nowhere. A mean of nothing is NaN.
        """
        seen = self.maps - self.no_region
        scored = seen - self.blank
        means = {"mass_inside": self.inside / scored, "chance": self.area / scored, "iou": self.overlap / seen}
        counts = {"maps": self.maps, "blank": self.blank, "no_region": self.no_region}
        return {name: 100 * value for name, value in means.items()} | counts


def _check(maps: Tensor, regions: Tensor) -> None:
    for name, value in (("maps", maps), ("regions", regions)):
        check_tensor(name, value)
    if not maps.is_floating_point():
        raise TypeError(f"maps must be floating point, got {maps.dtype}.")
    if regions.dtype != torch.bool:
        raise TypeError(f"regions must be bool, got {regions.dtype}.")
    if maps.ndim != 3 or maps.shape != regions.shape:
        shapes = f"{tuple(maps.shape)} and {tuple(regions.shape)}"
        raise ValueError(f"maps and regions must have one shape [B, H, W], got {shapes}.")
    if not (maps.isfinite() & (maps >= 0)).all():
        raise ValueError("maps must be finite and not negative; take their positive part first.")

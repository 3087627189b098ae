"""Paints the places of BirdScenes that are nothing but water and sky."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from datamodules.scenes.brush import Brush, Ground
from datamodules.scenes.outdoors import hills, pine, sky


def _surface(brush: Brush, horizon: float, upper: str, lower: str, light: str, ripples: int) -> Ground:
    brush.band(horizon, 1, brush.shade(upper), brush.shade(lower))
    for _ in range(ripples):
        y = brush.rng.uniform(horizon + 0.03, 0.99)
        x, width = brush.rng.random(), brush.rng.uniform(0.04, 0.2) * (y - horizon + 0.3)
        brush.line([(x, y), (x + width, y)], brush.shade(light))
    return Ground(horizon, 1)


def _ocean(brush: Brush) -> Ground:
    horizon = brush.rng.uniform(0.25, 0.42)
    sky(brush, horizon)
    ground = _surface(brush, horizon, "#2f7fae", "#5fb4cf", "#cfeaf1", brush.rng.randint(10, 20))
    for _ in range(brush.rng.randint(1, 3)):
        y = brush.rng.uniform(horizon + 0.1, 0.95)
        crest = [(step / 8, y + brush.rng.uniform(-0.012, 0.012)) for step in range(9)]
        brush.line(crest, "#f2fbfd", 0.015)
    return ground


def _open_lake(brush: Brush) -> Ground:
    horizon = brush.rng.uniform(0.28, 0.4)
    sky(brush, horizon)
    hills(brush, horizon, "#7fae7a")
    for _ in range(brush.rng.randint(3, 7)):
        pine(brush, brush.rng.random(), horizon + 0.01, brush.rng.uniform(0.06, 0.12), brush.shade("#4c7d56"))
    return _surface(brush, horizon, "#5fa9d0", "#8fcfe6", "#c4e7f2", brush.rng.randint(8, 14))


def _pond(brush: Brush) -> Ground:
    horizon = brush.rng.uniform(0.2, 0.34)
    sky(brush, horizon)
    brush.band(horizon - 0.06, horizon, brush.shade("#86a86c"), brush.shade("#7da05f"))
    ground = _surface(brush, horizon, "#5d9aa8", "#7fb9bd", "#b9dcda", brush.rng.randint(5, 10))
    for _ in range(brush.rng.randint(2, 6)):
        x, y = brush.rng.random(), brush.rng.uniform(horizon + 0.08, 0.97)
        brush.oval(x, y, 0.05, 0.018, brush.shade("#6fa35a"))
    return ground


WATERS: Mapping[str, Callable[[Brush], Ground]] = {"ocean": _ocean, "open lake": _open_lake, "pond": _pond}

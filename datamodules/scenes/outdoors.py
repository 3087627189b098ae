"""Paints the outdoor places of Scenes; nothing in them looks like one of COCO's 80 classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from datamodules.scenes.brush import Brush, Colour, Ground

_DAY_SKIES = (("#7ec4ee", "#d9f0fb"), ("#9fd3f2", "#f3f8fa"), ("#6fb1e0", "#cfe6f2"), ("#f6b98b", "#fde6c8"))


def sky(brush: Brush, horizon: float) -> None:
    """Paint a sky down to the horizon, perhaps with sun and clouds."""
    upper, lower = brush.rng.choice(_DAY_SKIES)
    brush.band(0, horizon, brush.shade(upper), brush.shade(lower, 8))
    if brush.rng.random() < 0.3:
        brush.oval(brush.rng.uniform(0.1, 0.9), brush.rng.uniform(0.06, 0.16), 0.06, 0.06, "#fff3b8")
    for _ in range(brush.rng.randint(0, 3)):
        _cloud(brush, brush.rng.random(), brush.rng.uniform(0.06, horizon * 0.6))


def _cloud(brush: Brush, x: float, y: float) -> None:
    for step in range(-1, 2):
        brush.oval(x + 0.06 * step, y, 0.07, 0.045 - 0.015 * abs(step), "#ffffff")


def hills(brush: Brush, horizon: float, colour: str) -> None:
    """Paint hills on the horizon."""
    for _ in range(brush.rng.randint(2, 3)):
        height = brush.rng.uniform(0.05, 0.13)
        brush.oval(brush.rng.random(), horizon, brush.rng.uniform(0.3, 0.5), height, brush.shade(colour))


def _peaks(brush: Brush, horizon: float, colour: str, height: float) -> None:
    for _ in range(brush.rng.randint(2, 4)):
        x, top, half = brush.rng.random(), horizon - brush.rng.uniform(0.6, 1) * height, brush.rng.uniform(0.2, 0.35)
        brush.shape([(x - half, horizon), (x, top), (x + half, horizon)], brush.shade(colour))
        cap = 0.28
        left, right, low = x - cap * half, x + cap * half, top + cap * (horizon - top)
        brush.shape([(left, low), (x, top), (right, low), (x, low - 0.02)], "#f7fafc")


def _round_tree(brush: Brush, x: float, foot: float, size: float) -> None:
    brush.box(x - 0.012, foot - 0.5 * size, x + 0.012, foot, "#7a5a3c")
    colour = brush.shade("#5f9a4c")
    brush.oval(x, foot - 0.75 * size, 0.33 * size, 0.4 * size, colour)


def pine(brush: Brush, x: float, foot: float, size: float, colour: Colour) -> None:
    """Paint a pine whose trunk stands at (x, foot), `size` high."""
    brush.box(x - 0.01, foot - 0.2 * size, x + 0.01, foot, "#6b4b34")
    for level in (0.15, 0.45):
        half = 0.3 * size * (1 - level)
        low = foot - level * size
        brush.shape([(x - half, low), (x, low - 0.55 * size), (x + half, low)], colour)


def _dots(brush: Brush, horizon: float, colours: tuple[str, ...], count: int) -> None:
    for _ in range(count):
        x, y = brush.rng.random(), brush.rng.uniform(horizon + 0.05, 1)
        brush.oval(x, y, 0.008, 0.008, brush.rng.choice(colours))


def _park(brush: Brush) -> Ground:
    horizon = brush.rng.uniform(0.36, 0.48)
    sky(brush, horizon)
    hills(brush, horizon, "#8fbf6a")
    for _ in range(brush.rng.randint(2, 4)):
        _round_tree(brush, brush.rng.random(), horizon + 0.02, brush.rng.uniform(0.16, 0.26))
    brush.band(horizon, 1, brush.shade("#9ccb6b"), brush.shade("#7db555"))
    if brush.rng.random() < 0.4:
        x = brush.rng.random()
        brush.shape([(x - 0.02, horizon), (x + 0.03, horizon), (x + 0.25, 1), (x - 0.1, 1)], brush.shade("#dfcfa6"))
    _dots(brush, horizon, ("#ffffff", "#f7d94c", "#a6d676"), brush.rng.randint(5, 18))
    return Ground(horizon, horizon)


def _beach(brush: Brush) -> Ground:
    horizon = brush.rng.uniform(0.26, 0.36)
    shore = horizon + brush.rng.uniform(0.14, 0.24)
    sky(brush, horizon)
    brush.band(horizon, shore, brush.shade("#3f9ac4"), brush.shade("#8fd3dc"))
    for _ in range(5):
        x, y = brush.rng.random(), brush.rng.uniform(horizon + 0.02, shore - 0.03)
        brush.line([(x, y), (x + 0.1, y)], "#d4eef3")
    brush.band(shore, 1, brush.shade("#f3dfae", 8), brush.shade("#e3c587"))
    waves = [(step / 10, shore + brush.rng.uniform(-0.012, 0.012)) for step in range(11)]
    brush.line(waves, "#ffffff", 0.025)
    _dots(brush, shore, ("#cfae72", "#fff6df"), brush.rng.randint(6, 20))
    return Ground(horizon, shore)


def _houses(brush: Brush, foot: float, colours: tuple[str, ...], windows: tuple[str, ...]) -> None:
    left = -brush.rng.uniform(0, 0.1)
    while left < 1:
        width, top = brush.rng.uniform(0.16, 0.28), brush.rng.uniform(0.06, foot - 0.18)
        brush.box(left, top, left + width, foot, brush.shade(brush.rng.choice(colours)))
        for row in range(int((foot - top - 0.04) / 0.09)):
            for column in range(int((width - 0.03) / 0.07)):
                x, y = left + 0.03 + 0.07 * column, top + 0.04 + 0.09 * row
                brush.box(x, y, x + 0.035, y + 0.045, brush.rng.choice(windows))
        left += width + brush.rng.choice((0.0, 0.0, 0.05))


def _road(brush: Brush, top: float, asphalt: str, mark: str) -> None:
    brush.band(top, 1, brush.shade(asphalt, 8), brush.shade(asphalt, 8))
    start = -brush.rng.uniform(0, 0.2)
    middle = (top + 1) / 2
    for step in range(6):
        brush.box(start + 0.22 * step, middle, start + 0.22 * step + 0.12, middle + 0.02, mark)


def _street(brush: Brush) -> Ground:
    foot = brush.rng.uniform(0.42, 0.5)
    sky(brush, foot)
    _houses(brush, foot, ("#d99a78", "#e3c8a0", "#b9c4cc", "#c98b86", "#a9bda4", "#e0d6c6"), ("#f4fbff", "#bcd8e6"))
    brush.band(foot, foot + 0.1, brush.shade("#cfcac2", 8), brush.shade("#bdb8b0", 8))
    _road(brush, foot + 0.1, "#8d9095", "#f2efe4")
    return Ground(foot, foot)


def _night_street(brush: Brush) -> Ground:
    foot = brush.rng.uniform(0.42, 0.5)
    brush.band(0, foot, brush.shade("#141c3c", 8), brush.shade("#3a4474", 8))
    _dots(brush, -0.05, ("#f6f3d0",), 12)
    brush.oval(brush.rng.uniform(0.1, 0.9), 0.1, 0.05, 0.05, "#f5efc9")
    _houses(brush, foot, ("#2f365c", "#3b3b5e", "#273457", "#45395c"), ("#ffe08a", "#ffd166", "#39406a"))
    brush.band(foot, foot + 0.1, brush.shade("#5a5d75", 6), brush.shade("#4c4f66", 6))
    _road(brush, foot + 0.1, "#4a4e66", "#b9b48f")
    return Ground(foot, foot)


def _savanna(brush: Brush) -> Ground:
    horizon = brush.rng.uniform(0.36, 0.46)
    sky(brush, horizon)
    hills(brush, horizon, "#b9a869")
    for _ in range(brush.rng.randint(1, 3)):
        x, size = brush.rng.random(), brush.rng.uniform(0.16, 0.24)
        brush.line([(x, horizon + 0.02), (x + 0.02, horizon - 0.6 * size)], "#6b5233", 0.018)
        brush.oval(x + 0.02, horizon - 0.7 * size, 0.75 * size, 0.17 * size, brush.shade("#7f9448"))
    brush.band(horizon, 1, brush.shade("#e2c878"), brush.shade("#cfa955"))
    for _ in range(brush.rng.randint(8, 16)):
        x, y = brush.rng.random(), brush.rng.uniform(horizon + 0.05, 1)
        brush.line([(x, y), (x + 0.012, y - 0.035)], "#b38f41")
    return Ground(horizon, horizon)


def _desert(brush: Brush) -> Ground:
    horizon = brush.rng.uniform(0.36, 0.46)
    sky(brush, horizon)
    for _ in range(brush.rng.randint(1, 2)):
        x, half, top = brush.rng.random(), brush.rng.uniform(0.1, 0.18), horizon - brush.rng.uniform(0.1, 0.18)
        mesa = [(x - half, horizon), (x - 0.7 * half, top), (x + 0.7 * half, top), (x + half, horizon)]
        brush.shape(mesa, brush.shade("#c87f5a"))
    brush.band(horizon, 1, brush.shade("#f0c98e"), brush.shade("#dca566"))
    for _ in range(3):
        y = brush.rng.uniform(horizon + 0.1, 1)
        brush.oval(brush.rng.random(), y + 0.1, 0.4, 0.1, brush.shade("#e5b678", 8))
    if brush.rng.random() < 0.5:
        brush.band(horizon + 0.3, horizon + 0.42, brush.shade("#a59a90", 8), brush.shade("#988d84", 8))
    return Ground(horizon, horizon)


def _lake(brush: Brush) -> Ground:
    horizon = brush.rng.uniform(0.32, 0.4)
    sky(brush, horizon)
    _peaks(brush, horizon, "#8ea3b5", 0.2) if brush.rng.random() < 0.6 else hills(brush, horizon, "#7fae7a")
    for _ in range(brush.rng.randint(3, 6)):
        pine(brush, brush.rng.random(), horizon + 0.01, brush.rng.uniform(0.08, 0.14), brush.shade("#4c7d56"))
    shore = brush.rng.uniform(0.56, 0.66)
    brush.band(horizon, shore, brush.shade("#5fa9d0"), brush.shade("#8fcfe6"))
    for _ in range(8):
        x, y = brush.rng.random(), brush.rng.uniform(horizon + 0.04, shore - 0.03)
        brush.line([(x, y), (x + brush.rng.uniform(0.05, 0.14), y)], "#c4e7f2")
    brush.band(shore, 1, brush.shade("#b6cf86"), brush.shade("#8fb864"))
    return Ground(horizon, shore)


def _snow(brush: Brush) -> Ground:
    horizon = brush.rng.uniform(0.34, 0.46)
    brush.band(0, horizon, brush.shade("#a9c9e6"), brush.shade("#e3eef6", 8))
    _peaks(brush, horizon, "#93a8bf", 0.26)
    for _ in range(brush.rng.randint(3, 6)):
        pine(brush, brush.rng.random(), horizon + 0.03, brush.rng.uniform(0.12, 0.2), brush.shade("#557f73"))
    brush.band(horizon, 1, brush.shade("#f4f8fc", 5), brush.shade("#dbe8f3", 8))
    for _ in range(3):
        y = brush.rng.uniform(horizon + 0.1, 1)
        brush.oval(brush.rng.random(), y + 0.08, 0.35, 0.08, brush.shade("#eaf2f9", 5))
    return Ground(horizon, horizon)


def _forest(brush: Brush) -> Ground:
    horizon = brush.rng.uniform(0.4, 0.5)
    brush.band(0, horizon, brush.shade("#5b8a5a"), brush.shade("#8db47c"))
    for _ in range(brush.rng.randint(6, 9)):
        x, half = brush.rng.random(), brush.rng.uniform(0.012, 0.028)
        brush.box(x - half, 0, x + half, horizon + 0.03, brush.shade("#6f543c"))
        brush.oval(x, brush.rng.uniform(-0.02, 0.1), 0.15, 0.1, brush.shade("#447247"))
    brush.band(horizon, 1, brush.shade("#8fa35f"), brush.shade("#7c7a46"))
    _dots(brush, horizon, ("#c2803e", "#a86b35", "#a9bd6c"), brush.rng.randint(8, 20))
    return Ground(horizon, horizon)


def _farm(brush: Brush) -> Ground:
    horizon = brush.rng.uniform(0.38, 0.46)
    sky(brush, horizon)
    hills(brush, horizon, "#9cc177")
    x, colour = brush.rng.uniform(0.1, 0.8), brush.shade("#b5483c")
    brush.box(x, horizon - 0.14, x + 0.22, horizon + 0.02, colour)
    brush.shape([(x - 0.02, horizon - 0.14), (x + 0.11, horizon - 0.24), (x + 0.24, horizon - 0.14)], "#7d5a50")
    brush.box(x + 0.07, horizon - 0.09, x + 0.15, horizon + 0.02, "#f3e7d8")
    brush.band(horizon, 1, brush.shade("#b5cf6f"), brush.shade("#94b858"))
    for step in range(9):
        brush.box(0.125 * step - 0.008, horizon, 0.125 * step + 0.008, horizon + 0.09, "#f5efe2")
    brush.box(0, horizon + 0.02, 1, horizon + 0.035, "#f5efe2")
    brush.box(0, horizon + 0.055, 1, horizon + 0.07, "#f5efe2")
    return Ground(horizon, horizon + 0.04)


def _mountains(brush: Brush) -> Ground:
    horizon = brush.rng.uniform(0.4, 0.5)
    sky(brush, horizon)
    _peaks(brush, horizon, brush.rng.choice(("#8b9bb0", "#a3968f", "#7f93a8")), 0.36)
    hills(brush, horizon, "#86a86c")
    brush.band(horizon, 1, brush.shade("#a9cc7c"), brush.shade("#86ad5b"))
    _dots(brush, horizon, ("#ffffff", "#c9a0dc", "#f2d06b"), brush.rng.randint(8, 22))
    return Ground(horizon, horizon)


OUTDOORS: Mapping[str, Callable[[Brush], Ground]] = {
    "park": _park,
    "beach": _beach,
    "street": _street,
    "night street": _night_street,
    "savanna": _savanna,
    "desert": _desert,
    "lake": _lake,
    "snow": _snow,
    "forest": _forest,
    "farm": _farm,
    "mountains": _mountains,
}

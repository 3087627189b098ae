"""Paints the indoor places of Scenes; nothing in them looks like one of COCO's 80 classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from datamodules.scenes.brush import Brush, Ground

_WALLS = ("#f0e2c8", "#dbe7e4", "#e7d3d3", "#d5dcec", "#e4ead0", "#f3e9dc", "#cfdfd0")


def _window(brush: Brush, x: float, y: float, width: float, height: float) -> None:
    brush.box(x - 0.015, y - 0.015, x + width + 0.015, y + height + 0.015, "#ffffff")
    brush.box(x, y, x + width, y + height, brush.shade("#bfe1f3"))
    brush.box(x + width / 2 - 0.006, y, x + width / 2 + 0.006, y + height, "#ffffff")


def _room(brush: Brush, colours: tuple[str, ...]) -> float:
    """Paint a wall and a floor with boards."""
    floor = brush.rng.uniform(0.46, 0.56)
    colour = brush.rng.choice(colours)
    brush.band(0, floor, brush.shade(colour, 8), brush.shade(colour, 8))
    wood = brush.rng.choice(("#c99f73", "#b98a5e", "#d8b78e", "#a9a39a"))
    brush.band(floor, 1, brush.shade(wood, 8), brush.shade(wood, 8))
    for step in range(1, 5):
        y = floor + (1 - floor) * step / 5
        brush.line([(0, y), (1, y)], brush.shade(wood, 4), 0.006)
    brush.box(0, floor - 0.02, 1, floor, "#fbf7f0")
    return floor


def _frames(brush: Brush) -> None:
    for _ in range(brush.rng.randint(1, 2)):
        x, y = brush.rng.uniform(0.04, 0.8), brush.rng.uniform(0.06, 0.16)
        brush.box(x, y, x + 0.16, y + 0.13, "#8a6a4d")
        brush.box(x + 0.015, y + 0.015, x + 0.145, y + 0.115, brush.shade("#f4efe6", 6))
        brush.oval(x + 0.08, y + 0.075, 0.04, 0.025, brush.shade("#9cb8a0", 30))


def _rug(brush: Brush, floor: float) -> None:
    x, colour = brush.rng.uniform(0.35, 0.65), brush.rng.choice(("#c9796f", "#7f9fc0", "#a8bf8f", "#cdb48a"))
    y = (floor + 1) / 2 + 0.05
    brush.oval(x, y, 0.42, 0.16, brush.shade(colour))
    brush.oval(x, y, 0.34, 0.12, brush.shade(colour))


def _kitchen(brush: Brush) -> Ground:
    counter = brush.rng.uniform(0.46, 0.56)
    tile = brush.rng.choice(("#e9f0ee", "#f2ead9", "#dde9f0", "#f0dfd6"))
    brush.band(0, counter, brush.shade(tile, 6), brush.shade(tile, 6))
    for step in range(1, 8):
        brush.line([(step / 8, 0), (step / 8, counter)], "#cfd6d2", 0.006)
        brush.line([(0, counter * step / 5), (1, counter * step / 5)], "#cfd6d2", 0.006)
    _window(brush, brush.rng.uniform(0.1, 0.6), 0.08, 0.28, 0.22)
    top = brush.rng.choice(("#c8a27a", "#b8b2aa", "#d9c4a5", "#a78260"))
    brush.band(counter, 1, brush.shade(top, 8), brush.shade(top, 8))
    brush.box(0, counter, 1, counter + 0.02, brush.shade("#8d6f52"))
    return Ground(counter, counter)


def _living_room(brush: Brush) -> Ground:
    floor = _room(brush, _WALLS)
    if brush.rng.random() < 0.5:
        _window(brush, brush.rng.uniform(0.1, 0.6), 0.08, 0.26, 0.24)
    else:
        _frames(brush)
    _rug(brush, floor)
    return Ground(floor, floor)


def _bedroom(brush: Brush) -> Ground:
    floor = _room(brush, ("#d9d3ea", "#cfe0ee", "#efd9de", "#dfe8d4"))
    stripe = brush.shade("#ffffff", 4)
    for step in range(10):
        brush.box(0.1 * step + 0.03, 0, 0.1 * step + 0.04, floor - 0.02, stripe)
    x = brush.rng.uniform(0.15, 0.55)
    _window(brush, x, 0.08, 0.26, 0.24)
    curtain = brush.shade("#c58f9a", 25)
    for left in (x - 0.08, x + 0.25):
        brush.box(left, 0.05, left + 0.09, 0.38, curtain)
    if brush.rng.random() < 0.6:
        _rug(brush, floor)
    return Ground(floor, floor)


def _office(brush: Brush) -> Ground:
    top = brush.rng.uniform(0.46, 0.56)
    colour = brush.rng.choice(("#dfe4e8", "#e8e4da", "#d3dee6"))
    brush.band(0, top, brush.shade(colour, 8), brush.shade(colour, 8))
    x = brush.rng.uniform(0.05, 0.5)
    brush.box(x, 0.06, x + 0.42, 0.34, brush.shade("#b8d8ea"))
    for step in range(7):
        brush.box(x, 0.06 + 0.04 * step, x + 0.42, 0.075 + 0.04 * step, "#f7f7f4")
    wood = brush.rng.choice(("#d7b98d", "#b99469", "#ece7df", "#9b8573"))
    brush.band(top, 1, brush.shade(wood, 8), brush.shade(wood, 8))
    brush.box(0, top, 1, top + 0.015, brush.shade("#8c7358"))
    return Ground(top, top)


def _bathroom(brush: Brush) -> Ground:
    floor = brush.rng.uniform(0.48, 0.58)
    tile = brush.rng.choice(("#cfe8ea", "#dfeaf5", "#e2efe0", "#f1e6ee"))
    brush.band(0, floor, brush.shade(tile, 6), brush.shade(tile, 6))
    brush.band(floor, 1, brush.shade("#c3cdd2", 10), brush.shade("#aebac0", 10))
    for step in range(1, 8):
        brush.line([(step / 8, 0), (step / 8, floor)], "#ffffff", 0.008)
        brush.line([(0, floor * step / 6), (1, floor * step / 6)], "#ffffff", 0.008)
        brush.line([(step / 8, floor), (1.6 * step / 8 - 0.3, 1)], "#97a4ab", 0.006)
    x = brush.rng.uniform(0.1, 0.6)
    brush.oval(x + 0.14, 0.2, 0.14, 0.13, "#ffffff")
    brush.oval(x + 0.14, 0.2, 0.12, 0.11, brush.shade("#b9dbe6", 8))
    return Ground(floor, floor)


def _cafe(brush: Brush) -> Ground:
    top = brush.rng.uniform(0.46, 0.56)
    wall = brush.rng.choice(("#8a5a44", "#5f6f65", "#7a4b4b", "#6b5b7a"))
    brush.band(0, top, brush.shade(wall, 10), brush.shade(wall, 10))
    for _ in range(brush.rng.randint(2, 3)):
        x, low = brush.rng.random(), brush.rng.uniform(0.12, 0.22)
        brush.line([(x, 0), (x, low)], "#2b2320", 0.008)
        brush.shape([(x - 0.06, low + 0.05), (x - 0.02, low), (x + 0.02, low), (x + 0.06, low + 0.05)], "#e9b44c")
    x = brush.rng.uniform(0.1, 0.6)
    brush.box(x, 0.26, x + 0.28, 0.42, "#2f3b37")
    for step in range(3):
        brush.line([(x + 0.04, 0.3 + 0.04 * step), (x + 0.2, 0.3 + 0.04 * step)], "#d9e2dc", 0.008)
    wood = brush.rng.choice(("#c89b6a", "#a87b52", "#dbb98c"))
    brush.band(top, 1, brush.shade(wood, 8), brush.shade(wood, 8))
    return Ground(top, top)


INDOORS: Mapping[str, Callable[[Brush], Ground]] = {
    "kitchen": _kitchen,
    "living room": _living_room,
    "bedroom": _bedroom,
    "office": _office,
    "bathroom": _bathroom,
    "cafe": _cafe,
}

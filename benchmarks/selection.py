"""Selection of removable classes against one numpy mask per class: same removals first, then seconds.

`python benchmarks/selection.py` draws 118,287 images with 860,001 boxes, on whole pixels so that masks are exact too.
The masks are painted for an even sample of 1,000 images, where both sides must give the same removals; their time for
all images is extrapolated from it, and said to be. `--scale 0.1` is a quick look.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datamodules.tables import Tables
from synth.selection import Removal, SelectionConfig, select

IMAGES, OBJECTS, CLASSES, SAMPLE, ROUNDS = 118_287, 860_001, 80, 1_000, 3
SIZES = np.array([(640, 480), (480, 640), (640, 427), (500, 375)])

Outcome: TypeAlias = dict[int, tuple[frozenset[int], frozenset[int]]]
"""Of each class that can be removed: the removed and the kept classes."""


def draw(folder: Path, scale: float) -> Tables:
    """Write images with 1 to 90 boxes of a few classes, skewed like COCO's."""
    rng = np.random.default_rng(0)
    images, objects = int(IMAGES * scale), int(OBJECTS * scale)
    busy = rng.gamma(0.9, size=images) + 0.05
    owners = np.sort(np.concatenate([np.arange(images), rng.choice(images, objects - images, p=busy / busy.sum())]))
    sizes = SIZES[rng.integers(len(SIZES), size=images)]
    kinds = np.minimum(rng.zipf(1.4, (images, 6)), CLASSES) - 1  # the classes of an image, repeats among them
    categories = kinds[owners, np.minimum(rng.geometric(0.4, objects) - 1, 5)]
    limits = sizes[owners]
    sides = np.clip((limits * rng.beta(0.6, 2.5, (objects, 2))).astype(int), 4, limits)
    corners = (rng.random((objects, 2)) * (limits - sides + 1)).astype(int)
    return Tables.write(
        folder / "tables",
        images={
            "image_id": np.arange(images),
            "file": [""] * images,
            "split": np.zeros(images, np.int16),
            "width": sizes[:, 0],
            "height": sizes[:, 1],
        },
        captions={"caption_id": [], "image": [], "text": []},
        objects={
            "image": owners,
            "category": categories,
            "box": np.concatenate([corners, sides], axis=1),
            "crowd": np.zeros(objects, np.uint8),
            "segmentation": [""] * objects,
        },
        class_names=[f"class {number}" for number in range(CLASSES)],
        splits=["train"],
        fingerprint="drawn",
    )


def ours(tables: Tables, rows: NDArray[np.int64]) -> list[Outcome]:
    """Return what `synth.selection` finds."""
    found = select(tables, rows, SelectionConfig())
    return [{r.candidate: (r.removed, r.kept) for r in image if isinstance(r, Removal)} for image in found]


def by_masks(tables: Tables, rows: NDArray[np.int64], alpha1: float, alpha2: float, alpha3: float) -> list[Outcome]:
    """Return the same, the straightforward way: paint a mask per class, compare the masks pair by pair."""
    outcomes = []
    for row in rows:
        objects = slice(tables.object_offsets[row], tables.object_offsets[row + 1])
        size = (tables.heights[row], tables.widths[row])
        masks: dict[int, NDArray[np.bool_]] = {}
        for category, (x, y, w, h) in zip(tables.categories[objects], tables.boxes[objects].astype(int), strict=True):
            masks.setdefault(int(category), np.zeros(size, dtype=bool))[y : y + h, x : x + w] = True
        areas = {category: mask.sum() for category, mask in masks.items()}
        outcome: Outcome = {}
        for candidate, mask in masks.items():
            shares = {s: (mask & other).sum() / areas[s] for s, other in masks.items()}
            removed = {s for s, share in shares.items() if s == candidate or share > alpha2}
            kept = masks.keys() - removed
            region = np.any([masks[s] for s in removed], axis=0)
            clear = all(max(shares[s], (region & masks[s]).sum() / areas[s]) < alpha1 for s in kept)
            if kept and clear and region.mean() < alpha3:
                outcome[candidate] = (frozenset(removed), frozenset(kept))
        outcomes.append(outcome)
    return outcomes


def main() -> None:
    """Compare the removals of the sample, then print seconds for all images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="share of the images and boxes")
    scale = parser.parse_args().scale
    with tempfile.TemporaryDirectory() as folder:
        tables = draw(Path(folder), scale)
        every = np.arange(len(tables))
        sample = every[:: max(1, len(every) // SAMPLE)][:SAMPLE]
        config = SelectionConfig()
        start = time.perf_counter()
        masks = by_masks(tables, sample, config.alpha1, config.alpha2, config.alpha3)
        theirs = (time.perf_counter() - start) / len(sample) * len(every)
        assert ours(tables, sample) == masks, "the sides find other removals"
        taken = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            found = ours(tables, every)
            taken.append(time.perf_counter() - start)
    mine = sorted(taken)[ROUNDS // 2]
    most = np.diff(tables.object_offsets).max()
    print(f"{len(every):,} images, {len(tables.boxes):,} boxes (at most {most} in an image), ", end="")
    print(f"{sum(map(len, found)):,} removals; numpy {np.__version__}, Python {platform.python_version()}")
    print(f"equal removals on {len(sample):,} images")
    print(f"ours                         {mine:10.1f} s (median of {ROUNDS})")
    print(f"a mask per class             {theirs:10.1f} s (extrapolated from {len(sample):,} images)")
    print(f"ratio                        {theirs / mine:10.1f}")


if __name__ == "__main__":
    main()

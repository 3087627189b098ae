"""Birds of two colours before grounds of two colours, and models that see no more than colours."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.processor import Processor
from metrics import per_query

BIRDS = ((255, 0, 0), (0, 0, 255))  # landbirds are red, waterbirds blue
PLACES = ((100, 0, 0), (0, 0, 100))  # so are land and water, darker and larger
WORDS = {"landbird": (1, 0, 0), "waterbird": (0, 0, 1), "land": (0.9, 0.1, 0), "water": (0, 0.1, 0.9), "sky": (0, 1, 0)}
SQUARE = slice(4, 10)


def _image(label: int, place: int, sky: int) -> Image.Image:
    pixels = np.zeros((16, 16, 3), dtype=np.uint8)
    pixels[10:] = PLACES[place]
    pixels[SQUARE, SQUARE] = BIRDS[label]
    pixels[..., 1] = sky
    return Image.fromarray(pixels)


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    """Write a config whose data are 24 test images in the layout of Waterbirds, with masks; groups are alike large."""
    root, masks = tmp_path / "birds", tmp_path / "masks"
    for folder in (root, masks):
        folder.mkdir()
    mask = np.zeros((16, 16), dtype=np.uint8)
    mask[SQUARE, SQUARE] = 255
    lines = [("img_id", "img_filename", "y", "split", "place", "place_filename")]
    for number in range(24):
        label, place = number % 2, number // 2 % 2
        _image(label, place, sky=(number * 7) % 20).save(root / f"{number}.png")
        Image.fromarray(mask).save(masks / f"{number}.png")
        lines.append((number + 1, f"{number}.png", label, 2, place, "nowhere.jpg"))
    with (root / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    path = tmp_path / "birds.yaml"
    path.write_text(
        f"data: {{class_path: WaterbirdsDataModule, init_args: {{root: {root}, masks: {masks}, num_workers: 0}}}}\n"
    )
    return path


class Colours(nn.Module):
    """Embeds an image as the mean colour of what is brighter than a threshold, and a word as the colour it has."""

    device = torch.device("cpu")

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold, self.features = threshold, nn.AvgPool2d(2)
        self.processor = Processor(self._pixels, self._pixels, self._tokens)

    @staticmethod
    def _pixels(image: Any) -> Tensor:
        return 2 * torch.tensor(np.array(image)).permute(2, 0, 1) / 255 - 1

    @staticmethod
    def _tokens(texts: list[str]) -> Tensor:
        return torch.tensor([list(WORDS).index(text.split()[-1].lower()) for text in texts])

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        bright = F.relu((pixel_values + 1) / 2 - self.threshold)
        # What no word has keeps the cosine below 1, where it would have no gradient.
        return F.normalize(F.pad(self.features(bright).mean(dim=(2, 3)), (0, 1), value=0.1), dim=1)

    def encode_texts(self, tokens: Tensor) -> Tensor:
        return F.normalize(F.pad(torch.tensor(list(WORDS.values())), (0, 1))[tokens], dim=1)


@pytest.fixture
def load_colours() -> Callable[[str], Colours]:
    """Stand in for `load_model`: "before" sees grounds and birds, "after" birds alone."""
    return lambda name: Colours({"before": 0.0, "after": 0.4}[name]).eval()


class Cells:
    """Writes cells of a study as its runner does: 12 queries, 6 of two images each way, values by seed and quality.

    Args:
        root: of the study.
    """

    QUERIES, IMAGES, CAPTIONS = 12, 6, 17

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(self, model: str, row: str, seed: int, quality: float, reranked: float | None = None, **about: Any) -> Any:
        """Write one cell, and one of a model that re-ranks where the quality after that is given."""
        cell = self.cell(model, row, seed)
        folder = cell.folder(self.root)
        for prefix, level in {"": quality, "reranked-": reranked}.items():
            if level is not None:
                self._write(folder / "out" / prefix, np.random.default_rng(seed), level, about)
        record = {"device": "cpu", "versions": {"torch": "2.11"}, "protocol": "abc", "commit": "c0ffee"}
        cell.read = lambda root: {"results": "out", "record": record, "hash": f"{model}{row}{seed}"}
        (folder / "fit" / "1").mkdir(parents=True)
        (folder / "fit" / "1" / "metrics.csv").write_text("epoch,step,loss\n0,9,1\n1,19,\n")
        return cell

    @staticmethod
    def cell(model: str, row: str, seed: int) -> Any:
        """Return a cell that nobody has run."""
        name = f"{model}/{row}/seed{seed}"
        return SimpleNamespace(
            name=name,
            model=model,
            settings=SimpleNamespace(models={model: SimpleNamespace(label=model.upper())}),
            row=SimpleNamespace(name=row, label=row.title()),
            seed=seed,
            folder=lambda root: root / "cells" / name,
            read=lambda root: None,
        )

    def _write(self, stem: Path, generator: np.random.Generator, quality: float, about: dict[str, Any]) -> None:
        def path(kind: str) -> Path:
            return stem.parent / f"{stem.name}{kind}.parquet" if stem.name.endswith("-") else stem / f"{kind}.parquet"

        queries = np.arange(self.QUERIES)
        odmap = {f"ODmAP@{k}": quality - k + generator.normal(0, 4, self.QUERIES) for k in (1, 5, 10)}
        chance = {
            f"{name}/ODmAP@{k}": np.full(self.QUERIES, 20.0 / k)
            for name in ("random", "own_captions")
            for k in (1, 5, 10)
        }
        columns = {
            "query_id": 100 + queries,
            "source": queries // 2,
            "retrieved_ids": np.tile(queries[:, None] // 3, (1, 4)),
        }
        measures = [*odmap, *chance]
        per_query.write(
            path("odmap"),
            {**columns, **odmap, **chance},
            query_id="query_id",
            group="source",
            measures=measures,
            about={"gallery": 50, **about},
            fixed=["source", "gallery"],
        )
        for way, count in {"i2t": self.IMAGES, "t2i": self.CAPTIONS}.items():
            rows = np.arange(count)
            hits = {f"R@{k}": 100.0 * (generator.random(count) < quality * k / 800) for k in (1, 5, 10)}
            columns = {"query_id": rows, "image_id": rows % self.IMAGES, **hits}
            per_query.write(path(way), columns, query_id="query_id", group="image_id", measures=list(hits), about={})


@pytest.fixture
def cells(tmp_path: Path) -> Cells:
    """Return what writes cells below a folder."""
    return Cells(tmp_path / "study")

"""Birds of two colours before grounds of two colours, and models that see no more than colours."""

from __future__ import annotations

import csv
import json
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

from experiments.options import load_data
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

    def add(
        self,
        model: str,
        row: str,
        seed: int,
        quality: float,
        reranked: float | None = None,
        draw: int | None = None,
        made: dict[str, str] | None = None,
        **about: Any,
    ) -> Any:
        """Write one cell, and one of a model that re-ranks where the quality after that is given.

        Cells of one `draw`, which is the seed where it is not given, have the same queries hard and easy. `made` is
        what its record says else than usual.
        """
        cell = self.cell(model, row, seed)
        folder = cell.folder(self.root)
        for prefix, level in {"": quality, "reranked-": reranked}.items():
            if level is not None:
                self._write(
                    folder / "out" / prefix, np.random.default_rng(seed if draw is None else draw), level, about
                )
        record = {"device": "cpu", "versions": {"torch": "2.11"}, "protocol": "abc", "commit": "c0ffee", "data": "d0"}
        record |= {} if made is None else made
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


class Retrieved:
    """Dogs and lamps in a folder, 30 of them with one of the two removed, and runs that retrieved captions for these.

    Args:
        root: where to put them.
    """

    SAID = (
        ("a puppy near a lamp", "a dog"),
        ("</script><img src=x onerror=document.title='owned'> a dog & a lamp", "\N{DOG FACE} beside a lamp"),
    )
    QUERIES = 30

    def __init__(self, root: Path) -> None:
        self.root, self.config = root, root / "run.yaml"
        photos, words = root / "photos", root / "words.yaml"
        root.mkdir()
        words.write_text("classes: {dog: [puppy], lamp: []}\n")
        for split, count in {"train": 4, "test": self.QUERIES}.items():
            lines = []
            for number in range(count):
                name = f"{number} <b>.png"
                self._draw(photos / split / name, number)
                objects = {"bbox": [[0, 0, 6, 6], [6, 6, 6, 6]], "categories": ["dog", "lamp"]}
                said = {"text": list(self.SAID[number % 2]), "objects": objects}
                ids = {"image_id": (split == "test") * 2**60 + number}
                lines.append({"file_name": name} | ids | said)
            self._lines(photos / split, lines)
        chunker = "{class_path: datamodules.phrases.RuleChunker}"
        given = f"{{word_list: {words}, chunker: {chunker}}}"
        matcher = f"{{class_path: datamodules.phrases.WordListMatcher, init_args: {given}}}"
        options = f"{{root: {photos}, synthetic: {root / 'made'}, num_workers: 0, matcher: {matcher}}}"
        self.config.write_text(f"data: {{class_path: FolderDataModule, init_args: {options}}}\n")
        self._make()

    def _draw(self, path: Path, shade: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 24), (8 * shade, 90, 30)).save(path)

    def _lines(self, folder: Path, lines: list[dict[str, Any]]) -> None:
        (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def _make(self) -> None:
        self.tables = load_data(self.config).tables
        rows = self.tables.rows("test")
        lines = []
        for number, source in enumerate(self.tables.image_ids[rows].tolist()):
            roles = ("dog", "lamp") if number % 2 else ("lamp", "dog")
            self._draw(self.root / "made" / "test" / f"{number}.png", number)
            ids = {"image_id": 2**40 + number, "caption_id": -1, "source_image_id": source, "source_caption_id": -1}
            lines.append(ids | {"file_name": f"{number}.png", "text": "", "removed": roles[:1], "kept": roles[1:]})
        self._lines(self.root / "made" / "test", lines)
        (self.root / "made" / "protocol.json").write_text("{}")

    def first(self, name: str) -> Any:
        """Return whether the first caption is right for each query, 0 or 100."""
        return 100.0 * (np.random.default_rng(len(name)).random(self.QUERIES) < {"before": 0.3, "after": 0.7}[name])

    def run(self, name: str, shift: int = 0, checkpoint: str = "", cut: int = 1) -> Path:
        """Write what `train.py test` would with one cut, and return its folder."""
        number, first = np.arange(self.QUERIES), self.first(name)
        removed = [["dog"] if query % 2 else ["lamp"] for query in number]
        kept = [["lamp"] if query % 2 else ["dog"] for query in number]
        captions = self.tables.caption_ids
        columns = {
            "query_id": 2**40 + number + shift,
            "source_image_id": self.tables.image_ids[self.tables.rows("test")],
            "removed": removed,
            "kept": kept,
            "retrieved_ids": np.stack([np.roll(captions, -query)[:5] for query in number]),
            "relevant": [[right > 0] * 5 for right in first],
            f"ODmAP@{cut}": first,
            f"hallucinated@{cut}": 100 - first,
        }
        per_query.write(
            self.root / name / "odmap.parquet",
            columns,
            query_id="query_id",
            group="source_image_id",
            measures=[f"ODmAP@{cut}", f"hallucinated@{cut}"],
            fixed=["source_image_id", "removed", "kept"],
            about={"stage": "test", "gallery": len(captions), "checkpoint": checkpoint},
        )
        return self.root / name


@pytest.fixture
def retrieved(tmp_path: Path) -> Retrieved:
    """Return what writes results of runs on dogs and lamps."""
    return Retrieved(tmp_path / "retrieved")

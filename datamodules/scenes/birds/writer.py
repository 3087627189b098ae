"""Writes BirdScenes in the layout of Waterbirds, and captioned pictures of birds in Karpathy's."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image
from rich.console import Console
from rich.progress import track

from datamodules.group_table import SPLITS
from datamodules.scenes.birds.captions import bird_caption
from datamodules.scenes.birds.config import BirdCaptionsConfig, BirdScenesConfig
from datamodules.scenes.birds.picture import BirdDrawer, BirdPicture
from datamodules.scenes.folder import DrawnFolder

FORMAT_VERSION = 1
_COLUMNS = ("img_id", "img_filename", "y", "split", "place", "place_filename")


@dataclass(frozen=True)
class _Drawn:
    """A picture with its number in the data set, from 1, and its split."""

    number: int
    split: str
    bird: BirdPicture
    rng: Random


def write_bird_scenes(config: BirdScenesConfig, root: Path, *, progress: bool = True) -> None:
    """Draw a BirdScenes data set into a folder, unless it is there already.

    Below `root` appear `metadata.csv` and the images that it lists, as in Waterbirds; `segmentations` with the mask of
    each bird under the name of its image, as in CUB-200-2011; and `birds.json` (config and format version). The folder
    appears whole or not at all; the same config gives the same bytes.

    Args:
        config: what to draw.
        root: the data set's folder.
        progress: whether to show a progress bar.

    Raises:
        ConfigError: `root` holds a data set of another config, or something else.
        MissingPathError: a folder of cut-outs or backgrounds is not there.
        AnnotationError: their index is of another layout.
    """
    drawer = BirdDrawer(config)
    DrawnFolder(root, config.name, config.key).draw(
        _header(config, drawer), lambda folder: _write_scenes(drawer, config, folder, progress)
    )


def write_bird_captions(config: BirdCaptionsConfig, root: Path, *, progress: bool = True) -> None:
    """Draw captioned pictures of birds into a folder, unless they are there already.

    Below `root` appear `images/{split}/{id:012}.png`, `annotations/dataset.json` (Karpathy's format, `filepath`
    relative to `images`) and `birds.json`. No picture is one of a BirdScenes data set, whatever the seeds.

    Args:
        config: what to draw.
        root: the data set's folder.
        progress: whether to show a progress bar.

    Raises:
        ConfigError: `root` holds a data set of another config, or something else.
        MissingPathError: a folder of cut-outs or backgrounds is not there.
        AnnotationError: their index is of another layout.
    """
    drawer = BirdDrawer(config)
    DrawnFolder(root, config.name, config.key).draw(
        _header(config, drawer), lambda folder: _write_captions(drawer, config, folder, progress)
    )


def _header(config: BirdScenesConfig, drawer: BirdDrawer) -> dict[str, Any]:
    made = {"version": FORMAT_VERSION, "set": config.name, "pictures": drawer.fingerprint}
    return made | {"config": config.as_json()}


def _pictures(drawer: BirdDrawer, config: BirdScenesConfig, progress: bool) -> Iterator[_Drawn]:
    """Draw every picture of the data set, the groups of a split in random order."""
    seed = f"{config.name} {FORMAT_VERSION} {config.seed}"
    todo = []
    for split in SPLITS:
        groups = [group for group, size in enumerate(config.group_sizes(split)) for _ in range(size)]
        Random(f"{seed} {split}").shuffle(groups)
        todo += [(split, index, group) for index, group in enumerate(groups)]
    drawing = track(todo, f"Drawing {config.name}", disable=not progress, console=Console(stderr=True))
    for number, (split, index, group) in enumerate(drawing, start=1):
        rng = Random(f"{seed} {split} {index}")
        label, place = divmod(group, 2)
        yield _Drawn(number, split, drawer.draw(label, place, rng), rng)


def _write_scenes(drawer: BirdDrawer, config: BirdScenesConfig, folder: Path, progress: bool) -> None:
    folders = {
        one.name: f"{number:03}.{one.name.title().replace(' ', '_')}" for number, one in enumerate(drawer.species, 1)
    }
    for name in folders.values():
        (folder / name).mkdir(parents=True)
        (folder / "segmentations" / name).mkdir(parents=True)
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(_COLUMNS)
        for one in _pictures(drawer, config, progress):
            bird = one.bird
            name = f"{folders[bird.species.name]}/{one.number:05}.png"
            bird.picture.save(folder / name, compress_level=1)
            Image.fromarray(bird.mask).save(folder / "segmentations" / name, compress_level=1)
            split = SPLITS.index(one.split)
            rows.writerow((one.number, name, bird.species.kind, split, bird.place_kind, bird.place))


def _write_captions(drawer: BirdDrawer, config: BirdCaptionsConfig, folder: Path, progress: bool) -> None:
    entries: list[dict[str, Any]] = []
    for split in SPLITS:
        (folder / "images" / split).mkdir(parents=True)
    for one in _pictures(drawer, config, progress):
        name = f"{one.number:012}.png"
        one.bird.picture.save(folder / "images" / one.split / name, compress_level=1)
        texts = [bird_caption(one.bird, one.rng) for _ in range(config.captions)]
        entries.append(_entry(one, name, texts))
    (folder / "annotations").mkdir()
    content = json.dumps({"dataset": "birds", "images": entries})
    (folder / "annotations" / "dataset.json").write_text(content, encoding="utf-8")


def _entry(one: _Drawn, name: str, texts: list[str]) -> dict[str, Any]:
    first = (one.number - 1) * len(texts) + 1
    sentences = [
        {"raw": text, "tokens": re.findall(r"[a-z]+", text.lower()), "sentid": first + place, "imgid": one.number - 1}
        for place, text in enumerate(texts)
    ]
    ids = [sentence["sentid"] for sentence in sentences]
    entry = {"filepath": one.split, "filename": name, "cocoid": one.number, "imgid": one.number - 1}
    return entry | {"split": one.split, "sentids": ids, "sentences": sentences}

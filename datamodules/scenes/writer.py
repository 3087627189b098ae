"""Writes a Scenes data set to disk, in the format of COCO and of Karpathy's splits."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console
from rich.progress import track

from datamodules.scenes.config import ScenesConfig
from datamodules.scenes.cutouts import CutoutFolder, CutoutSource, OpenMoji
from datamodules.scenes.folder import DrawnFolder
from datamodules.scenes.grammar import Caption, CaptionWriter
from datamodules.scenes.picture import Scene, draw_scene
from datamodules.scenes.scene import SceneModel
from datamodules.scenes.vocabulary import vocabulary

FORMAT_VERSION = 1


class SceneDrawer:
    """Draws any picture of a data set by its split and index alone.

    Args:
        config: what the data set is made of.

    Example:
        >>> drawer = SceneDrawer(ScenesConfig(resolution=64))
        >>> scene, captions = drawer.draw("train", 0)
        >>> scene.picture.size, len(captions)
        ((64, 64), 5)
    """

    def __init__(self, config: ScenesConfig) -> None:
        self._config = config
        words = vocabulary()
        self.source: CutoutSource = (
            OpenMoji(words, config.resolution)
            if config.cutouts is None
            else CutoutFolder(Path(config.cutouts), words, config.resolution)
        )
        self.model = SceneModel.of(words, self.source.classes, config.pairs)
        self._writer = CaptionWriter(words)

    def draw(self, split: str, index: int) -> tuple[Scene, list[Caption]]:
        """Return a picture and its captions; the same ones whatever was drawn before."""
        config = self._config
        rng = Random(f"scenes {FORMAT_VERSION} {config.seed} {split} {index}")
        cast = self.model.draw(config.rho_of(split), rng)
        scene = draw_scene(cast, vocabulary(), self.source, config.resolution, rng)
        return scene, self._writer.write(scene, config.captions, rng)


def write_scenes(config: ScenesConfig, root: Path, *, progress: bool = True) -> None:
    """Draw a Scenes data set into a folder, unless it is there already.

    Below `root` appear `images/{split}/{id:012}.png`, `annotations/instances.json` (COCO's format, boxes and run
    lengths of the visible pixels), `annotations/dataset.json` (Karpathy's format, `filepath` relative to `images`),
    `annotations/mentions.json` (for each `sentid` the category ids that the caption names) and `scenes.json` (config
    and format version). The folder appears whole or not at all; the same config gives the same bytes.

    Args:
        config: what to draw.
        root: the data set's folder.
        progress: whether to show a progress bar.

    Raises:
        ConfigError: `root` holds a data set of another config, or something else.
    """
    drawer = SceneDrawer(config)
    header = {"version": FORMAT_VERSION, "objects": drawer.source.fingerprint, "config": config.as_json()}
    DrawnFolder(root, "Scenes", "scenes").draw(header, lambda folder: _write_all(drawer, config, folder, progress))


@dataclass
class _Annotations:
    """The annotation files in the making."""

    images: list[dict[str, Any]] = field(default_factory=list)
    objects: list[dict[str, Any]] = field(default_factory=list)
    entries: list[dict[str, Any]] = field(default_factory=list)
    mentions: dict[int, list[int]] = field(default_factory=dict)

    def add(self, image_id: int, split: str, scene: Scene, captions: list[Caption]) -> str:
        """Note one picture and return its file name."""
        name, side = f"{image_id:012}.png", scene.picture.width
        self.images.append({"id": image_id, "file_name": name, "width": side, "height": side})
        self._add_objects(image_id, scene)
        sentences = list(self._sentences(captions))
        entry = {
            "filepath": split,
            "filename": name,
            "cocoid": image_id,
            "imgid": len(self.entries),
            "split": split,
            "sentids": [sentence["sentid"] for sentence in sentences],
            "sentences": sentences,
        }
        self.entries.append(entry)
        return name

    def _add_objects(self, image_id: int, scene: Scene) -> None:
        classes = vocabulary().classes
        for one in scene.objects:
            annotation = {
                "id": len(self.objects) + 1,
                "image_id": image_id,
                "category_id": classes[one.name].category_id,
                "bbox": list(one.box),
                "area": int(one.mask.sum()),
                "iscrowd": 0,
                "segmentation": {"size": list(one.mask.shape), "counts": one.run_lengths()},
            }
            self.objects.append(annotation)

    def _sentences(self, captions: list[Caption]) -> Iterator[dict[str, Any]]:
        classes = vocabulary().classes
        for caption in captions:
            sentid = len(self.mentions) + 1
            self.mentions[sentid] = sorted(classes[name].category_id for name in caption.classes)
            tokens = re.findall(r"[a-z0-9]+", caption.text.lower())
            yield {"raw": caption.text, "tokens": tokens, "sentid": sentid, "imgid": len(self.entries)}

    def write(self, folder: Path) -> None:
        """Write the three annotation files."""
        categories = [
            {"id": entry.category_id, "name": entry.name, "supercategory": entry.group}
            for entry in vocabulary().classes.values()
        ]
        instances = {"images": self.images, "annotations": self.objects, "categories": categories}
        files = {
            "instances": instances,
            "dataset": {"dataset": "scenes", "images": self.entries},
            "mentions": self.mentions,
        }
        folder.mkdir()
        for name, content in files.items():
            (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def _write_all(drawer: SceneDrawer, config: ScenesConfig, folder: Path, progress: bool) -> None:
    annotations = _Annotations()
    todo = [(split, index) for split, size in config.sizes.items() for index in range(size)]
    for split in config.sizes:
        (folder / "images" / split).mkdir(parents=True)
    drawing = track(todo, "Drawing Scenes", disable=not progress, console=Console(stderr=True))
    for image_id, (split, index) in enumerate(drawing, start=1):
        scene, captions = drawer.draw(split, index)
        name = annotations.add(image_id, split, scene, captions)
        scene.picture.save(folder / "images" / split / name, compress_level=1)
    annotations.write(folder / "annotations")

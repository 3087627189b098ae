"""What tests share: a clean Weights & Biases, and Scenes in the layouts of Flickr30k Entities and of COCO."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _no_run_of_wandb_is_left() -> Iterator[None]:
    """Close the run that a test has left open, and forget the settings that Lightning's logger leaves."""
    before = {name: value for name, value in os.environ.items() if name.startswith("WANDB_")}
    yield
    if (wandb := sys.modules.get("wandb")) and wandb.run:
        wandb.finish()
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        del os.environ[name]
    os.environ.update(before)


GROUPS = {"person": "people", "animal": "animals", "vehicle": "vehicles", "sports": "instruments"}
"""Types in place of groups of COCO's classes; those of the other groups are no class."""
TYPES = tuple(GROUPS.values())


class GroupMatcher:
    """Reads COCO's words, and names the type of each class."""

    class_names = TYPES
    version = "groups"

    def __init__(self) -> None:
        from datamodules.phrases import CocoMatcher, RuleChunker
        from datamodules.scenes.vocabulary import vocabulary

        self._matcher = CocoMatcher(RuleChunker())
        types = {entry.name: GROUPS.get(entry.group) for entry in vocabulary().classes.values()}
        self._types = [types.get(name) for name in self._matcher.class_names]

    def phrases(self, captions: Sequence[str]) -> list[list[Any]]:
        found = self._matcher.phrases(captions)
        return [[phrase._replace(classes=self._grouped(phrase.classes)) for phrase in one] for one in found]

    def mentions(self, captions: Sequence[str]) -> Any:
        named = np.zeros((len(captions), len(TYPES)), bool)
        for row, phrases in zip(named, self.phrases(captions), strict=True):
            row[[index for phrase in phrases for index in phrase.classes]] = True
        return named

    def _grouped(self, classes: frozenset[int]) -> frozenset[int]:
        return frozenset(TYPES.index(self._types[index]) for index in classes if self._types[index])


@dataclass(frozen=True)
class TwoLayouts:
    """One data set in COCO's layout and in that of Flickr30k Entities, with the same ids."""

    root: Path
    matcher: GroupMatcher

    @property
    def scenes(self) -> dict[str, Any]:
        """Karpathy's file of the Scenes that both come from."""
        found: dict[str, Any] = json.loads((self.root / "scenes" / "annotations" / "dataset.json").read_text())
        return found

    @property
    def coco(self) -> dict[str, Any]:
        """Arguments of CocoDataModule."""
        annotations = self.root / "scenes" / "annotations"
        return {
            "image_root": str(self.root / "scenes" / "images"),
            "karpathy": str(annotations / "dataset.json"),
            "instances": [str(self.root / "grouped.json")],
            "matcher": self.matcher,
        }

    @property
    def flickr(self) -> dict[str, Any]:
        """Arguments of Flickr30kDataModule."""
        return {
            "image_root": str(self.root / "flickr30k_images"),
            "karpathy": str(self.root / "dataset_flickr30k.json"),
            "entities": str(self.root / "entities"),
        }


def _bracketed(text: str, phrases: Sequence[Any], chains: Sequence[int], types: Sequence[str]) -> str:
    """Return a line of Sentences/NAME.txt."""
    parts, last = [], 0
    for phrase, chain, name in zip(phrases, chains, types, strict=True):
        words = text[phrase.start : phrase.end]
        parts.append(f"{text[last : phrase.start]}[/EN#{chain}/{name} {words}]")
        last = phrase.end
    return "".join(parts) + text[last:]


def _types(classes: frozenset[int], number: int) -> str:
    """Return the types of a phrase; what is no class is annotated in one of several ways, or not at all."""
    if classes:
        return "/".join(["clothing"] * (number % 3 == 0) + [TYPES[index] for index in sorted(classes)])
    return ("other", "scene", "notvisual")[number % 3]


def _objects(boxes: Sequence[tuple[str, list[int]]], chains: dict[int, str]) -> Iterator[str]:
    """Give the xml of the boxes, each with all chains of its type, and of the chains that have none."""
    single = {chain: name.removeprefix("clothing/") for chain, name in chains.items()}
    for kind, (x, y, width, height) in boxes:
        names = "".join(f"<name>{chain}</name>" for chain, name in single.items() if name == kind)
        sides = {"xmin": x + 1, "ymin": y + 1, "xmax": x + width, "ymax": y + height}
        corners = "".join(f"\n\t\t\t<{side}>{value}</{side}>" for side, value in sides.items())
        yield f"\t<object>\n\t\t{names}\n\t\t<bndbox>{corners}\n\t\t</bndbox>\n\t</object>\n"
    for chain, name in single.items():
        if name not in {kind for kind, _ in boxes}:
            scene = int(name == "scene")
            flags = f"<scene>{scene}</scene><nobndbox>{1 - scene}</nobndbox>"
            yield f"\t<object>\n\t\t<name>{chain}</name>\n\t\t{flags}\n\t</object>\n"


class _Writer:
    """Writes Scenes anew, image by image."""

    def __init__(self, root: Path, matcher: GroupMatcher) -> None:
        from datamodules.scenes.vocabulary import vocabulary

        self._root, self._matcher = root, matcher
        self._groups = {entry.category_id: GROUPS.get(entry.group) for entry in vocabulary().classes.values()}
        instances = json.loads((root / "scenes" / "annotations" / "instances.json").read_text())
        self._sizes = {image["id"]: (image["width"], image["height"]) for image in instances["images"]}
        self._images, self._annotations = instances["images"], instances["annotations"]
        self._kept: list[dict[str, Any]] = []

    def write(self, images: list[dict[str, Any]]) -> None:
        for folder in ("flickr30k_images", "entities/Sentences", "entities/Annotations"):
            (self._root / folder).mkdir(parents=True)
        entries = [self._image(entry) for entry in images]
        (self._root / "dataset_flickr30k.json").write_text(json.dumps({"images": entries, "dataset": "flickr30k"}))
        categories = [{"id": index, "name": name} for index, name in enumerate(TYPES)]
        grouped = {"images": self._images, "annotations": self._kept, "categories": categories}
        (self._root / "grouped.json").write_text(json.dumps(grouped))

    def _image(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Write the record of one image, link its file, and return its entry in Karpathy's file."""
        number, name = entry["cocoid"], Path(entry["filename"])
        texts = [sentence["raw"] for sentence in entry["sentences"]]
        fresh, lines, chains = count(1), [], {}
        for text, phrases in zip(texts, self._matcher.phrases(texts), strict=True):
            types = [_types(phrase.classes, phrase.start + number) for phrase in phrases]
            own = [0 if kind == "notvisual" else next(fresh) for kind in types]
            chains |= {chain: kind for chain, kind in zip(own, types, strict=True) if chain}
            lines.append(_bracketed(text, phrases, own, types) + "\n")
        self._write(name, "".join(lines), self._xml(name, number, chains))
        source = self._root / "scenes" / "images" / entry["filepath"] / name
        (self._root / "flickr30k_images" / name).symlink_to(source)
        sentences = [
            {"raw": sentence["raw"].replace(".", " ."), "tokens": [], "imgid": number, "sentid": sentence["sentid"]}
            for sentence in entry["sentences"]
        ]
        return {"filename": str(name), "imgid": number, "split": entry["split"], "sentences": sentences}

    def _xml(self, name: Path, number: int, chains: dict[int, str]) -> str:
        """Return the annotation; an object that no caption names alone has no box, in either layout."""
        said = {kind.removeprefix("clothing/") for kind in chains.values()}
        own = [one for one in self._annotations if one["image_id"] == number]
        own = [one for one in own if self._groups[one["category_id"]] in said]
        for one in own:
            kind = TYPES.index(self._groups[one["category_id"]])
            self._kept.append({**one, "category_id": kind, "segmentation": []})
        boxes = [(self._groups[one["category_id"]], one["bbox"]) for one in own]
        width, height = self._sizes[number]
        size = f"\t<size>\n\t\t<width>{width}</width>\n\t\t<height>{height}</height>\n\t\t<depth>3</depth>\n\t</size>\n"
        objects = "".join(_objects(boxes, chains))
        return f"<annotation>\n\t<filename>{name}</filename>\n{size}{objects}</annotation>\n"

    def _write(self, name: Path, sentences: str, xml: str) -> None:
        (self._root / "entities" / "Sentences" / f"{name.stem}.txt").write_text(sentences, encoding="utf-8")
        (self._root / "entities" / "Annotations" / f"{name.stem}.xml").write_text(xml, encoding="utf-8")


@pytest.fixture(scope="session")
def two_layouts(tmp_path_factory: pytest.TempPathFactory) -> TwoLayouts:
    """70 Scenes in two layouts."""
    from datamodules.scenes import ScenesConfig
    from datamodules.scenes.writer import write_scenes

    layouts = TwoLayouts(tmp_path_factory.mktemp("layouts"), GroupMatcher())
    write_scenes(ScenesConfig(train=40, val=10, test=20, resolution=64), layouts.root / "scenes", progress=False)
    _Writer(layouts.root, layouts.matcher).write(layouts.scenes["images"])
    return layouts

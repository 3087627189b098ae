"""What a detection found, told from its file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Detected:
    """An instances file that `python -m synth detect` wrote.

    Attributes:
        output: the file.
        karpathy: the json with the captions of its images, None where there are none.
        folder: folder of the images.
        made_with: everything that the boxes depend on.
        images: how many images it has.
        empty: how many of them have no box.
        boxes: how many boxes each class has.
        unknown: how many boxes were dropped because of a label that is no class.
        unreadable: files that could not be read.
    """

    output: Path
    karpathy: Path | None
    folder: Path
    made_with: dict[str, Any]
    images: int
    empty: int
    boxes: Mapping[str, int]
    unknown: Mapping[str, int]
    unreadable: Sequence[str]

    @staticmethod
    def read(output: Path, karpathy: Path | None, folder: Path) -> Detected:
        """Read the file.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: it is none that this program wrote.
        """
        data = json.loads(output.read_text(encoding="utf-8"))
        info, names = data["info"], {category["id"]: category["name"] for category in data["categories"]}
        counted = Counter(names[annotation["category_id"]] for annotation in data["annotations"])
        return Detected(
            output,
            karpathy,
            folder,
            made_with=info["made_with"],
            images=len(data["images"]),
            empty=len(data["images"]) - len({annotation["image_id"] for annotation in data["annotations"]}),
            boxes=dict(counted.most_common()),
            unknown=info["unknown_labels"],
            unreadable=info["unreadable"],
        )

    def show(self) -> None:
        """Print what was found, and what a config says to use it."""
        print(f"{self.images:,} images, {sum(self.boxes.values()):,} boxes of {len(self.boxes)} classes: {self.output}")
        print(f"Most frequent: {_listed(self.boxes)}; images without a box: {self.empty:,}.")
        if self.unknown:
            print(f"Dropped, no class of that name (`renamed` can give one): {_listed(self.unknown)}.")
        if self.unreadable:
            print(f"Could not be read ({len(self.unreadable)}): {', '.join(self.unreadable)}.")
        if self.karpathy is not None:
            print(_COCO.format(self.folder, self.karpathy, self.output))
        elif any(self.folder.glob("metadata.jsonl")) or any(self.folder.glob("*/metadata.jsonl")):
            print(_FOLDER.format(self.folder, self.output))


_COCO = """For a config:
data:
  class_path: datamodules.CocoDataModule
  init_args:
    image_root: {}
    karpathy: {}
    instances: [{}]"""
_FOLDER = """For a config:
data:
  class_path: datamodules.FolderDataModule
  init_args:
    root: {}
    instances: {}"""


def _listed(counts: Mapping[str, int]) -> str:
    """Return the first counts as words.

    Example:
        >>> _listed({"dog": 1200, "cat": 3})
        'dog 1,200, cat 3'
    """
    return ", ".join(f"{name} {count:,}" for name, count in list(counts.items())[:8]) or "none"

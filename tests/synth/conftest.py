"""A tiny drawn data set with a matcher of a few words, in place of a data module."""

import json
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from datamodules.errors import UnreadableImageError
from datamodules.matched import MatchedCaptions
from datamodules.phrases import Phrase
from datamodules.tables import Tables

CLASSES = ("dog", "frisbee", "man", "cat")
SIZE = (48, 40)
BOXES = {"dog": (2, 2, 14, 12), "frisbee": (30, 4, 8, 8), "man": (20, 18, 12, 20), "cat": (2, 25, 10, 10)}
# file, split, classes of the boxes, captions
IMAGES = [
    ("a", "train", ["dog", "frisbee"], ["Two dogs chase a frisbee.", "A dog plays", "On the grass"]),
    ("b", "train", ["man", "dog", "cat"], ["A man, a dog and a cat", "The man stands near a dog"]),
    ("c", "restval", ["man", "frisbee"], ["A man throws a frisbee to someone"]),
    ("d", "train", ["man"], ["A man alone"]),
    ("e", "train", ["dog", "cat"], ["An empty lawn", "A dog"]),
    ("f", "val", ["dog", "man"], ["A man and a dog"]),
    ("g", "test", ["cat", "man"], ["Nothing to see"]),
    ("h", "test", ["cat", "frisbee", "dog"], ["A cat eyes a frisbee"]),
]


class WordMatcher:
    """Names a class wherever its word stands, with an article or number before it."""

    class_names = CLASSES
    version = "words-1"

    def phrases(self, captions):
        return [[self._phrase(found) for found in self._find(caption)] for caption in captions]

    def mentions(self, captions):
        found = np.zeros((len(captions), len(CLASSES)), dtype=bool)
        for row, phrases in zip(found, self.phrases(captions), strict=True):
            row[[index for phrase in phrases for index in phrase.classes]] = True
        return found

    def _find(self, caption):
        return re.finditer(r"(?:\b(?:a|the|two)\s)?\b(dog|frisbee|man|cat|grass)s?\b", caption, re.IGNORECASE)

    def _phrase(self, found):
        word = found.group(1).lower()
        return Phrase(found.start(), found.end(), frozenset({CLASSES.index(word)} if word in CLASSES else ()))


class DrawnData(MatchedCaptions):
    """What the synthesis uses of a data module."""

    def __init__(self, root: str, max_unreadable: int = 0) -> None:
        self.root, self.max_unreadable, self.matcher = Path(root), max_unreadable, WordMatcher()
        self.cache_dir = self.root / "cache"

    @property
    def tables(self) -> Tables:
        return Tables(self.root / "tables")

    def prepare_data(self) -> None:
        if not (self.root / "tables").exists():
            draw(self.root)

    def mentions(self):
        return self.matcher.mentions(list(self.tables.texts))

    def read_image(self, row: int):
        path = self.root / self.tables.files[row]
        try:
            return Image.open(path).convert("RGB")
        except OSError as error:
            raise UnreadableImageError(f"Image {path} cannot be read.") from error


def draw(root, images=IMAGES):
    """Write noise images and the tables of `images`."""
    rng = np.random.default_rng(0)
    root.mkdir(parents=True, exist_ok=True)
    for name, *_ in images:
        noise = rng.integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / f"{name}.png")
    splits = list(dict.fromkeys(split for _, split, _, _ in images))
    captions = [(row, text) for row, (*_, texts) in enumerate(images) for text in texts]
    objects = [(row, name) for row, (_, _, names, _) in enumerate(images) for name in names]
    return Tables.write(
        root / "tables",
        images={
            "image_id": [100 + row for row in range(len(images))],
            "file": [f"{name}.png" for name, *_ in images],
            "split": [splits.index(split) for _, split, _, _ in images],
            "width": [SIZE[0]] * len(images),
            "height": [SIZE[1]] * len(images),
        },
        captions={
            "caption_id": [1000 + index for index in range(len(captions))],
            "image": [row for row, _ in captions],
            "text": [text for _, text in captions],
        },
        objects={
            "image": [row for row, _ in objects],
            "category": [CLASSES.index(name) for _, name in objects],
            "box": [list(map(float, BOXES[name])) for _, name in objects],
            "crowd": [0] * len(objects),
            "segmentation": [""] * len(objects),
        },
        class_names=CLASSES,
        splits=splits,
        fingerprint="drawn",
    )


@pytest.fixture
def data(tmp_path):
    """The drawn data set, ready on disk."""
    drawn = DrawnData(str(tmp_path / "drawn"))
    drawn.prepare_data()
    return drawn


@pytest.fixture
def draw_data(tmp_path):
    """The function that draws a data set of other images."""

    def draw_them(name, images):
        draw(tmp_path / name, images)
        return DrawnData(str(tmp_path / name))

    return draw_them


@pytest.fixture
def rows():
    """The function that reads the metadata of a split."""

    def read(output, split):
        return [json.loads(line) for line in (output / split / "metadata.jsonl").read_text("utf-8").splitlines()]

    return read


@pytest.fixture
def contents():
    """The function that returns the bytes of all files below a folder."""

    def read(folder):
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    return read


@pytest.fixture
def word_matcher():
    """The class of a matcher of a few words."""
    return WordMatcher


@pytest.fixture
def drawn_class_path(monkeypatch):
    """A dotted path under which a yaml finds the drawn data set."""
    module = ModuleType("drawn_data")
    module.DrawnData = DrawnData
    monkeypatch.setitem(sys.modules, "drawn_data", module)
    return "drawn_data.DrawnData"

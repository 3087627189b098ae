"""A tiny data set in COCO and Karpathy format that tests spoil in many ways, and a tiny one of tables for loaders."""

import copy
import json
import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.coco_reader import read_coco
from datamodules.errors import AnnotationError
from datamodules.tables import Tables

CLASSES = ("person", "dog", "frisbee")
KARPATHY = {
    "dataset": "coco",
    "images": [
        {
            "filepath": "val2014",
            "filename": f"COCO_val2014_{image_id:012d}.jpg",
            "cocoid": image_id,
            "imgid": row,
            "split": split,
            "sentences": [{"raw": text, "tokens": [], "imgid": row, "sentid": sentid} for sentid, text in captions],
        }
        for row, (image_id, split, captions) in enumerate(
            [
                (30, "train", [(301, "A dog runs ."), (300, "Un chien à la plage")]),
                (10, "val", [(100, "Nobody here.")]),
                (20, "train", [(200, "A man"), (201, "A frisbee"), (202, "Both")]),
            ]
        )
    ],
}
INSTANCES = {
    "images": [{"id": n, "width": 8, "height": 6} for n in (10, 20, 30, 99)],
    "annotations": [
        {"id": 1, "image_id": 20, "category_id": 90, "bbox": [0, 0, 8, 6], "iscrowd": 1, "segmentation": {"size": [6]}},
        {"id": 2, "image_id": 30, "category_id": 18, "bbox": [1.1, 1.2, 3.3, 0], "iscrowd": 0, "segmentation": []},
        {"id": 3, "image_id": 20, "category_id": 1, "bbox": [-0.5, 5, 2, 1.5], "segmentation": [[1, 2.5]]},
        {"id": 4, "image_id": 99, "category_id": 1, "bbox": [0, 0, 1, 1]},
    ],
    "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}, {"id": 90, "name": "frisbee"}],
}


@dataclass
class Annotations:
    """A tiny data set on disk."""

    folder: Path
    karpathy: dict
    instances: dict

    def write(self):
        (self.folder / "karpathy.json").write_text(json.dumps(self.karpathy))
        (self.folder / "instances.json").write_text(json.dumps(self.instances))
        return self

    def read(self, instances=("instances.json",), root="images", **options):
        return read_coco(
            self.folder / "karpathy.json",
            [self.folder / name for name in instances],
            self.folder / root,
            CLASSES,
            self.folder / "cache",
            **options,
        )

    def draw(self, pattern="val2014/COCO_val2014_{:012d}.jpg", root="images"):
        for entry in self.karpathy["images"]:
            path = self.folder / root / pattern.format(entry["cocoid"])
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 6)).save(path)


@pytest.fixture
def tiny(tmp_path):
    annotations = Annotations(tmp_path, copy.deepcopy(KARPATHY), copy.deepcopy(INSTANCES)).write()
    annotations.draw()
    return annotations


@pytest.fixture
def refused(tiny):
    """The check that annotations, once spoilt, are refused in one sentence that names their folder."""

    def check(spoil, message):
        spoil(tiny)
        with pytest.raises(AnnotationError, match=message) as error:
            tiny.write().read()
        assert str(tiny.folder) in str(error.value)
        assert "\n" not in str(error.value)

    return check


class WordMatcher:
    """Finds the classes of the world below by their very names."""

    class_names = ("cat", "dog", "car")
    version = "1"

    def phrases(self, captions):
        raise NotImplementedError

    def mentions(self, captions):
        return np.array([[name in text for name in self.class_names] for text in captions], bool).reshape(-1, 3)


class NoisyProcessor:
    """Draws from the three generators that transforms may use."""

    def train_image(self, image):
        return self.eval_image(image) + torch.rand(1) + random.random() + float(np.random.rand())

    def eval_image(self, image):
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()

    def tokenize(self, captions):
        return torch.tensor([[len(text), ord(text[-1])] for text in captions]).reshape(-1, 2)


@dataclass
class World:
    """12 images of 4 x 4 pixels, 2 captions each, split 8 / 2 / 2, and a synthetic set of 4 pairs and 2 + 1 queries."""

    folder: Path
    images: int = 12
    processor: object = field(default_factory=NoisyProcessor)
    matcher: object = field(default_factory=WordMatcher)

    @property
    def synthetic(self):
        return self.folder / "synthetic"

    def write(self):
        (self.folder / "images").mkdir(parents=True)
        pixels = np.random.default_rng(0).integers(0, 255, (self.images, 4, 4, 3), dtype=np.uint8)
        for row, array in enumerate(pixels):
            Image.fromarray(array).save(self.folder / "images" / f"{row}.png")
        self._tables()
        self.write_split("train", [self.row(image, caption=2 * image) for image in (0, 2, 4, 6)])
        self.write_split("val", [self.row(image) for image in (8, 9)])
        self.write_split("test", [self.row(10)])
        (self.synthetic / "protocol.json").write_text("{}")
        return self

    def _tables(self):
        rows, captions = np.arange(self.images), np.arange(2 * self.images)
        size = np.full(self.images, 4)
        split = np.repeat([0, 1, 2], [self.images - 4, 2, 2])
        images = {"image_id": rows + 100, "file": [f"{row}.png" for row in rows], "split": split.astype(np.int16)}
        Tables.write(
            self.folder / "tables",
            images=images | {"width": size.astype(np.int32), "height": size.astype(np.int32)},
            captions={
                "caption_id": captions + 1000,
                "image": captions // 2,
                "text": [f"a {('cat', 'dog')[row % 2]} {row}" for row in captions],
            },
            objects={"image": rows[:0], "category": [], "box": [], "crowd": [], "segmentation": []},
            class_names=WordMatcher.class_names,
            splits=("train", "val", "test"),
            fingerprint="world",
        )

    @property
    def tables(self):
        return Tables(self.folder / "tables")

    def row(self, image, caption=None, **changes):
        """Return a line of the synthetic set whose source is this image row, and this caption row in a pair."""
        ids = (-1, -1) if caption is None else (2**40 + 256 * (1000 + caption), 1000 + caption)
        row = {
            "file_name": f"{image}.png",
            "text": "" if caption is None else f"a dog without {image}",
            "image_id": 2**40 + 256 * (image + 100),
            "caption_id": ids[0],
            "source_image_id": image + 100,
            "source_caption_id": ids[1],
            "removed": ["cat"],
            "kept": ["dog", "car"],
        }
        return row | changes

    def write_split(self, split, rows):
        folder = self.synthetic / split
        folder.mkdir(parents=True, exist_ok=True)
        for number, row in enumerate(rows):
            Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / row["file_name"])
        (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def datamodule(self, **options):
        """Return a datamodule over this world, its synthetic set included."""
        from datamodules.base import RetrievalDataModule

        world = self

        class WorldDataModule(RetrievalDataModule):
            image_root = world.folder / "images"

            def read(self):
                return world.tables

        defaults = {"processor": self.processor, "synthetic": self.synthetic, "batch_size": 4, "num_workers": 0}
        return WorldDataModule(self.matcher, cache_dir=self.folder / "cache", **(defaults | options))


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "world").write()


@dataclass
class FlickrRecord:
    """One image of 20 x 10 pixels in the layout of Flickr30k Entities, whose objects have a box or none."""

    folder: Path
    sentences: list = field(
        default_factory=lambda: ["[/EN#1/people A man] on [/EN#2/vehicles a bike] .", "Nobody here"]
    )
    chains: list = field(default_factory=lambda: [1, 2])
    boxes: dict = field(default_factory=dict)
    size: str = "<size><width>20</width><height>10</height><depth>3</depth></size>"
    split: str = "train"
    unrelated: str = ""
    xml: str = ""

    def objects(self):
        for chain in self.chains:
            box = self.boxes.get(chain)
            sides = zip(("xmin", "ymin", "xmax", "ymax"), box or (), strict=False)
            corners = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
            yield f"<bndbox>{corners}</bndbox>" if box else "<scene>0</scene><nobndbox>1</nobndbox>"

    def write(self):
        """Write the files and return the arguments of Flickr30kDataModule."""
        named = zip(self.chains, self.objects(), strict=True)
        objects = [f"<object>\n<name>{chain}</name>\n{rest}\n</object>\n" for chain, rest in named]
        xml = self.xml or f"<annotation>\n<filename>7.png</filename>\n{self.size}\n{''.join(objects)}</annotation>\n"
        captions = [{"raw": "as Karpathy has it", "imgid": 3, "sentid": 30 + row} for row in range(len(self.sentences))]
        karpathy = {"images": [{"filename": "7.png", "imgid": 3, "split": self.split, "sentences": captions}]}
        for name in ("images", "Sentences", "Annotations"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10)).save(self.folder / "images" / "7.png")
        (self.folder / "Sentences" / "7.txt").write_text("".join(f"{line}\n" for line in self.sentences))
        (self.folder / "Annotations" / "7.xml").write_text(xml)
        (self.folder / "karpathy.json").write_text(json.dumps(karpathy))
        (self.folder / "unrelated").write_text(self.unrelated)
        return {
            "image_root": self.folder / "images",
            "karpathy": self.folder / "karpathy.json",
            "entities": self.folder,
            "unrelated": self.folder / "unrelated" if self.unrelated else None,
            "cache_dir": self.folder / "cache",
        }


@pytest.fixture
def record(tmp_path):
    return FlickrRecord(tmp_path / "flickr")


@pytest.fixture
def waterbirds(tmp_path):
    """Return the folder of 24 images (4 x 4) in Waterbirds' layout, split 16 / 4 / 4, image 3 + i being red i."""
    folder = tmp_path / "waterbirds"
    (folder / "a").mkdir(parents=True)
    lines = ["img_id,img_filename,y,split,place,place_filename"]
    for number in range(24):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / "a" / f"{number}.png")
        split = max(0, (number - 12) // 4)
        lines.append(f"{number + 3},a/{number}.png,{int(number % 4 == 0)},{split},{int(number % 8 in (0, 1))},lake")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder

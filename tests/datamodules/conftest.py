"""A tiny data set in COCO and Karpathy format that tests spoil in many ways."""

import copy
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from datamodules.coco_reader import read_coco

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

"""COCO's layout, on a tiny set and on real photos."""

import json
import os
from pathlib import Path

import pytest

from datamodules.coco import CocoDataModule

SAMPLE = Path(__file__).parents[2] / ".." / "shared" / "data" / "coco-sample"


class Titles:
    """Classes that are found by their names alone."""

    version = "1"

    def __init__(self, *class_names):
        self.class_names = class_names


def test_a_tiny_set_is_read_and_loaded(tiny, world):
    datamodule = CocoDataModule(
        image_root=tiny.folder / "images",
        karpathy=tiny.folder / "karpathy.json",
        instances=[tiny.folder / "instances.json"],
        matcher=Titles("person", "dog", "frisbee"),
        processor=world.processor,
        batch_size=5,
        num_workers=0,
        cache_dir=tiny.folder / "cache",
    )
    datamodule.prepare_data()
    (batch,) = datamodule.train_dataloader()
    assert sorted(batch.caption_ids.tolist()) == [200, 201, 202, 300, 301]
    assert datamodule.read_image(0).size == (8, 6)


@pytest.mark.real
@pytest.mark.skipif(not SAMPLE.is_dir(), reason="../shared/data/coco-sample is absent")
def test_real_photos_load(tmp_path, world):
    instances = SAMPLE / "annotations" / "instances.json"

    class Small(type(world.processor)):
        def eval_image(self, image):
            return super().eval_image(image.resize((8, 8)))

    datamodule = CocoDataModule(
        image_root=os.path.relpath(SAMPLE / "images"),
        karpathy=SAMPLE / "annotations" / "karpathy_sample.json",
        instances=[instances],
        matcher=Titles(*(category["name"] for category in json.loads(instances.read_text())["categories"])),
        processor=Small(),
        train_splits=["train", "restval"],
        batch_size=8,
        num_workers=0,
        cache_dir=tmp_path,
    )
    datamodule.prepare_data()
    assert len(datamodule.tables) == 373
    batch = next(iter(datamodule.train_dataloader()))
    assert batch.pixel_values.shape == (8, 3, 8, 8)
    images, captions = datamodule.val_dataloader()
    assert sum(map(len, images)) == len(datamodule.tables.rows("val"))
    assert sum(map(len, captions)) == len(datamodule.tables.captions_of(datamodule.tables.rows("val")))

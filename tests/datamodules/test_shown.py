"""What training images show: their objects, and in a synthetic image those of its source that were not removed."""

from __future__ import annotations

import numpy as np

from datamodules.tables import Tables


def _with_objects(world, objects):
    """Give images objects, `(image row, class)` each."""
    tables = Tables((world.folder / "tables").rename(world.folder / "tables_without_objects"))
    rows = np.arange(len(tables))
    Tables.write(
        world.folder / "tables",
        images={
            "image_id": tables.image_ids,
            "file": [f"{row}.png" for row in rows],
            "split": tables.split_codes,
            "width": tables.widths,
            "height": tables.heights,
        },
        captions={
            "caption_id": tables.caption_ids,
            "image": tables.caption_images,
            "text": list(tables.texts),
        },
        objects={
            "image": np.array([image for image, _ in objects]),
            "category": np.array([category for _, category in objects], dtype=np.int16),
            "box": [[0.0, 0.0, 1.0, 1.0]] * len(objects),
            "crowd": [0] * len(objects),
            "segmentation": [None] * len(objects),
        },
        class_names=tables.class_names,
        splits=tables.splits,
        fingerprint="world",
    )


def test_training_images_show_their_objects_and_synthetic_ones_lack_what_was_removed(world) -> None:
    cat, dog = (world.tables.class_names.index(name) for name in ("cat", "dog"))
    _with_objects(world, [(0, cat), (0, dog), (0, dog), (3, dog), (4, cat), (9, cat)])  # 9 is of another split
    ids, shown = world.datamodule(train_splits=["train"]).shown_classes()
    assert ids.tolist() == [*range(100, 108), *(2**40 + 256 * (row + 100) for row in (0, 2, 4, 6))]
    found = {int(image): set(np.flatnonzero(row)) for image, row in zip(ids, shown, strict=True) if row.any()}
    assert found == {100: {cat, dog}, 103: {dog}, 104: {cat}, 2**40 + 256 * 100: {dog}}


def test_a_run_on_original_pairs_alone_has_original_images_alone(world) -> None:
    ids, shown = world.datamodule(train_splits=["train"], ratio=0).shown_classes()
    assert ids.tolist() == list(range(100, 108))
    assert not shown.any()

"""Features that were computed once, in place of images."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.errors import AnnotationError, ConfigError, MissingPathError
from datamodules.features import FeatureReader

SYNTHETIC = 2**40


class VectorProcessor:
    """Takes vectors of length 3."""

    feature_size = 3

    def train_image(self, image):
        return image + 0.5

    def eval_image(self, image):
        return image

    def tokenize(self, captions):
        return torch.zeros(len(captions), 1)


def save(stem, image_ids, features=None, dtype=np.float16):
    """Write features whose first value is the id modulo 1000, and return the stem."""
    ids = np.asarray(image_ids)
    if features is None:
        features = np.stack([ids % 1000, np.full(len(ids), 2), np.full(len(ids), 3)], axis=1).astype(dtype)
    np.save(stem.with_name(f"{stem.name}_features.npy"), features)
    np.save(stem.with_name(f"{stem.name}_image_ids.npy"), ids)
    return stem


@pytest.fixture
def stems(world):
    synthetic = [SYNTHETIC + 256 * (100 + image) for image in (0, 2, 4, 6, 8, 9, 10)]
    originals = np.random.default_rng(0).permutation(np.arange(100, 112))
    return [save(world.folder / "originals", originals), save(world.folder / "removed", synthetic, dtype=np.float32)]


def test_batches_hold_the_features_of_their_images(world, stems):
    datamodule = world.datamodule(features=stems, processor=VectorProcessor(), batch_size=5)
    for image in (world.folder / "images").iterdir():
        image.unlink()  # nobody needs them
    batches = list(datamodule.train_dataloader())
    assert sum(int(batch.synthetic.sum()) for batch in batches) == 4
    for batch in batches:
        assert batch.pixel_values.dtype == torch.float32
        assert batch.pixel_values[:, 0].tolist() == [image % 1000 + 0.5 for image in batch.image_ids.tolist()]
    images, queries, captions = datamodule.test_dataloader()
    assert [row[0].item() for batch in images for row in batch.pixel_values] == [110, 111]
    assert next(iter(queries)).pixel_values.tolist() == [[(SYNTHETIC + 256 * 110) % 1000, 2, 3]]
    assert len(next(iter(captions))) == 24


def test_the_first_file_that_has_an_image_counts(tmp_path):
    first = save(tmp_path / "first", [1, 2])
    second = save(tmp_path / "second", [2, 3], np.zeros((2, 3), np.float32))
    reader = pickle.loads(pickle.dumps(FeatureReader([first, second])))  # noqa: S301
    assert [reader.read(Path(), image).tolist() for image in (1, 2, 3)] == [[1, 2, 3], [2, 2, 3], [0, 0, 0]]
    assert len(pickle.dumps(reader)) < 1000 + len(str(tmp_path)) * 4


def test_images_without_features_are_refused_before_the_run(world, stems):
    few = save(world.folder / "few", np.arange(100, 111))
    datamodule = world.datamodule(features=[few], processor=VectorProcessor(), synthetic=None)
    datamodule.train_dataloader()
    with pytest.raises(ConfigError, match=r"1 of 2 images have no features .*key `features`.*first image 111"):
        datamodule.test_dataloader()
    with pytest.raises(ConfigError, match=rf"first image {SYNTHETIC + 256 * 100}: "):
        world.datamodule(features=stems[:1], processor=VectorProcessor()).train_dataloader()


def test_a_backbone_takes_what_the_data_has(world, stems):
    with pytest.raises(ConfigError, match=r"takes images and the data has features of length 3"):
        world.datamodule(features=stems).train_dataloader()
    with pytest.raises(ConfigError, match=r"takes features of length 3 and the data has images"):
        world.datamodule(processor=VectorProcessor()).val_dataloader()


@pytest.mark.parametrize(
    ("ids", "features", "words"),
    [
        ([1, 2], np.zeros((3, 4), np.float32), r"float32 \[3, 4\] and int64 \[2\]"),
        ([1, 2], np.zeros((2, 4), np.int64), r"int64 \[2, 4\]"),
        ([1, 2], np.zeros(2, np.float32), r"float32 \[2\]"),
        ([1.5, 2], np.zeros((2, 4), np.float32), r"and float64 \[2\]"),
    ],
)
def test_arrays_of_another_layout_are_refused(tmp_path, ids, features, words):
    with pytest.raises(AnnotationError, match=rf"broken_\*\.npy \(config key `features`\) hold .*{words}"):
        FeatureReader([save(tmp_path / "broken", ids, features)])


def test_files_that_are_missing_broken_or_unequal_are_refused(tmp_path):
    whole = save(tmp_path / "whole", [1])
    with pytest.raises(MissingPathError, match=r"nothing_features\.npy"):
        FeatureReader([whole, tmp_path / "nothing"])
    with pytest.raises(AnnotationError, match=r"unequal lengths: 3, 7"):
        FeatureReader([whole, save(tmp_path / "wide", [2], np.zeros((1, 7), np.float16))])
    (tmp_path / "whole_image_ids.npy").write_bytes(b"no array")
    with pytest.raises(AnnotationError, match=r"whole_image_ids\.npy .* is no array of numpy"):
        FeatureReader([whole])


@pytest.mark.parametrize("save_other", [np.savez, lambda path, one: np.save(path, one.astype(object))])
def test_archives_and_objects_are_refused(tmp_path, save_other):
    stem = save(tmp_path / "one", [1])
    with (tmp_path / "one_features.npy").open("wb") as file:
        save_other(file, np.zeros((1, 3)))
    with pytest.raises(AnnotationError, match=r"one_features\.npy .* is no array of numpy"):
        FeatureReader([stem])


def test_a_stem_without_a_name_is_refused():
    with pytest.raises(MissingPathError, match="`features`"):
        FeatureReader([Path()])


def test_training_captions_are_those_of_the_original_pairs(world):
    assert world.datamodule().training_captions() == [f"a {('cat', 'dog')[row % 2]} {row}" for row in range(16)]
    assert world.datamodule(train_splits=["val"]).training_captions() == [
        "a cat 16",
        "a dog 17",
        "a cat 18",
        "a dog 19",
    ]

"""Samples and batches of training pairs, images, queries and captions."""

import pickle
import random

import numpy as np
import pytest
import torch

from datamodules.datasets import Captions, OriginalImages, QueryImages, TrainPairs
from datamodules.errors import UnreadableImageError
from datamodules.images import ImageReader
from datamodules.loaders import folds, gallery, make_loader
from datamodules.seeding import seeded
from datamodules.synthetic_set import SyntheticSet

pytestmark = pytest.mark.filterwarnings("ignore:.*cannot be read:UserWarning")


def synthetic(world, split):
    return SyntheticSet.read(world.synthetic, [split], world.matcher.class_names, world.tables.image_ids)


def train_pairs(world, chosen=(1, 3), max_unreadable=10, seed=0):
    captions = world.tables.captions_of(world.tables.rows("train"))
    images, reader = world.folder / "images", ImageReader(max_unreadable)
    return TrainPairs(
        world.tables, images, captions, synthetic(world, "train"), np.array(chosen), world.processor, reader, seed
    )


def original_images(world, max_unreadable=10, splits=("val", "test")):
    rows, reader = world.tables.rows(*splits), ImageReader(max_unreadable)
    return OriginalImages(world.tables, world.folder / "images", rows, world.processor, reader)


def test_a_batch_of_pairs_keeps_the_order_of_its_rows(world):
    pairs = train_pairs(world)
    batch = pairs.collate([pairs[0, row] for row in (17, 3, 16, 0)])
    assert batch.synthetic.tolist() == [True, False, True, False]
    assert batch.image_ids.tolist() == [2**40 + 256 * 106, 101, 2**40 + 256 * 102, 100]
    assert batch.caption_ids.tolist() == [2**40 + 256 * 1012, 1003, 2**40 + 256 * 1004, 1000]
    assert batch.source_ids.tolist() == [106, 101, 102, 100]
    assert batch.source_caption_ids.tolist() == [1012, 1003, 1004, 1000]
    texts = ["a dog without 6", "a dog 3", "a dog without 2", "a cat 0"]
    assert batch.tokens.tolist() == world.processor.tokenize(texts).tolist()
    assert batch.pixel_values.shape == (4, 3, 4, 4)
    red = [pixels[0] - pixels[1] for pixels in batch.pixel_values]  # noise is the same in all channels
    assert [int(red[0].round()[0, 0]), int(red[2].round()[0, 0])] == [3, 1]


def test_pairs_without_a_synthetic_set(world):
    pairs = train_pairs(world, chosen=())
    pairs.synthetic, pairs.chosen = None, np.empty(0, dtype=np.int64)
    assert len(pairs) == 16
    assert pairs.collate([pairs[0, 5]]).image_ids.tolist() == [102]


def test_augmentation_depends_on_seed_batch_and_row_alone(world):
    pairs, others = train_pairs(world), train_pairs(world, seed=1)
    first = pairs[2, 5][1]
    pairs[0, 9]
    torch.manual_seed(99)
    assert torch.equal(pairs[2, 5][1], first)
    same_picture = pairs[2, 4][1]
    for other in (pairs[3, 5][1], same_picture, others[2, 5][1]):
        assert not torch.equal(other, first)


def test_the_generators_of_the_run_are_left_alone():
    def draw():
        return torch.rand(1).item(), float(np.random.rand()), random.random()

    def start():
        torch.manual_seed(1)
        np.random.seed(1)
        random.seed(1)

    start()
    expected = draw()
    start()
    with seeded(4, 2):
        inside = draw()
    assert draw() == expected
    with seeded(4, 2):
        assert draw() == inside
    with pytest.raises(KeyError), seeded(4, 2):
        raise KeyError
    with seeded(4, 3):
        assert draw() != inside


@pytest.mark.parametrize(("row", "substitute"), [(4, 6), (5, 6), (16, 17), (17, 17)])
def test_a_pair_of_the_same_kind_takes_the_place_of_an_unreadable_one(world, row, substitute):
    (world.folder / "images" / "2.png").write_bytes(b"")
    (world.synthetic / "train" / "2.png").write_bytes(b"")
    pairs = train_pairs(world)
    assert pairs[0, row][0] == substitute
    assert pairs.reader.unreadable == (row != substitute)


def test_the_last_pair_is_replaced_by_the_first(world):
    (world.folder / "images" / "7.png").write_bytes(b"")
    assert train_pairs(world)[0, 15][0] == 0


@pytest.mark.parametrize("limit", [3, 99])
def test_nothing_readable_ends_and_does_not_hang(world, limit):
    for path in (world.folder / "images").iterdir():
        path.write_bytes(b"")
    pairs = train_pairs(world, max_unreadable=limit)
    assert pairs[0, 3] == (3, None)
    assert pairs.collate([pairs[0, 3]]) is None


def test_images_of_a_split(world):
    images = original_images(world)
    batch = images.collate([images[row] for row in (2, 0)])
    assert batch.image_ids.tolist() == batch.source_ids.tolist() == [110, 108]
    assert batch.caption_ids.tolist() == batch.source_caption_ids.tolist() == [-1, -1]
    assert not batch.synthetic.any()
    assert (batch.tokens, batch.removed, batch.kept, batch.mentions, batch.folds) == (None,) * 5


def test_images_know_their_fold(world):
    images = original_images(world, splits=("train", "val", "test"))
    images.folds = folds(len(images), 5)
    batch = images.collate([images[row] for row in range(12)])
    assert batch.image_ids.tolist() == list(range(100, 112))
    assert batch.folds.tolist() == [0] * 5 + [1] * 5 + [-1] * 2
    assert images.collate([images[row] for row in (11, 4, 5)]).folds.tolist() == [-1, 0, 1]


def test_folds_that_nobody_asks_for_or_fills():
    assert folds(12, None) is None
    assert folds(12, 12).tolist() == [0] * 12
    with pytest.warns(UserWarning, match="12 images do not fill a fold of 13 .*`eval_fold_size`"):
        assert folds(12, 13) is None


def test_queries_carry_their_classes(world):
    queries = QueryImages(synthetic(world, "val"), world.processor, ImageReader(0))
    batch = queries.collate([queries[row] for row in (1, 0)])
    assert batch.image_ids.tolist() == [2**40 + 256 * 109, 2**40 + 256 * 108]
    assert batch.source_ids.tolist() == [109, 108]
    assert batch.source_caption_ids.tolist() == [-1, -1]
    assert batch.synthetic.all()
    assert batch.removed.tolist() == [[True, False, False]] * 2
    assert batch.kept.tolist() == [[False, True, True]] * 2


def captions_of(world, everything, mentions):
    rows, in_split = gallery(world.tables, "val", everything)
    return Captions(world.tables, rows, in_split, mentions, world.processor)


@pytest.mark.parametrize("everything", [True, False])
def test_recall_may_count_the_first_captions_of_an_image_alone(world, everything):
    rows, counted = gallery(world.tables, "val", everything, most=1)
    offsets, images = world.tables.caption_offsets, world.tables.rows("val")
    assert rows[counted].tolist() == [offsets[image] for image in images]
    assert len(rows) == (len(world.tables.caption_ids) if everything else 2 * len(images))


def test_captions_of_all_splits_say_which_are_evaluated(world):
    captions = captions_of(world, True, world.matcher.mentions(list(world.tables.texts)))
    batch = captions.collate([captions[row] for row in (19, 3, 16)])
    assert batch.caption_ids.tolist() == [1019, 1003, 1016]
    assert batch.image_ids.tolist() == [109, 101, 108]
    assert batch.in_split.tolist() == [True, False, True]
    assert batch.mentions.tolist() == [[False, True, False]] * 2 + [[True, False, False]]
    assert batch.tokens.tolist() == world.processor.tokenize(["a dog 19", "a dog 3", "a cat 16"]).tolist()
    assert batch.pixel_values is None


def test_captions_of_one_split(world):
    captions = captions_of(world, False, None)
    batch = captions.collate([captions[row] for row in range(len(captions))])
    assert batch.caption_ids.tolist() == batch.source_caption_ids.tolist() == [1016, 1017, 1018, 1019]
    assert batch.in_split.all()
    assert batch.mentions is None


def test_a_mapped_matrix_pickles_as_its_name(world):
    full = np.random.default_rng(0).random((24, 3)) < 0.5
    np.save(world.folder / "mentions.npy", full)
    captions = captions_of(world, True, np.load(world.folder / "mentions.npy", mmap_mode="r"))
    captions.processor = None
    pickled = pickle.dumps(captions)
    assert b"mentions.npy" in pickled
    copy = pickle.loads(pickled)  # noqa: S301
    assert np.array_equal(copy.mentions, full)
    plain = captions_of(world, True, full)
    plain.processor = None
    assert np.array_equal(pickle.loads(pickle.dumps(plain)).mentions, full)  # noqa: S301


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_drops_unreadable_images_and_empty_batches(world, workers):
    for row in (8, 9, 10):
        (world.folder / "images" / f"{row}.png").write_bytes(b"")
    loader = make_loader(original_images(world), workers, seed=0, batch_size=2)
    assert [batch.image_ids.tolist() for batch in loader] == [[111]]
    assert loader.dataset.reader.unreadable == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_stops_beyond_the_limit_with_one_sentence(world, workers):
    for row in (8, 10, 11):
        (world.folder / "images" / f"{row}.png").write_bytes(b"")
    loader = make_loader(original_images(world, max_unreadable=1), workers, seed=0, batch_size=1)
    with pytest.raises(UnreadableImageError, match="`max_unreadable`") as error:
        list(loader)
    assert "Traceback" not in str(error.value)
    assert "8.png" in str(error.value)


def test_a_loader_leaves_the_global_generator_to_the_model(world):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    list(make_loader(original_images(world), 0, seed=0, batch_size=2))
    assert torch.equal(torch.rand(1), expected)

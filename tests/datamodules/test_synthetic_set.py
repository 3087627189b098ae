"""A finished synthetic set becomes columns; an unfinished, broken or foreign one is refused with file and line."""

import pickle

import numpy as np
import pytest

from datamodules.errors import AnnotationError, ConfigError, MissingPathError
from datamodules.synthetic_set import SyntheticSet, has_split, is_finished


def read(world, *splits):
    return SyntheticSet.read(world.synthetic, splits, world.matcher.class_names, world.tables.image_ids)


def test_columns_hold_what_the_lines_say(world):
    pairs = read(world, "train")
    assert pairs.image_ids.tolist() == [2**40 + 256 * (100 + image) for image in (0, 2, 4, 6)]
    assert pairs.source_image_ids.tolist() == [100, 102, 104, 106]
    assert pairs.source_caption_ids.tolist() == [1000, 1004, 1008, 1012]
    assert pairs.caption_ids.tolist() == [2**40 + 256 * number for number in (1000, 1004, 1008, 1012)]
    assert pairs.texts[1] == "a dog without 2"
    assert pairs.path(3) == world.synthetic / "train" / "6.png"
    assert pairs.removed.tolist() == [[True, False, False]] * 4
    assert pairs.kept.tolist() == [[False, True, True]] * 4


def test_splits_are_joined_in_order_and_absent_ones_left_out(world):
    world.write_split("restval", [world.row(1, caption=2)])
    both = read(world, "train", "unknown", "restval")
    assert both.source_image_ids.tolist() == [100, 102, 104, 106, 101]
    assert both.path(4) == world.synthetic / "restval" / "1.png"


def test_it_survives_pickling(world):
    pairs = read(world, "train")
    copy = pickle.loads(pickle.dumps(pairs))  # noqa: S301
    assert list(copy.texts) == list(pairs.texts)
    assert np.array_equal(copy.kept, pairs.kept)


def test_rows_of_the_source_captions(world):
    pairs = read(world, "train")
    caption_ids = np.array([1012, 5, 1004, 1000, 1008])
    assert pairs.source_rows(np.array([1, 3]), caption_ids).tolist() == [2, 0]
    with pytest.raises(ConfigError, match=r"1008.*`train_splits`"):
        pairs.source_rows(np.arange(4), caption_ids[:-1])


def test_an_absent_folder_names_key_and_command(world):
    with pytest.raises(MissingPathError, match=r"elsewhere.*`synthetic`.*python -m synth"):
        SyntheticSet.read(world.folder / "elsewhere", ["train"], ["cat"], np.array([1]))


def test_an_unfinished_set_names_the_command(world):
    assert is_finished(world.synthetic)
    (world.synthetic / "protocol.json").unlink()
    assert not is_finished(world.synthetic)
    with pytest.raises(ConfigError, match=r"unfinished.*python -m synth.*goes on where it was"):
        read(world, "train")


def test_no_split_of_the_wanted_ones(world):
    assert not has_split(world.synthetic, "minival")
    with pytest.raises(MissingPathError, match="minival, other"):
        read(world, "minival", "other")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"removed": ["unicorn"]}, "'unicorn'"),
        ({"kept": [["cat"]]}, r"\['cat'\]"),
        ({"kept": None}, "malformed"),
        ({"text": None}, "malformed, None is no text"),
        ({"image_id": "many"}, "malformed.*'many'"),
        ({"image_id": 103}, "103, which an original"),
        ({"source_image_id": 7}, "source image 7"),
    ],
)
def test_a_bad_line_is_named(world, changes, problem):
    world.write_split("train", [world.row(0, caption=0), world.row(2, caption=4) | changes])
    with pytest.raises(AnnotationError, match=rf"train/metadata\.jsonl:2 .*{problem}"):
        read(world, "train")


@pytest.mark.parametrize("line", [b"{", b"[1]", b"3", b"\xff\xfe", b'{"image_id": 3}'])
def test_a_line_that_is_no_row_is_named(world, line):
    with (world.synthetic / "train" / "metadata.jsonl").open("ab") as file:
        file.write(b"\n" + line)
    with pytest.raises(AnnotationError, match=r"metadata\.jsonl:6 .*malformed"):
        read(world, "train")


def test_an_image_that_is_not_there_is_named(world):
    (world.synthetic / "train" / "4.png").unlink()
    with pytest.raises(MissingPathError, match=r"metadata\.jsonl:3 .*4\.png"):
        read(world, "train")

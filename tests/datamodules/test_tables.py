import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datamodules.errors import ConfigError
from datamodules.tables import Tables


def write(folder, captions_per_image=(2, 1, 3), objects_per_image=(0, 2, 1), fingerprint="sources", text="caption {}"):
    images = np.arange(len(captions_per_image))
    caption_images, object_images = np.repeat(images, captions_per_image), np.repeat(images, objects_per_image)
    return Tables.write(
        folder,
        images={
            "image_id": images + 100,
            "file": [f"{n}.jpg" for n in images],
            "split": images % 2,
            "width": images + 10,
            "height": images + 20,
        },
        captions={
            "caption_id": np.arange(len(caption_images)) + 1000,
            "image": caption_images,
            "text": [text.format(n) for n in range(len(caption_images))],
        },
        objects={
            "image": object_images,
            "category": object_images % 2,
            "box": [[n, n + 0.5, 1, 2] for n in range(len(object_images))],
            "crowd": np.arange(len(object_images)) % 2,
            "segmentation": ["[[1,2]]"] * len(object_images),
        },
        class_names=["cat", "dog"],
        splits=["train", "val"],
        fingerprint=fingerprint,
    )


def test_columns_come_back_as_written(tmp_path):
    tables = write(tmp_path / "tables")
    assert len(tables) == 3
    assert tables.class_names == ("cat", "dog")
    assert tables.splits == ("train", "val")
    assert tables.fingerprint == "sources"
    assert tables.image_ids.tolist() == [100, 101, 102]
    assert list(tables.files) == ["0.jpg", "1.jpg", "2.jpg"]
    assert tables.widths.tolist() == [10, 11, 12]
    assert tables.heights.tolist() == [20, 21, 22]
    assert tables.caption_offsets.tolist() == [0, 2, 3, 6]
    assert tables.object_offsets.tolist() == [0, 0, 2, 3]
    assert tables.texts[-1] == "caption 5"
    assert tables.boxes.tolist() == [[0, 0.5, 1, 2], [1, 1.5, 1, 2], [2, 2.5, 1, 2]]
    assert tables.crowds.tolist() == [False, True, False]
    assert tables.segmentations[0] == "[[1,2]]"
    assert tables.rows("train").tolist() == [0, 2]
    assert tables.rows("train", "val", "absent").tolist() == [0, 1, 2]
    assert tables.captions_of(np.array([2, 0])).tolist() == [0, 1, 3, 4, 5]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(counts=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=8))
def test_offsets_group_captions_and_objects_by_image(tmp_path_factory, counts):
    captions, objects = zip(*counts, strict=True)
    tables = write(tmp_path_factory.mktemp("set") / "tables", captions, objects)
    assert np.diff(tables.caption_offsets).tolist() == list(captions)
    assert np.diff(tables.object_offsets).tolist() == list(objects)
    for row in range(len(tables)):
        mine = slice(tables.caption_offsets[row], tables.caption_offsets[row + 1])
        assert (tables.caption_images[mine] == row).all()


def test_a_set_without_objects_has_empty_columns_of_the_right_types(tmp_path):
    tables = write(tmp_path / "tables", objects_per_image=(0, 0, 0))
    assert tables.boxes.shape == (0, 4)
    assert tables.categories.dtype == np.int16
    assert tables.crowds.dtype == np.bool_
    assert tables.object_offsets.tolist() == [0, 0, 0, 0]
    assert tables.segmentations[:] == []


def test_columns_are_maps_of_the_file_and_cannot_be_written(tmp_path):
    tables = write(tmp_path / "tables")
    with pytest.raises(ValueError, match="read-only"):
        tables.boxes[0, 0] = 1.0


def test_pickling_carries_the_folder_and_no_rows(tmp_path):
    tables = write(tmp_path / "tables", captions_per_image=(500, 500, 500))
    assert len(tables.texts) == 1500
    assert len(pickle.dumps(tables)) < 1000
    assert pickle.loads(pickle.dumps(tables)).texts[7] == "caption 7"  # noqa: S301


def test_strings_are_taken_sliced_and_made_unique(tmp_path):
    tables = write(tmp_path / "tables", text="the same")
    assert tables.texts.take(np.array([3, 0])) == ["the same", "the same"]
    assert tables.texts[1:3] == ["the same", "the same"]
    distinct, positions = tables.texts.unique()
    assert distinct == ["the same"]
    assert positions.tolist() == [0] * 6
    distinct, positions = tables.files.unique()
    assert [distinct[p] for p in positions] == list(tables.files)


def test_columns_out_of_order_or_of_unequal_length_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`image` of captions must ascend"):
        Tables.write(
            tmp_path / "tables",
            images={"image_id": [1, 2], "file": ["a", "b"], "split": [0, 0], "width": [1, 1], "height": [1, 1]},
            captions={"caption_id": [1, 2], "image": [1, 0], "text": ["a", "b"]},
            objects={"image": [], "category": [], "box": [], "crowd": [], "segmentation": []},
            class_names=[],
            splits=["train"],
            fingerprint="",
        )
    assert list(tmp_path.iterdir()) == []


def test_the_first_writer_stays_and_other_sources_are_refused(tmp_path):
    write(tmp_path / "tables", text="first {}")
    assert write(tmp_path / "tables", text="second {}").texts[0] == "first 0"
    with pytest.raises(FileExistsError, match="other source files"):
        write(tmp_path / "tables", fingerprint="changed")
    assert [path.name for path in tmp_path.iterdir()] == ["tables"]


def test_discarded_tables_can_be_written_again_while_an_old_reader_goes_on(tmp_path):
    old = write(tmp_path / "tables", text="first {}")
    assert old.texts[0] == "first 0"
    old.discard()
    old.discard()
    assert write(tmp_path / "tables", text="second {}").texts[0] == "second 0"
    assert old.texts[1] == "first 1"


def test_many_writers_and_readers_of_one_folder_never_meet_half_a_table(tmp_path):
    start = threading.Barrier(8)

    def work(_: int) -> list[int]:
        lengths = []
        for round_ in range(10):
            start.wait()
            lengths.append(len(Tables(write(tmp_path / str(round_)).folder).texts))
        return lengths

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [[6] * 10] * 8
    assert sorted(path.name for path in tmp_path.iterdir()) == [str(n) for n in range(10)]


def test_others_may_read_a_shared_cache_as_the_umask_says(tmp_path):
    before = os.umask(0o027)
    try:
        folder = write(tmp_path / "tables").folder
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o750
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o640}


def test_a_folder_that_cannot_be_written_is_named_with_its_key(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file cannot be written .*`cache_dir`.*ODMAP_CACHE"):
        write(Path(tmp_path / "file" / "tables"))

"""Extended positives: read from two files, checked, and compared with the package that they come from."""

import json
from pathlib import Path

import numpy as np
import pytest

from datamodules.errors import AnnotationError, ConfigError, MissingPathError
from datamodules.karpathy import read_karpathy
from datamodules.positives import read_all_positives, read_positives

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
I2T, T2I = "image_to_caption", "caption_to_image"


@pytest.fixture
def stem(tmp_path):
    return write(tmp_path / "few", {"110": [1020, 1003]}, {"1020": [110], "1003": [101, 110]})


def write(stem, i2t, t2i):
    for side, entries in ((I2T, i2t), (T2I, t2i)):
        stem.with_name(f"{stem.name}_{side}.json").write_text(json.dumps(entries))
    return stem


def test_ids_become_integers(stem):
    positives = read_positives(stem)
    assert positives.i2t == {110: [1020, 1003]}
    assert positives.t2i == {1020: [110], 1003: [101, 110]}


@pytest.mark.parametrize("side", [I2T, T2I])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[1, 2]]", "does not hold one or more matches"),
        ("{}", "does not hold one or more matches"),
        ('{"1": [2], "a1": [2]}', "'a1' is no (image|caption) id"),
        ('{"7": [2], "07": [3]}', "'07' is no (image|caption) id"),
        ('{"9223372036854775808": [2]}', "'9223372036854775808' is no (image|caption) id"),
        ('{"1": [2], "7": []}', r"(image|caption) 7 must have a list .* not \[\]"),
        ('{"7": 2}', "(image|caption) 7 must have a list .* not 2"),
        ('{"7": [2, "3"]}', "ids of (image|caption) 7 must be 64-bit integers, not '3'"),
        ('{"7": [2, true]}', "ids of (image|caption) 7 must be 64-bit integers, not True"),
        ('{"7": [2', "not valid JSON at line 1"),
    ],
)
def test_a_broken_file_is_named_with_its_entry(stem, side, text, words):
    stem.with_name(f"few_{side}.json").write_text(text)
    with pytest.raises(AnnotationError, match=rf"few_{side}\.json \(config key `positives\.few`\).*{words}"):
        read_positives(stem, "positives.few")


@pytest.mark.parametrize("side", [I2T, T2I])
def test_a_missing_file_is_named(stem, side):
    stem.with_name(f"few_{side}.json").unlink()
    with pytest.raises(MissingPathError, match=rf"few_{side}\.json .*`positives`"):
        read_positives(stem)


def test_unknown_ids_are_left_to_the_metric(world, stem):
    write(stem, {"110": [1020, 4], "5": [4]}, {"4": [5]})
    assert read_all_positives({"few": stem}, world.tables)["few"].i2t == {110: [1020, 4], 5: [4]}


@pytest.mark.parametrize(
    ("i2t", "t2i", "kind"), [({"1": [1020]}, {"1020": [1]}, "image"), ({"110": [1]}, {"1": [110]}, "caption")]
)
def test_positives_of_another_data_set_are_refused(world, stem, i2t, t2i, kind):
    write(stem, i2t, t2i)
    with pytest.raises(ConfigError, match=rf"None of the {kind} ids of .*few_\*\.json .*`positives\.few`"):
        read_all_positives({"few": stem}, world.tables)


@pytest.mark.real
@pytest.mark.filterwarnings("ignore")  # the package would like another JSON parser
@pytest.mark.skipif(not (DATA / "eccv-caption").is_dir(), reason="../shared/data/eccv-caption is absent")
def test_the_published_files_are_read_as_their_package_reads_them():
    peer = pytest.importorskip("eccv_caption").Metrics()
    for name, theirs in (("eccv", peer.eccv_gts), ("cxc", peer.cxc_gts), ("original", peer.coco_gts)):
        positives = read_positives(DATA / "eccv-caption" / name)
        assert {"i2t": positives.i2t, "t2i": positives.t2i} == theirs


@pytest.mark.real
@pytest.mark.skipif(not (DATA / "coco-karpathy").is_dir(), reason="../shared/data/coco-karpathy is absent")
def test_the_test_split_comes_in_the_order_of_the_published_folds():
    """The 1K protocol cuts the split as it is listed; `eccv_caption` has the same order in its list of caption ids."""
    read = read_karpathy(DATA / "coco-karpathy" / "dataset_coco_test.json", coco_ids=True)
    ours = list(zip(read.image_ids[read.caption_images].tolist(), read.caption_ids.tolist(), strict=True))
    listed = np.load(DATA / "eccv-caption" / "coco_test_ids.npy").tolist()
    owners = read_positives(DATA / "eccv-caption" / "original").t2i
    theirs = [image for caption in listed for image in owners[caption]]
    assert [image for image, _ in ours] == theirs
    for fold in range(5):
        part = slice(5000 * fold, 5000 * (fold + 1))
        assert {caption for _, caption in ours[part]} == set(listed[part])

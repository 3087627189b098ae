"""YOLOX decoded as its authors say, on a network played by hand and on real photos; other detectors elsewhere."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.errors import ConfigError, MissingPathError
from synth.detectors import YoloxDetector
from synth.detectors.yolox import decoded, letterboxed, suppressed

SHARED = Path(__file__).parents[2] / ".." / "shared"
WEIGHTS = SHARED / "weights" / "yolox_nano_coco" / "yolox_nano.onnx"
SAMPLE = SHARED / "data" / "coco-sample"
SIZE, CELLS = 64, 64 + 16 + 4


class Played:
    """In place of OpenCV's network: gives one answer, and keeps what it was shown."""

    def __init__(self, answer):
        self.answer, self.shown = answer, []

    def setInput(self, blob):  # noqa: N802 (OpenCV's name)
        self.shown.append(blob)

    def forward(self):
        return self.answer[None]


@pytest.fixture
def answer():
    """An answer that sees nothing in all cells, of two classes."""
    return np.zeros((CELLS, 7), np.float32)


@pytest.fixture
def detector(tmp_path, monkeypatch, answer):
    """A detector whose network gives `answer`."""
    (tmp_path / "model.onnx").touch()
    monkeypatch.setattr(cv2.dnn, "readNetFromONNX", lambda path: Played(answer))
    return YoloxDetector(tmp_path / "model.onnx", size=SIZE, classes=["dog", "cat"])


def one(detector, image):
    (found,) = detector.detect([image])
    return found


def test_an_object_is_where_its_cell_says_in_pixels_of_the_image(detector, answer):
    cell = 64 + 2 * 4 + 1  # stride 16, row 2, column 1
    answer[cell] = [0.5, 0.25, np.log(2), np.log(0.5), 0.9, 0.1, 0.8]
    found = one(detector, np.zeros((128, 96, 3), np.uint8))  # drawn at half its size
    centre, sides = np.array([1.5, 2.25]) * 16 * 2, np.array([2, 0.5]) * 16 * 2
    np.testing.assert_allclose(found.boxes, [[*(centre - sides / 2), *(centre + sides / 2)]], rtol=1e-6)
    assert found.classes.tolist() == [1]
    np.testing.assert_allclose(found.scores, [0.72], rtol=1e-6)


def test_a_score_must_be_above_the_threshold(detector, answer):
    answer[:3, 4], answer[:3, 5] = 1, [0.25, 0.5, 0.75]
    answer[:3, :2] = [[0, 0], [20, 0], [40, 0]]
    detector.score_threshold = 0.5
    assert one(detector, np.zeros((64, 64, 3), np.uint8)).scores.tolist() == [0.75]


def test_nothing_found_is_no_rows(detector):
    found = one(detector, np.zeros((64, 64, 3), np.uint8))
    assert (found.boxes.shape, found.classes.shape, found.scores.shape) == ((0, 4), (0,), (0,))


def test_the_network_is_shown_blue_green_red_on_a_grey_canvas(detector):
    one(detector, np.full((16, 32, 3), [10, 20, 30], np.uint8))
    blob = detector._network.shown[-1]
    assert (blob.shape, blob.dtype) == ((1, 3, SIZE, SIZE), np.float32)
    assert [set(channel.ravel().tolist()) for channel in blob[0, :, :32]] == [{30}, {20}, {10}]
    assert set(blob[0, :, 32:].ravel().tolist()) == {114}


@given(st.integers(1, 500), st.integers(1, 500))
def test_the_image_keeps_its_shape_and_fits(width, height):
    canvas, scale = letterboxed(np.zeros((height, width, 3), np.uint8), 32)
    drawn = (canvas == 0).all(2)
    rows, columns = drawn.any(1).sum(), drawn.any(0).sum()
    assert drawn[:rows, :columns].all()
    assert not drawn[rows:].any()
    assert max(rows, columns) >= 31
    assert abs(rows - max(height * scale, 1)) <= 1
    assert abs(columns - max(width * scale, 1)) <= 1


def test_cells_are_decoded_as_by_a_loop():
    answer = np.random.default_rng(0).normal(size=(CELLS, 8)).astype(np.float32)
    boxes, scores = decoded(answer, SIZE)
    cells = [(s, row, column) for s in (8, 16, 32) for row, column in product(range(SIZE // s), repeat=2)]
    for (stride, row, column), raw, box, score in zip(cells, answer, boxes, scores, strict=True):
        x, y, width, height = (raw[0] + column), (raw[1] + row), np.exp(raw[2]), np.exp(raw[3])
        corners = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
        np.testing.assert_allclose(box, np.array(corners) * stride, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(score, [raw[4] * each for each in raw[5:]], rtol=1e-6)


def iou(one, other):
    width, height = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    common = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return common / (sum(areas) - common)


@pytest.mark.parametrize("seed", range(8))
def test_of_overlapping_boxes_of_a_class_the_best_stays(seed):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-20, 100, (60, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 90, (60, 2))], 1).astype(np.float32)
    classes, scores = rng.integers(0, 3, 60), rng.uniform(0.01, 1, 60).astype(np.float32)
    kept = []
    for row in np.argsort(-scores):
        if all(classes[row] != classes[better] or iou(boxes[row], boxes[better]) <= 0.45 for better in kept):
            kept.append(row)
    assert suppressed(boxes, classes, scores, 0.45).tolist() == kept
    assert len(kept) < 60


def test_a_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no model" * 100)
    with pytest.raises(ConfigError, match="is no ONNX file that OpenCV runs on 416 x 416"):
        YoloxDetector(tmp_path / "model.onnx").load()


@pytest.mark.parametrize(("option", "value"), [("classes", ["dog"]), ("size", 96)])
def test_a_model_of_other_classes_or_size_is_refused(detector, option, value):
    with pytest.raises(ConfigError, match=r"gives \[84, 7\] values .* mend `classes` or `size`"):
        replace(detector, **{option: value}).load()


@pytest.mark.parametrize(
    ("option", "value"), [("size", 100), ("size", 0), ("score_threshold", 1.5), ("nms_threshold", -0.1)]
)
def test_numbers_that_cannot_work_are_refused(detector, option, value):
    with pytest.raises(ConfigError, match=f"`{option}` of YoloxDetector is {value}"):
        replace(detector, **{option: value})


def test_a_missing_file_is_refused_at_once(tmp_path):
    with pytest.raises(MissingPathError, match="`path` of YoloxDetector"):
        YoloxDetector(tmp_path / "none.onnx")


def test_the_same_file_elsewhere_is_the_same_detector_and_another_file_is_not(detector, tmp_path):
    (tmp_path / "copy.onnx").touch()
    assert replace(detector, path=tmp_path / "copy.onnx").identity() == detector.identity()
    (tmp_path / "copy.onnx").write_bytes(b"other")
    assert replace(detector, path=tmp_path / "copy.onnx").identity() != detector.identity()


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.skipif(not (WEIGHTS.is_file() and SAMPLE.is_dir()), reason="../shared has no photos or no YOLOX")
def test_real_photos_show_what_their_annotations_say(tmp_path, capsys):
    """Precision 0.89 and recall 0.56 of the sets of classes is what others measured on 160 photos of COCO."""
    from synth.detection.cli import main

    annotated = json.loads((SAMPLE / "annotations" / "instances.json").read_text())
    names = {category["id"]: category["name"] for category in annotated["categories"]}
    photos = [image["file_name"] for image in annotated["images"]][::6]
    (tmp_path / "photos").mkdir()
    for name in photos:
        (tmp_path / "photos" / name).symlink_to((SAMPLE / "images" / name).resolve())
    options = ["--detector", "YoloxDetector", "--detector.path", str(WEIGHTS)]
    assert main(["--images", str(tmp_path / "photos"), "--output", str(tmp_path / "found.json"), *options]) == 0
    assert f"{len(photos)} images" in capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text())
    found_names = {category["id"]: category["name"] for category in found["categories"]}
    there, seen = (
        {(each["image_id"], called[each["category_id"]]) for each in data["annotations"]}
        for data, called in ((annotated, names), (found, found_names))
    )
    ids = {image["id"] for image in found["images"]}
    there = {pair for pair in there if pair[0] in ids}
    assert len(ids) == len(photos)
    assert len(seen & there) / len(seen) > 0.8
    assert len(seen & there) / len(there) > 0.45

"""Detectors of `transformers`: a tiny random model, saved and loaded as real ones are."""

import json
import re

import numpy as np
import pytest

from datamodules.errors import ConfigError, MissingPathError
from synth.detectors import TransformersDetector

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow  # one of them loads transformers

LABELS = {0: "dog", 1: "sofa", 3: "cat"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved detector that finds other boxes in every image."""
    from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessor

    folder = tmp_path_factory.mktemp("yolos")
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = YolosConfig(
        **small, image_size=[32, 32], patch_size=8, num_detection_tokens=6, id2label=LABELS, num_labels=3
    )
    torch.manual_seed(0)
    model = YolosForObjectDetection(config)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1:
                weights.normal_(0, 0.5)
    model.save_pretrained(folder)
    YolosImageProcessor(size={"shortest_edge": 32, "longest_edge": 64}).save_pretrained(folder)
    return folder


@pytest.fixture
def detector(folder):
    return TransformersDetector(str(folder), threshold=0.3, device="cpu")


def images(number):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (40, 50 + 30 * (index % 2), 3), dtype=np.uint8) for index in range(number)]


def test_boxes_are_those_of_the_library_one_image_at_a_time(detector, folder):
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    processor, model = AutoImageProcessor.from_pretrained(folder), AutoModelForObjectDetection.from_pretrained(folder)
    pictures = images(5)
    found = detector.detect(pictures)
    assert sum(len(each.scores) for each in found) > 5
    for picture, each in zip(pictures, found, strict=True):
        with torch.no_grad():
            answer = model.eval()(**processor(images=picture, return_tensors="pt"))
        (wanted,) = processor.post_process_object_detection(answer, 0.3, target_sizes=[picture.shape[:2]])
        np.testing.assert_allclose(each.boxes, wanted["boxes"], atol=1e-3)
        np.testing.assert_allclose(each.scores, wanted["scores"], atol=1e-5)
        assert each.classes.tolist() == wanted["labels"].tolist()
        assert [array.dtype for array in each] == [np.float32, np.int64, np.float32]


def test_nothing_found_is_no_rows(folder):
    (found,) = TransformersDetector(str(folder), threshold=1.0, device="cpu").detect(images(1))
    assert (found.boxes.shape, found.classes.shape, found.scores.shape) == ((0, 4), (0,), (0,))


def test_labels_have_the_numbers_of_the_model(detector):
    assert detector.labels == ["dog", "sofa", "", "cat"]


def test_the_identity_is_the_content_of_the_folder(detector, folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    copy = TransformersDetector(str(tmp_path), threshold=0.3)
    assert copy.identity() == detector.identity()
    (tmp_path / "model.safetensors").write_bytes(b"others")
    assert copy.identity() != detector.identity()
    assert TransformersDetector(str(folder)).identity() != detector.identity()


@pytest.mark.parametrize("lost", ["config.json", "model.safetensors", "preprocessor_config.json"])
def test_a_folder_without_a_part_is_refused_in_one_sentence(folder, tmp_path, lost):
    for file in folder.iterdir():
        if file.name != lost:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ConfigError, match=f"`model` {re.escape(str(tmp_path))} of TransformersDetector cannot be load"):
        TransformersDetector(str(tmp_path)).load()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"architectures": ["YolosModel"]}, "holds a YolosModel, which has no trained YolosForObjectDetection"),
        ({"model_type": "bert"}, "cannot be loaded"),
    ],
)
def test_a_model_of_another_task_is_refused(folder, tmp_path, change, text):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=text):
        TransformersDetector(str(tmp_path)).load()


def test_a_device_that_is_not_there_is_refused(folder):
    with pytest.raises(ConfigError, match="`device` gpu of TransformersDetector cannot be used"):
        TransformersDetector(str(folder), device="gpu").load()


@pytest.mark.parametrize("path", ["/nowhere/detr", "./nowhere", "~/nowhere", "models/detr/base"])
def test_a_path_that_leads_nowhere_is_refused_at_once(path):
    with pytest.raises(MissingPathError, match=f"`model` of TransformersDetector is {path}"):
        TransformersDetector(path)


def test_a_threshold_beyond_one_is_refused():
    with pytest.raises(ConfigError, match="`threshold` of TransformersDetector is 2"):
        TransformersDetector("some/model", threshold=2)

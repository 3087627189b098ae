"""Boxes from a detector: what is written, what is refused, and how a killed run goes on."""

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import pytest
import yaml
from PIL import Image

import synth
from datamodules.errors import ConfigError, UnreadableImageError, UserError
from synth import SynthesisConfig, workspace
from synth.__main__ import main
from synth.detection.config import DetectionConfig
from synth.detection.job import detect
from synth.detection.photos import Photo, opened
from synth.detectors import Detections, Detector
from synth.fills import ZeroFill

CLASSES = ("dog", "frisbee", "man", "cat")
COLOURS = {"dog": (255, 0, 0), "frisbee": (0, 255, 0), "Man": (0, 0, 255), "sofa": (255, 255, 0)}


class Names:
    """A matcher that has nothing but classes."""

    class_names, version = CLASSES, "1"

    def phrases(self, captions):
        raise NotImplementedError

    def mentions(self, captions):
        raise NotImplementedError


@dataclass
class ColourDetector(Detector):
    """Finds one object of each pure colour in an image."""

    labels: ClassVar[list[str]] = list(COLOURS)
    score: float = 0.5
    seen: ClassVar[list[bytes]] = []
    dies_at: ClassVar[list[int]] = []

    def detect(self, images):
        self.seen.extend(image.tobytes() for image in images)
        if self.dies_at and len(self.seen) > self.dies_at[0]:
            raise Killed
        return [self._find(image) for image in images]

    def _find(self, image):
        found = []
        for number, colour in enumerate(COLOURS.values()):
            rows, columns = np.nonzero((image == colour).all(2))
            if len(rows):
                found.append(([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], number))
        boxes, classes = zip(*found, strict=True) if found else ((), ())
        scores = np.full(len(found), self.score, np.float32)
        return Detections(np.array(boxes, np.float32).reshape(-1, 4), np.array(classes, np.int64), scores)


@dataclass
class Fixed(Detector):
    """Finds the same in every image."""

    labels: ClassVar[list[str]] = ["dog", "cat"]
    boxes: list[list[float]] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    def detect(self, images):
        found = (np.array(self.boxes, np.float32), np.array(self.classes), np.array(self.scores, np.float32))
        return [Detections(*found)] * len(images)


class Killed(BaseException):
    """Stands for a signal: nobody catches it."""


def picture(path, objects, size=(48, 40), **options):
    """Write a grey image with a rectangle, x, y, width, height, in the colour of each object."""
    pixels = np.full((size[1], size[0], 3), 100, np.uint8)
    for label, (x, y, width, height) in objects.items():
        pixels[y : y + height, x : x + width] = COLOURS[label]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture(autouse=True)
def fresh():
    ColourDetector.seen.clear()
    ColourDetector.dies_at.clear()


@pytest.fixture
def config(tmp_path):
    """Five images of three batches, of which the last has another size."""
    for number in range(4):
        picture(tmp_path / f"photos/{number}1.png", {"dog": (1 + number, 2, 10, 6), "Man": (30, 20, 8, 9)})
    picture(tmp_path / "photos/more/51.png", {"frisbee": (2, 2, 3, 4), "sofa": (9, 9, 9, 9)}, size=(20, 30))
    return DetectionConfig(
        images=tmp_path / "photos",
        detector=ColourDetector(),
        output=tmp_path / "boxes.json",
        matcher=Names(),
        batch_size=2,
    )


def written(config):
    return json.loads(config.output.read_text())


def boxes(config):
    """Return what was found, as sets of class name and box for each file."""
    data = written(config)
    names = {category["id"]: category["name"] for category in data["categories"]}
    files = {image["id"]: image["file_name"] for image in data["images"]}
    found = {file: set() for file in files.values()}
    for each in data["annotations"]:
        found[files[each["image_id"]]].add((names[each["category_id"]], *each["bbox"]))
    return found


def test_objects_are_written_as_coco_has_them(config):
    found = detect(config)
    data = written(config)
    assert boxes(config) == {
        **{f"{n}1.png": {("dog", 1 + n, 2, 10, 6), ("man", 30, 20, 8, 9)} for n in range(4)},
        "more/51.png": {("frisbee", 2, 2, 3, 4)},
    }
    assert [image["id"] for image in data["images"]] == [1, 11, 21, 31, 51]
    assert {(image["width"], image["height"]) for image in data["images"]} == {(48, 40), (20, 30)}
    assert [category["name"] for category in data["categories"]] == list(CLASSES)
    first = data["annotations"][0]
    assert (first["iscrowd"], first["area"], first["score"], first["segmentation"]) == (0, 60, 0.5, [])
    assert [each["id"] for each in data["annotations"]] == list(range(1, 10))
    assert (found.images, found.empty, found.boxes) == (5, 0, {"dog": 4, "man": 4, "frisbee": 1})
    assert (found.unknown, found.unreadable) == ({"sofa": 1}, [])


def test_a_label_may_be_renamed(config):
    found = detect(replace(config, renamed={"sofa": "cat"}))
    assert found.unknown == {}
    assert boxes(config)["more/51.png"] == {("frisbee", 2, 2, 3, 4), ("cat", 9, 9, 9, 9)}


def test_boxes_are_cut_at_the_border_and_those_without_area_left_out(config):
    some = [[-5, -3, 12.345, 9], [40, 30, 60, 50], [50, 1, 60, 9], [3, 3, 3.001, 9], [np.nan, 0, 9, 9], [1, 1, 2, 2]]
    fixed = Fixed(some, [0, 1, 0, 0, 1, 1], [0.2, 0.9, 0.8, 0.7, 0.6, 0.12345678])
    detect(replace(config, detector=fixed))
    found = [each for each in written(config)["annotations"] if each["image_id"] == 1]
    assert [each["bbox"] for each in found] == [[40, 30, 8, 10], [0, 0, 12.35, 9], [1, 1, 1, 1]]
    assert [each["score"] for each in found] == [0.9, 0.2, 0.1235]
    assert [each["category_id"] for each in found] == [4, 1, 4]


def test_boxes_refer_to_the_pixels_as_they_are_stored(config):
    rotated = Image.Exif()
    rotated[0x0112] = 6
    picture(config.images / "71.png", {"dog": (1, 2, 10, 6)}, exif=rotated)
    detect(config)
    assert boxes(config)["71.png"] == {("dog", 1, 2, 10, 6)}


@pytest.mark.parametrize("images", [0, 2, 4])
def test_a_killed_run_goes_on_repeats_nothing_and_ends_in_the_same_file(config, tmp_path, images):
    undisturbed = replace(config, output=tmp_path / "undisturbed.json")
    detect(undisturbed)
    ColourDetector.seen.clear()
    ColourDetector.dies_at.append(images)
    with pytest.raises(Killed):
        detect(config)
    assert not config.output.exists()
    assert len(ColourDetector.seen) == images + (2 if images < 4 else 1)
    ColourDetector.dies_at.clear()
    del ColourDetector.seen[images:]
    detect(config)
    assert len(ColourDetector.seen) == len(set(ColourDetector.seen)) == 5
    assert config.output.read_bytes() == undisturbed.output.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["boxes.json", "photos", "undisturbed.json"]


def test_a_torn_line_is_looked_at_again(config, tmp_path):
    ColourDetector.dies_at.append(4)
    with pytest.raises(Killed):
        detect(config)
    (log,) = (tmp_path / "boxes.json.unfinished").rglob("*.jsonl")
    log.write_bytes(log.read_bytes()[:-5])
    ColourDetector.seen.clear()
    ColourDetector.dies_at[:] = [2]
    with pytest.raises(Killed):
        detect(config)
    assert len(ColourDetector.seen) == 3
    ColourDetector.seen.clear()
    ColourDetector.dies_at.clear()
    detect(config)
    assert len(ColourDetector.seen) == 1
    assert len(boxes(config)) == 5


def test_what_a_crash_of_the_machine_can_leave_is_looked_at_again(config, tmp_path):
    ColourDetector.dies_at.append(4)
    with pytest.raises(Killed):
        detect(config)
    (log,) = (tmp_path / "boxes.json.unfinished").rglob("*.jsonl")
    first, _, rest = log.read_bytes().partition(b"\n")
    log.write_bytes(b"\0" * len(first) + b"\n" + rest)
    ColourDetector.seen.clear()
    ColourDetector.dies_at.clear()
    detect(config)
    assert len(ColourDetector.seen) == 3
    assert len(boxes(config)) == 5


def test_a_folder_in_place_of_the_file_is_refused_before_the_work(config):
    config.output.mkdir()
    with pytest.raises(ConfigError, match=r"`output` is .*boxes.json, which is a folder; name the json file"):
        detect(config)
    assert not ColourDetector.seen


def test_what_was_found_outlives_the_process(config, monkeypatch):
    def exits_at_the_last(self, images):
        if len(images) == 1:
            os._exit(0)  # as suddenly as by SIGKILL: nothing is flushed
        return [self._find(image) for image in images]

    with monkeypatch.context() as patched:
        patched.setattr(ColourDetector, "detect", exits_at_the_last)
        child = os.fork()
        if not child:
            detect(config)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
    detect(config)
    assert len(ColourDetector.seen) == 1
    assert len(boxes(config)) == 5


def test_no_more_than_the_next_batch_is_read_ahead(config):
    taken = []
    batches = ((taken.append(number) or number, [Photo(11, "11.png")]) for number in range(9))
    for number, (pixels,) in opened(config.images, batches, workers=1):
        assert pixels.shape == (40, 48, 3)
        assert len(taken) <= number + 2
    assert taken == list(range(9))


def test_a_finished_file_is_left_alone(config):
    first = detect(config)
    before = config.output.stat().st_mtime_ns
    ColourDetector.seen.clear()
    assert detect(config) == first
    assert ColourDetector.seen == []
    assert config.output.stat().st_mtime_ns == before


def test_another_config_does_not_write_over_it(config):
    detect(config)
    with pytest.raises(ConfigError, match=r"was made with `detector.score` 0.5 instead of 0.25; name another"):
        detect(replace(config, detector=ColourDetector(score=0.25)))
    picture(config.images / "61.png", {})
    with pytest.raises(ConfigError, match=r"was made with `images.number` 5 instead of 6"):
        detect(config)


def test_an_unfinished_run_of_another_config_is_not_gone_on_with(config):
    ColourDetector.dies_at.append(2)
    with pytest.raises(Killed):
        detect(config)
    with pytest.raises(ConfigError, match=r"unfinished set made with `detector.score` 0.5 instead of 0.25"):
        detect(replace(config, detector=ColourDetector(score=0.25)))


def test_two_runs_do_not_write_one_file(config):
    holds = (
        "import sys, pathlib; from synth.workspace import claimed\n"
        "with claimed(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    folder = str(config.output) + ".unfinished"
    with subprocess.Popen(
        [sys.executable, "-c", holds, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match="is being written by another run"):
            detect(config)
        other.stdin.close()
    detect(config)
    assert config.output.exists()


@pytest.mark.parametrize("text", ["no json", "[]", '{"images": [], "annotations": [], "categories": []}'])
def test_a_file_of_somebody_else_is_not_written_over(config, text):
    config.output.write_text(text)
    with pytest.raises(ConfigError, match="was not written by this command"):
        detect(config)
    assert config.output.read_text() == text


def test_a_full_disk_is_one_sentence_and_the_run_goes_on(config, monkeypatch):
    with monkeypatch.context() as patched:

        def full(*_):
            raise OSError(28, "No space left on device")

        patched.setattr(workspace.os, "replace", full)
        with pytest.raises(ConfigError, match=r"cannot be written \(No space left on device\)"):
            detect(config)
    assert len(detect(config).boxes) == 3


def test_unreadable_images_are_named_counted_and_tried_again(config, capsys):
    (config.images / "11.png").write_bytes((config.images / "01.png").read_bytes()[:60])
    (config.images / "91.png").touch()
    ColourDetector.dies_at.append(4)  # so that the last batch of those that can be read is not reached
    picture(config.images / "92.png", {})
    with pytest.raises(Killed):
        detect(config)
    said = " ".join(capsys.readouterr().err.split())
    assert "11.png cannot be read" in said
    ColourDetector.dies_at.clear()
    ColourDetector.seen.clear()
    picture(config.images / "11.png", {"dog": (0, 0, 5, 5)})
    found = detect(config)
    assert (found.unreadable, found.images) == (["91.png"], 6)
    assert boxes(config)["11.png"] == {("dog", 0, 0, 5, 5)}
    assert "91.png" not in boxes(config)
    found.show()
    assert "Could not be read (1): 91.png." in capsys.readouterr().out


def test_too_many_unreadable_images_end_the_run(config):
    (config.images / "11.png").write_bytes(b"")
    (config.images / "21.png").write_bytes(b"no image")
    with pytest.raises(UnreadableImageError, match=r"2 images .* more than `max_unreadable` 1 allows.* 11.png, 21.png"):
        detect(replace(config, max_unreadable=1))
    assert detect(replace(config, max_unreadable=2)).unreadable == ["11.png", "21.png"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"renamed": {"sofs": "cat"}}, "`renamed` has a label 'sofs', which there is not; did you mean sofa?"),
        ({"renamed": {"sofa": "cats"}}, "`renamed` has a class 'cats', which there is not; did you mean cat?"),
        ({"images": "nowhere"}, "config key `images`"),
    ],
)
def test_what_does_not_fit_is_refused(config, tmp_path, change, text):
    change = {key: tmp_path / value if key == "images" else value for key, value in change.items()}
    with pytest.raises((ConfigError, FileNotFoundError), match=text):
        detect(replace(config, **change))
    assert not config.output.exists()


def test_a_detector_of_other_things_is_refused(config, monkeypatch):
    monkeypatch.setattr(Fixed, "labels", ["leaf", "tree"])
    with pytest.raises(ConfigError, match=r"None of the 2 labels of `detector` \(leaf, tree, \.\.\.\) is one of the 4"):
        detect(replace(config, detector=Fixed()))


@pytest.mark.parametrize(("key", "least"), [("batch_size", 1), ("workers", 1), ("max_unreadable", 0)])
def test_numbers_that_cannot_work_are_refused(config, key, least):
    with pytest.raises(ConfigError, match=f"`{key}` is {least - 1}; give {least} or more"):
        replace(config, **{key: least - 1})


def test_a_folder_without_images_is_refused(config, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no image"):
        detect(replace(config, images=tmp_path / "empty"))


@pytest.mark.slow
def test_images_and_captions_without_boxes_become_counterfactuals(tmp_path, capsys, drawn_class_path):
    """From two files on a disk to a synthetic set, with nothing between but the command and what it printed."""
    import drawn_data

    from datamodules import CocoDataModule
    from datamodules.phrases import RuleChunker, WordListMatcher

    drawn_data.ColourDetector = ColourDetector
    picture(tmp_path / "photos/a.png", {"dog": (1, 2, 10, 6), "Man": (30, 20, 8, 9)})
    picture(tmp_path / "photos/b.png", {"dog": (1, 2, 10, 6), "frisbee": (30, 20, 8, 9)})
    with (tmp_path / "said.csv").open("w", newline="") as file:
        rows = [("a.png", "A man and a dog"), ("b.png", "A dog near a frisbee"), ("b.png", "Some grass")]
        csv.writer(file).writerows([("file", "caption"), *rows])
    (tmp_path / "words.yaml").write_text("classes: {dog: [], frisbee: [], man: []}")
    paths = {"images": tmp_path / "photos", "captions": tmp_path / "said.csv", "output": tmp_path / "boxes.json"}
    options = [word for key, path in paths.items() for word in (f"--{key}", str(path))]
    options += ["--detector", "drawn_data.ColourDetector", "--matcher", "datamodules.phrases.WordListMatcher"]
    assert main(["detect", *options, "--matcher.word_list", str(tmp_path / "words.yaml")]) == 0
    printed = yaml.safe_load(capsys.readouterr().out.partition("For a config:\n")[2])["data"]
    assert printed["class_path"] == "datamodules.CocoDataModule"
    matcher = WordListMatcher(tmp_path / "words.yaml", RuleChunker())
    data = CocoDataModule(**printed["init_args"], matcher=matcher, cache_dir=tmp_path / "cache")
    job = SynthesisConfig(data=data, output=tmp_path / "set", pairs={"train": ["train"]}, fill=ZeroFill())
    synth.run(job, alone=True)
    lines = [json.loads(line) for line in (tmp_path / "set/train/metadata.jsonl").read_text().splitlines()]
    assert Counter(line["source_image_id"] for line in lines) == {0: 1, 1: 1}
    for line in lines:
        assert line["removed_boxes"] == [[1, 2, 10, 6] if line["removed"] == ["dog"] else [30, 20, 8, 9]]


def test_nothing_is_written_beside_an_output_that_will_not_be(config, tmp_path):
    (tmp_path / "said.csv").write_text("file,caption\n" + f"{next(config.images.iterdir()).name},a cat\n")
    for change in ({"renamed": {"zebra fish": "cat"}}, {"output": tmp_path / "missing" / "boxes.json"}):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(UserError):
            detect(replace(config, captions=tmp_path / "said.csv", **change))
        assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_with_metadata_is_told_how_to_use_the_boxes(config, tmp_path, capsys):
    from datamodules import FolderDataModule

    files = sorted(path.relative_to(config.images).as_posix() for path in config.images.rglob("*.png"))
    lines = [json.dumps({"file_name": file, "text": "A dog."}) + "\n" for file in files[::-1]]
    (config.images / "metadata.jsonl").write_text("".join(lines))
    found = detect(config)
    found.show()
    printed = yaml.safe_load(capsys.readouterr().out.partition("For a config:\n")[2])["data"]
    assert printed["class_path"] == "datamodules.FolderDataModule"
    tables = FolderDataModule(**printed["init_args"], matcher=Names(), cache_dir=tmp_path / "cache").tables
    assert list(tables.files) == files[::-1]
    assert Counter(tables.class_names[index] for index in tables.categories) == found.boxes

"""The page about one's own data, followed step by step with real photos in a folder of their own."""

from __future__ import annotations

import csv
import glob
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from PIL import Image

from datamodules import CocoDataModule, FolderDataModule
from datamodules.phrases import CocoMatcher, RuleChunker, WordListMatcher
from experiments.__main__ import main as experiments
from metrics.__main__ import main as compare
from synth.__main__ import main as synth
from train import main as train

PAGE = (Path(__file__).parents[1] / "docs" / "your-data.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^<!-- (\S+\.\w+) -->\n```\w+\n(.+?\n)```$", PAGE, re.M | re.S))
DETECT = re.findall(r"^<!-- detect -->\n```\n(.+?)\n```$", PAGE, re.M | re.S)[0].splitlines()
COMMANDS = re.findall(r"^(?:PYTHONPATH=\. )?(python .+)$", PAGE.replace("\n".join(DETECT), ""), re.M)
SHARED = Path(__file__).parents[2] / "shared"
SAMPLE = SHARED / "data" / "coco-sample"
real = pytest.mark.skipif(not SAMPLE.is_dir(), reason="no photos in ../shared/data/coco-sample")


def _photos(folder: Path, every: int) -> list[dict[str, object]]:
    """Link photos into a folder, and return their lines."""
    annotations = SAMPLE / "annotations"
    tables = CocoDataModule(
        SAMPLE / "images",
        annotations / "karpathy_sample.json",
        [annotations / "instances.json", annotations / "instances_boxes_only.json"],
        matcher=CocoMatcher(RuleChunker()),
    ).tables
    folder.mkdir()
    lines: list[dict[str, object]] = []
    for row in range(0, len(tables), every):
        said = slice(*tables.caption_offsets[row : row + 2])
        seen = slice(*tables.object_offsets[row : row + 2])
        name = Path(tables.files[row]).name
        (folder / name).symlink_to((SAMPLE / "images" / tables.files[row]).absolute())
        names = [tables.class_names[index] for index in tables.categories[seen]]
        objects = {"bbox": tables.boxes[seen].tolist(), "categories": names}
        lines.append({"file_name": name, "text": tables.texts[said], "objects": objects})
    return lines


def _write(folder: Path, lines: list[dict[str, object]]) -> None:
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The folder of a reader who has saved every file of the page; its modules can be imported."""
    for name, code in FILES.items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        patch.syspath_prepend(str(tmp_path))
        patch.delitem(sys.modules, "my_model", raising=False)
        yield tmp_path
    sys.modules.pop("my_model", None)


def _run(command: str) -> None:
    """Run a command as a shell would, which puts the files in the place of patterns."""
    words = [found for word in shlex.split(command)[1:] for found in (sorted(glob.glob(word)) or [word])]
    if words[0] == "train.py":
        assert train([*words[1:], "--trainer.enable_progress_bar", "false"]) == 0, command
    else:
        program = {"synth": synth, "metrics": compare, "experiments": experiments}[words[1]]
        assert program(words[2:]) == 0, command


@pytest.mark.slow
@pytest.mark.real
@real
def test_the_page_runs_from_top_to_bottom(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write(folder / "photos", _photos(folder / "photos", every=6))
    said = {}
    for command in COMMANDS:
        capsys.readouterr()
        _run(command)
        said[command] = capsys.readouterr().out
    *_, compared, reported = COMMANDS
    assert "ODmAP@1" in said[compared]
    assert "report.html" in said[reported]
    _check_report((folder / "report.html").read_text(encoding="utf-8"))
    counts = [_steps(folder / "runs" / name) for name in ("mitigated", "control")]
    assert counts[0] == counts[1] > 0
    assert len(list((folder / "runs").glob("*/*/checkpoints/best-test-*/odmap.parquet"))) == 2
    assert list((folder / "runs" / "mine").glob("*/removed_classes.csv"))


def _check_report(page: str) -> None:
    held = json.loads(re.findall(r'id="held">(.*?)</script>', page, re.S)[0])
    assert held["runs"] == ["control", "mitigated"]
    assert 0 < len(held["queries"]) == len(held["pictures"])
    assert "<td>rsum</td>" in page


def _steps(runs: Path) -> int:
    """Return how many steps the only run below a folder was trained for."""
    (log,) = runs.glob("*/metrics.csv")
    with log.open() as file:
        return sum(bool(row["train/loss"]) for row in csv.DictReader(file))


@pytest.mark.slow
@pytest.mark.real
@real
@pytest.mark.skipif(not (SHARED / "weights").is_dir(), reason="no detector in ../shared/weights")
def test_the_detector_finds_the_boxes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = _photos(folder / "photos", every=8)
    _write(folder / "photos", [{key: line[key] for key in ("file_name", "text")} for line in lines])
    (folder / "yolox_nano.onnx").symlink_to((SHARED / "weights" / "yolox_nano_coco" / "yolox_nano.onnx").absolute())
    _run(DETECT[0])
    block = yaml.safe_load(capsys.readouterr().out.split("For a config:")[1])["data"]
    assert block == {
        "class_path": "datamodules.FolderDataModule",
        "init_args": {"root": "photos", "instances": "boxes.json"},
    }
    _run(DETECT[1])
    data = FolderDataModule(**block["init_args"], matcher=CocoMatcher(RuleChunker()))
    data.prepare_data()
    assert len(data.tables.boxes) > len(data.tables) == len(lines)
    made = (folder / "from_detected_boxes" / "train" / "metadata.jsonl").read_text().splitlines()
    assert len(made) > 3


def test_the_lines_of_the_page_are_read(folder: Path) -> None:
    for name in ("beach.jpg", "2024/desk.png"):
        path = folder / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (200, 200)).save(path)
    lines = re.findall(r"^```json\n(.+?\n)```$", PAGE, re.M | re.S)[0]
    (folder / "photos" / "metadata.jsonl").write_text(lines)
    tables = FolderDataModule("photos", matcher=CocoMatcher(RuleChunker())).tables
    assert list(tables.files) == ["beach.jpg", "2024/desk.png"]
    assert tables.caption_images.tolist() == [0, 0, 1]
    shown = [tables.class_names[index] for index in tables.categories]
    assert shown == ["dog", "dog", "frisbee", "laptop", "mouse"]


def test_the_words_of_the_page_name_their_classes(folder: Path) -> None:
    matcher = WordListMatcher(Path("my_words.yaml"), RuleChunker())
    assert matcher.mentions(["A boy beside two lamps", "Puppies"]).tolist() == [
        [True, False, True],
        [False, True, False],
    ]


def test_a_config_takes_the_words_of_the_page(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    block = re.findall(r"^```yaml\n(matcher: .+?)\n```$", PAGE, re.M | re.S)[0]
    (folder / "words_too.yaml").write_text(yaml.safe_dump({"data": {"init_args": yaml.safe_load(block)}}))
    shares = ["--data.init_args.shares", "{train: 9, test: 1}"]
    with pytest.raises(SystemExit):
        train(["fit", "--config", "my_run.yaml", "--config", "words_too.yaml", *shares, "--print_config"])
    shown = yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]
    assert shown["matcher"]["class_path"].endswith("WordListMatcher")
    assert shown["root"] == "photos"
    assert shown["shares"] == {"train": 9, "test": 1}

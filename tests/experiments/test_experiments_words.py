"""The command `spurious_words`, with a model of which it is known what misleads it."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from datamodules.errors import ConfigError
from experiments import spurious_words


@pytest.fixture
def run(birds: Path, load_colours: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setattr(spurious_words, "load_model", load_colours)

    def start(checkpoint: str, *options: str) -> list[dict[str, str]]:
        path = tmp_path / "made" / "words.csv"
        fixed = ["--ckpt", checkpoint, "--data", str(birds), "--prompt", "a {}", "the {}", "--to", str(path)]
        assert spurious_words.main([*fixed, *options]) == 0
        with path.open(newline="") as file:
            return list(csv.DictReader(file))

    return start


def test_the_ground_that_misleads_the_model_comes_first(run: Any, capsys: Any) -> None:
    rows = run("before", "--words", "sky", "land", "water", "land")
    assert [(row["name"], row["word"]) for row in rows] == [
        (name, word)
        for name, order in (("landbird", ("land", "sky", "water")), ("waterbird", ("water", "sky", "land")))
        for word in order
    ]
    best, middle, worst = rows[3:]
    assert float(best["auc"]) == 1
    assert float(worst["auc"]) == 0
    assert float(best["p_holm"]) < 0.01
    assert float(middle["p_holm"]) > 0.05
    assert best["errors"] == "12"  # both groups before the other ground
    assert "waterbird" in capsys.readouterr().out


def test_a_model_that_is_not_misled_has_no_errors_to_align_with(run: Any, capsys: Any) -> None:
    assert run("after", "--words", "land", "water") == []
    assert "makes no errors" in capsys.readouterr().out


def test_words_come_from_a_file_or_from_the_data(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "candidates.txt"
    path.write_text("sky\n\n  water \n")
    assert {row["word"] for row in run("before", "--words", str(path))} == {"sky", "water"}
    assert {row["word"] for row in run("before")} == {"land", "water"}
    one = run("before", "--classes", "waterbird", "--words", "landbird", "Waterbird", "sky")
    assert {row["name"] for row in one} == {"waterbird"}
    assert {row["word"] for row in one} == {"landbird", "sky"}  # its own name is no candidate


def test_a_file_without_words_is_refused(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "empty.txt"
    path.write_text("\n")
    with pytest.raises(ConfigError, match="`--words` holds no word"):
        run("before", "--words", str(path))

"""The command `spurious_words`, with a model of which it is known what misleads it."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from datamodules.errors import ConfigError, MissingPathError, UnreadableImageError
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
    assert "Without words: landbird, waterbird." in capsys.readouterr().out


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


def test_a_class_whose_only_word_is_its_own_is_named(run: Any, capsys: Any) -> None:
    assert {row["name"] for row in run("before", "--words", "waterbird")} == {"landbird"}
    assert "Without words: waterbird." in capsys.readouterr().out
    twice = run("before", "--words", "land", "water", "--classes", "landbird", "landbird")
    assert [row["word"] for row in twice] == ["land", "water"]


@pytest.mark.parametrize("word", ["candidates.txt", "lists/candidates"])
def test_a_misspelled_file_is_no_word(run: Any, word: str) -> None:
    with pytest.raises(MissingPathError, match=f"`--words` is {word}, but .* is no file"):
        run("before", "--words", word)


def test_a_prompt_without_a_place_for_the_name_is_refused(run: Any, capsys: Any) -> None:
    with pytest.raises(SystemExit) as exit_info:
        run("before", "--prompt", "a photo of a {class}")
    assert exit_info.value.code == 2
    assert "must have {} where the name goes" in capsys.readouterr().err


def test_a_model_that_diverged_is_told(run: Any, load_colours: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_colours("before")
    monkeypatch.setattr(spurious_words, "load_model", lambda _: model)
    monkeypatch.setattr(model, "encode_images", lambda pixels: torch.full((len(pixels), 4), torch.nan))
    with pytest.raises(ConfigError, match="Colours makes of images what is not finite"):
        run("before", "--words", "land", "water")


def test_images_of_which_none_can_be_read_are_told(run: Any, tmp_path: Path) -> None:
    for number in range(24):
        (tmp_path / "birds" / f"{number}.png").write_bytes(b"no image")
    with (
        pytest.warns(UserWarning, match="cannot be read"),
        pytest.raises(UnreadableImageError, match="None of the 24 images"),
    ):
        run("before", "--data.init_args.max_unreadable", "30")


def test_a_result_that_cannot_be_written_is_told_before_the_work(run: Any, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(spurious_words, "rank", lambda *_: pytest.fail("the work began"))
    with pytest.raises(ConfigError, match=r"`--to` .* cannot be written"):
        run("before", "--to", str(tmp_path))

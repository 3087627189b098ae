"""Figure 3 from results on disk, with models of which it is known what they retrieve."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from datamodules.errors import ConfigError
from experiments import figure3
from experiments.figure3_drawing import Line
from lightning_modules.processor import Processor


class OnlyDogs:
    """Embeds every image as a dog, and a text as one where it says so."""

    device = torch.device("cpu")
    processor = Processor(
        *[lambda image: torch.zeros(3, 2, 2)] * 2,
        lambda texts: torch.tensor([[float(text.split()[-1] == "dog"), 0.1] for text in texts]),
    )

    def encode_images(self, pixel_values: Any) -> Any:
        return F.normalize(torch.tensor([[1.0, 0.0]]).expand(len(pixel_values), 2), dim=1)

    def encode_texts(self, tokens: Any) -> Any:
        return F.normalize(tokens, dim=1)


@pytest.fixture
def draw(retrieved: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(figure3, "load_model", lambda given: OnlyDogs())
    checkpoint = tmp_path / "best.ckpt"
    checkpoint.touch()

    def start(*options: str, found: str = str(checkpoint)) -> Path:
        runs = [str(retrieved.run(name, checkpoint=found)) for name in ("before", "after")]
        fixed = ["--run", runs[0], "--against", runs[1], "--data", str(retrieved.config), "--to", str(tmp_path / "to")]
        assert figure3.main([*fixed, *options]) == 0
        return tmp_path / "to"

    return start


def test_originals_are_ranked_by_the_models_and_queries_as_tested(draw: Any) -> None:
    folder = draw("--queries", "3", "--top_k", "2")
    page = (folder / "figure3.html").read_text(encoding="utf-8")
    assert page.count("<article>") == 6  # each query as it was and without the object
    assert page.count("<li>") == 6 * 2 * 2
    originals = [card for card in page.split("<article>")[1:] if "<figcaption>original" in card]
    assert len(originals) == 3
    assert all(card.count('<span class="right">') == 4 and "wrong" not in card for card in originals)
    assert 'class="wrong"' in page.partition("</header>")[2]
    assert "<img src=x" not in page
    assert "<script" not in page
    assert Image.open(folder / "figure3.png").width > 900


def test_equal_captions_are_ranked_as_in_the_test_and_as_many_for_both_pictures(draw: Any, retrieved: Any) -> None:
    page = (draw("--queries", "1", "--top_k", "9") / "figure3.html").read_text(encoding="utf-8")
    lists = [re.findall("<li>(.*?)</li>", part) for part in re.findall("<ol>(.*?)</ol>", page)]
    assert [len(lines) for lines in lists] == [5] * 4  # the test has five
    texts = retrieved.tables.texts
    rows = [row for row in range(len(texts)) if texts[row].endswith("dog")]
    assert [re.sub("<.*?>", "", line) for line in lists[0]] == [texts[row] for row in rows[:5]]


def test_a_sheet_that_is_cut_says_so(
    draw: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figure3, "ON_SHEET", 2)
    draw("--queries", "3")
    assert "figure3.png (its first 2 of 6 pictures)" in capsys.readouterr().out


def test_a_checkpoint_that_is_gone_is_named(draw: Any) -> None:
    with pytest.raises(ConfigError, match=r"gone\.ckpt .*--ckpt"):
        draw(found="gone.ckpt")


def test_of_a_study_it_is_drawn_for_every_model_and_seed_that_is_finished(
    draw: Any, retrieved: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cell(row: str, seed: int) -> Any:
        run = retrieved.run({"control": "before", "synthetic": "after"}[row], checkpoint=str(tmp_path / "best.ckpt"))
        named = SimpleNamespace(name=row, label=row.title())
        results = None if (row, seed) == ("synthetic", 1) else run
        return SimpleNamespace(
            model="clip", seed=seed, row=named, results=lambda _: results, data=lambda _: retrieved.config
        )

    cells = [cell(row, seed) for seed in (0, 1) for row in ("control", "synthetic")]
    asked: list[Any] = []

    def plan(options: Any, rows: Any) -> Any:
        asked.append((options.models, options.seeds, rows(None)))
        settings = SimpleNamespace(model=lambda name: SimpleNamespace(label=name.upper()))
        failed = ["clip/synthetic/seed1: no memory"]
        return SimpleNamespace(settings=settings, work=tmp_path, to=tmp_path, cells=cells, run=lambda jobs: failed)

    monkeypatch.setattr(figure3, "plan", plan)
    draw("--queries", "2")
    assert figure3.main(["--models", "clip", "--seeds", "2", "--queries", "2"]) == 1
    assert asked == [(["clip"], 2, ("control", "synthetic"))]
    assert [path.name for path in (tmp_path / "figure3").iterdir()] == ["clip-seed0"]
    page = (tmp_path / "figure3" / "clip-seed0" / "figure3.html").read_text(encoding="utf-8")
    assert "CLIP, Control" in page
    assert page.count("<article>") == 4


def test_what_names_a_wrong_class_is_wrong_whatever_else_it_names() -> None:
    line = Line.of({"text": "cats and dogs sit", "phrases": [[0, 13, [1, 2]]]}, {1}, {2})
    assert line.parts == (("cats and dogs", "wrong"), (" sit", ""))

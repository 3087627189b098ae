"""Tables of studies as files: what stands in their cells, beside them and below them."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from matplotlib.figure import Figure

from datamodules.errors import ConfigError
from experiments import beyond, figure4, table1, table2, table3
from experiments.study.curves import Point, draw
from experiments.study.paper import paper
from experiments.study.results import load
from experiments.study.settings import Settings
from experiments.study.tables import Form, labels_of, render

LEVELS = {"control": 40, "synthetic": 60, "oracle": 80}


def _render(cells: Any, made: list[Any], form: Form, to: Path) -> list[dict[str, str]]:
    results = load(cells.root, made)
    render(
        form, results, labels_of(made), paper("table1", "Scenes"), {"dataset": "Scenes", "settings": "scenes-small"}, to
    )
    with (to / f"{form.name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def made(cells: Any) -> list[Any]:
    """Return the cells of two models, two seeds each."""
    return [
        cells.add(model, row, seed, level)
        for seed in (0, 1)
        for model in ("clip", "mine")
        for row, level in LEVELS.items()
    ]


def test_table_1_has_a_line_per_row_and_the_paper_beside_it(cells: Any, made: list[Any], tmp_path: Path) -> None:
    records = _render(cells, made, table1.FORM, tmp_path)
    text = (tmp_path / "table1.md").read_text()
    body = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(body) == 1 + 6
    assert all(line.count("|") == body[0].count("|") for line in body)
    assert "paper (COCO)" in body[0]
    assert body[1].startswith("| CLIP | Control | 39.")
    assert body[1].endswith("| 59.8 / 53.2 / 48.8 |")
    assert "+20.0 [+20.0, +20.0]" in body[2]
    assert "50 % [50, 50]" in body[2]
    assert "100 % [100, 100]" in body[3]
    assert body[6].endswith("| - |")
    assert (
        "12 queries; gallery of 50 captions; seeds 0, 1; optimiser steps: CLIP 20, MINE 20; device cpu; protocol abc"
        in text
    )
    assert "random ranking: 20.0 / 4.0 / 2.0" in text
    one = next(record for record in records if (record["row"], record["measure"]) == ("synthetic", "ODmAP@1"))
    assert float(one["difference"]) == pytest.approx(20, abs=1e-4)
    assert (one["common_seeds"], one["paper"], one["paper_source"]) == ("0 1", "70.1", "Table 1, COCO")
    assert (one["torch"], one["commit"], one["settings"]) == ("2.11", "c0ffee", "scenes-small")
    assert len({record["settings_hash"] for record in records} - {""}) == 1
    assert {record["gap_closed"] for record in records if record["measure"] != "ODmAP@1"} == {""}


def test_rows_of_unlike_many_steps_are_not_said_to_have_those_of_the_control(cells: Any, tmp_path: Path) -> None:
    made = [cells.add("clip", row, 0, 40) for row in ("control", "synthetic", "per_batch")]
    _render(cells, made, table1.FORM, tmp_path)
    assert "which has the optimiser steps and seeds of the other trained rows" in (tmp_path / "table1.md").read_text()
    log = made[2].folder(cells.root) / "fit" / "1" / "metrics.csv"
    log.write_text(log.read_text().replace("1,19,", "1,17,"))
    _render(cells, made, table1.FORM, tmp_path)
    text = (tmp_path / "table1.md").read_text()
    assert "optimiser steps: CLIP 18 to 20;" in text
    assert "which has the seeds, though not exactly the optimiser steps, of the other trained rows" in text


def test_cells_of_more_than_one_commit_are_told(cells: Any, tmp_path: Path) -> None:
    made = [cells.add("clip", "control", 0, 40), cells.add("clip", "synthetic", 0, 60)]
    _render(cells, made, table1.FORM, tmp_path)
    assert "more than one" not in (tmp_path / "table1.md").read_text()
    made[1] = cells.add("clip", "synthetic", 1, 60, made={"commit": "facade"})
    _render(cells, made, table1.FORM, tmp_path)
    assert "The cells were made with more than one commit: c0ffee; facade." in (tmp_path / "table1.md").read_text()


def test_a_cell_that_failed_leaves_a_dash_and_a_note(cells: Any, tmp_path: Path) -> None:
    made = [cells.add("clip", "control", 0, 40), cells.cell("clip", "synthetic", 0)]
    _render(cells, made, table1.FORM, tmp_path)
    text = (tmp_path / "table1.md").read_text()
    assert "| Synthetic | - | - | - | - | - | - | - | - | - | - | 70.1 / 62.3 / 56.8 |" in text
    assert "Missing, since their runs did not end: clip/synthetic/seed0." in text


def test_a_study_of_which_nothing_is_there_is_a_table_of_dashes(cells: Any, tmp_path: Path) -> None:
    _render(cells, [cells.cell("mine", "control", 0)], table1.FORM, tmp_path)
    assert "| MINE | Control | - |" in (tmp_path / "table1.md").read_text()


def test_rows_of_other_seeds_than_the_controls_are_named(cells: Any, tmp_path: Path) -> None:
    made = [
        cells.add("clip", "control", 0, 40),
        cells.add("clip", "control", 1, 40),
        cells.add("clip", "zero_shot", 0, 30),
    ]
    _render(cells, made, table1.FORM, tmp_path)
    assert "on the seeds alone that the control has, too: CLIP, Zero_Shot (0)" in (
        (tmp_path / "table1.md").read_text().replace("\\_", "_")
    )


def test_a_row_that_does_not_re_rank_is_compared_without_and_named(cells: Any, tmp_path: Path) -> None:
    made = [cells.add("blip", "control", 0, 40, reranked=70), cells.add("blip", "querybank_control", 0, 45)]
    records = _render(cells, made, table1.FORM, tmp_path)
    gains = {r["measure"]: r["difference"] for r in records if r["row"] == "querybank_control"}
    assert float(gains["ODmAP@1"]) == pytest.approx(5, abs=1e-4)
    text = (tmp_path / "table1.md").read_text()
    assert "after re-ranking, but for BLIP, Querybank" in text
    assert {r["paper"] for r in records if r["row"] == "control" and r["measure"] == "ODmAP@1"} == {""}
    assert {r["paper"] for r in records if r["row"] == "control" and r["measure"] == "reranked/ODmAP@1"} == {"65.3"}


@pytest.mark.parametrize("form", [table2.FORM, table3.FORM, beyond.FORM])
def test_every_table_is_written_in_three_forms(form: Form, cells: Any, made: list[Any], tmp_path: Path) -> None:
    _render(cells, made, form, tmp_path)
    assert {path.name for path in tmp_path.glob(f"{form.name}.*")} == {
        f"{form.name}.{end}" for end in ("md", "csv", "tex")
    }
    assert "nan" not in (tmp_path / f"{form.name}.md").read_text()


def test_beyond_says_of_every_row_whether_it_helps(cells: Any, tmp_path: Path) -> None:
    cells.QUERIES = 60
    levels = {"control": 40, "synthetic": 60, "paired": 70, "dilation_2": 60, "per_batch": 30}
    made = [cells.add("clip", row, 0, level) for row, level in levels.items()]
    _render(cells, made, beyond.FORM, tmp_path)
    said = [line for line in (tmp_path / "beyond.md").read_text().splitlines() if line.startswith("- ")]
    assert len(said) == 4
    assert said[0].startswith("- CLIP, Synthetic: ODmAP@1 +20.0 [+20.0, +20.0] against Control (helps); rsum ")
    assert (
        "+30.0 [+30.0, +30.0] against Control (helps); ODmAP@1 +10.0 [+10.0, +10.0] against Synthetic (helps)"
        in said[1]
    )
    assert "0.0 [0.0, 0.0] against Synthetic (not told apart)" in said[2]
    assert "-10.0 [-10.0, -10.0] against Control (hurts)" in said[3]


def test_beyond_says_of_no_row_that_it_helps_that_may_be_one_of_many_by_chance(cells: Any, tmp_path: Path) -> None:
    levels = {"control": 40, "synthetic": 60, "paired": 70, "dilation_2": 70}
    made = [cells.add("clip", row, 0, level) for row, level in levels.items()]
    records = _render(cells, made, beyond.FORM, tmp_path)
    p_values = {r["p_holm"] for r in records if r["measure"] == "ODmAP@1" and r["difference"]}
    assert p_values == {"0.09375"}  # 3 times 2 of the 64 patterns of signs
    said = [line for line in (tmp_path / "beyond.md").read_text().splitlines() if line.startswith("- ")]
    assert "+30.0 [+30.0, +30.0] against Control (not told apart)" in said[1]
    assert "+10.0 [+10.0, +10.0] against Synthetic (not told apart)" in said[1]  # 2 times 2 of 64


def test_figure_4_draws_every_model_and_the_same_bytes_every_time(cells: Any, tmp_path: Path) -> None:
    sweep = figure4.Sweep()
    names = sweep.rows(SimpleNamespace(ratios=(0.4, 0.1), ratio=0.4))
    assert names == ["control", "ratio_0.1", "synthetic"]
    levels = zip(names, (40, 50, 60), strict=True)
    made = [cells.add(model, row, 0, level) for row, level in levels for model in ("clip", "mine")]
    found = render(sweep.form(), load(cells.root, made), labels_of(made), paper("figure4", "COCO"), {}, tmp_path)
    drawn = sweep.panels(found)
    assert [point.x for point in drawn["CLIP"]["ODmAP@1"]] == [0.0, 0.1, 0.4]
    assert [round(point.mean - drawn["MINE"]["ODmAP@1"][0].mean) for point in drawn["MINE"]["ODmAP@1"]] == [0, 10, 20]
    assert "| MINE | Control | 0 | 39." in (tmp_path / "figure4.md").read_text()
    contents = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        sweep.draw(found, tmp_path / name)
        contents.append([(tmp_path / name / f"figure4{suffix}").read_bytes() for suffix in (".svg", ".png")])
    assert contents[0] == contents[1]
    assert b"<svg" in contents[0][0]


@pytest.mark.parametrize("models", [1, 3])
def test_nothing_of_a_figure_is_cut(models: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Any] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: figures.append(self))
    points = [Point(x, 40.0, 35.0, 45.0) for x in (0.0, 0.4)]
    panels = {f"Model {place}": dict.fromkeys(figure4.CURVES.values(), points) for place in range(models)}
    draw(panels, "ratio of synthetic to original pairs", tmp_path / "figure4")
    figures[0].draw_without_rendering()
    whole, legend = figures[0].bbox, figures[0].legends[0].get_window_extent()
    assert whole.x0 <= legend.x0
    assert legend.x1 <= whole.x1
    assert whole.y0 <= legend.y0


def test_figure_4_trains_nothing_where_no_ratios_are_given() -> None:
    with pytest.raises(ConfigError, match="settings of coco have no `ratios` to draw"):
        figure4.Sweep().rows(Settings("coco", "COCO", {}, {}, {}))


def test_tables_have_the_rows_that_a_study_can_have() -> None:
    settings = Settings("s", "Scenes", {}, {}, {}, fills={"zero": {}}, captions={"prompts": {}}, dilations=[2])
    assert table1.rows(settings) == ["zero_shot", "control", "synthetic"]
    assert table1.rows(replace(settings, oracle={}))[-1] == "oracle"
    assert table3.rows(settings) == ["control", "fill_zero", "caption_prompts", "synthetic"]
    own = {
        "paired",
        "per_batch",
        "querybank_control",
        "querybank_synthetic",
        "fill_zero",
        "dilation_2",
        "dilation_2_zero",
    }
    assert set(beyond.rows(settings)[3:]) == own
    assert {"paired_margin"} < set(beyond.rows(replace(settings, margin=0.5)))

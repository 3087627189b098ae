"""Tables as text: what is escaped, what is left out, and what the paper says beside them."""

from __future__ import annotations

import re

import pytest

from experiments.study.layout import Table, change, interval, p_value, share, signed
from experiments.study.paper import paper
from experiments.study.summary import Difference

DIFFERENCE = Difference(3.24, -1.0, 5.41, None, 0.01, 0.0004, (0,), None)


def _table(*rows: tuple[str, ...], notes: tuple[str, ...] = ()) -> Table:
    return Table("Table", ("Model", "Training", "R@1"), rows, notes)


def test_markdown_has_as_many_cells_in_every_line_and_no_markup_from_names() -> None:
    table = _table(("a|b", "<img src=x> *x* _y_ `z`", "1.0"), ("a|b", "line\nbreak", "-"), notes=("One.", "Two."))
    title, _, *lines, _, notes = table.markdown().splitlines()
    assert (title, notes) == ("**Table**", "One. Two.")
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in lines] == [4, 4, 4, 4]
    assert lines[2] == r"| a\|b | \<img src=x> \*x\* \_y\_ \`z\` | 1.0 |"
    assert lines[3] == "|  | line break | - |"


def test_latex_escapes_what_it_reads_and_sets_models_apart() -> None:
    table = _table(("A_1", r"100 % & $x$ {#} ~^\ ±", "-1.5 [-2.0, 0.1]"), ("A_1", "D", "p <0.001"), ("B", "D", "2"))
    text = table.latex()
    escaped = r"A\_1 & 100 \% \& \$x\$ \{\#\} \textasciitilde{}\textasciicircum{}\textbackslash{} $\pm$"
    assert escaped + r" & $-$1.5 [$-$2.0, 0.1] \\" in text
    assert " & D & p $<$0.001 \\\\\n\\midrule\nB & D & 2 \\\\" in text
    assert text.count(r"\begin") == text.count(r"\end") == 2
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


def test_a_range_of_seeds_and_a_word_with_a_hyphen_keep_it() -> None:
    assert "zero-shot 0-3" in _table(("A", "zero-shot 0-3", "1")).latex()


@pytest.mark.parametrize("of", [interval, change, p_value, share, signed])
def test_what_is_missing_is_a_dash(of: object) -> None:
    assert of(None) == "-"


def test_a_difference_shows_its_interval_and_its_corrected_p_value() -> None:
    assert change(DIFFERENCE) == "+3.2 [-1.0, +5.4]"
    assert p_value(DIFFERENCE) == "<0.001"
    assert p_value(DIFFERENCE._replace(p_holm=0.0304)) == "0.030"


def test_the_paper_is_of_the_same_data_set_where_it_has_that() -> None:
    assert paper("table1", "flickr30k").figures["blip", "control"]["ODmAP@10"] == 50.3
    assert paper("table1", "flickr30k").dataset == "Flickr30k"
    assert paper("table3", "Flickr30k").dataset == "COCO"


def test_the_paper_says_nothing_where_a_figure_is_not_known() -> None:
    figures = paper("table2", "COCO").figures
    assert figures["clip", "control"] == {"i2t/R@1": 65.5, "t2i/R@1": 48.6}
    assert ("vsepp", "zero_shot") not in paper("table1", "COCO").figures


@pytest.mark.parametrize("table", ["table1", "table2", "table3"])
@pytest.mark.parametrize("dataset", ["COCO", "Flickr30k"])
def test_the_papers_figures_are_per_cent_and_fall_or_rise_with_k_as_they_must(table: str, dataset: str) -> None:
    for figures in paper(table, dataset).figures.values():
        assert all(0 < value < 100 for value in figures.values())
        for way in ("ODmAP", "i2t/R", "t2i/R"):
            by_cut = [figures[name] for cut in (1, 5, 10) if (name := f"{way}@{cut}") in figures]
            assert by_cut == sorted(by_cut, reverse=way == "ODmAP")

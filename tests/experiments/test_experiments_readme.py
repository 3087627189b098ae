"""Tables of results in a page: filled in, kept, and found out of date."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from datamodules.errors import ConfigError, MissingPathError
from experiments.readme import main

ROOT = Path(__file__).parents[2]
VALUE = ("mean", "low", "high")
HEADS = {  # of columns that are no measure by its name: which, and what of it
    "± over seeds": ("ODmAP@1", ("seed_sd",)),
    "ODmAP@1, change": ("ODmAP@1", ("difference", "difference_low", "difference_high")),
    "p": ("ODmAP@1", ("p_holm",)),
    "gap closed": ("ODmAP@1", ("gap_closed", "gap_closed_low", "gap_closed_high")),
    "rsum, change in %": ("rsum", ("difference_per_cent",)),
    "distinct@1": ("hubs/distinct@1", VALUE),
}
PAGE = "# Page\n\n<!-- results/a.md -->\nold\n<!-- end of results/a.md -->\n\nafter\n"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "a.md").write_text("| 1 |\n|---|\n")
    path = tmp_path / "PAGE.md"
    path.write_text(PAGE)
    return path


def test_a_place_is_filled_once_and_then_agrees(page: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not hold what results/a\.md"):
        main(["--page", str(page), "--check"])
    assert page.read_text() == PAGE
    assert main(["--page", str(page)]) == 0
    filled = page.read_text()
    assert filled == PAGE.replace("old\n", "\n| 1 |\n|---|\n\n")
    assert main(["--page", str(page), "--check"]) == 0
    assert main(["--page", str(page)]) == 0
    assert page.read_text() == filled


@pytest.mark.parametrize("end", ["", "<!-- end of results/b.md -->", "<!-- End of results/a.md -->"])
def test_a_place_without_its_end_is_no_place_in_silence(page: Path, end: str) -> None:
    page.write_text(PAGE.replace("<!-- end of results/a.md -->", end))
    for options in ([], ["--check"]):
        with pytest.raises(ConfigError, match=r"the place of results/a\.md has no end: write `<!-- end of"):
            main(["--page", str(page), *options])


def test_options_must_be_given_in_full(page: Path) -> None:
    with pytest.raises(SystemExit):
        main(["--page", str(page), "--che"])


def test_a_file_that_is_not_there_is_named(page: Path) -> None:
    (page.parent / "results" / "a.md").unlink()
    with pytest.raises(MissingPathError, match=r"results/a\.md is no file"):
        main(["--page", str(page)])


def test_a_page_without_a_place_agrees_with_nothing(page: Path) -> None:
    page.write_text("# Page\n")
    with pytest.raises(ConfigError, match=r"PAGE\.md has no place for a table"):
        main(["--page", str(page), "--check"])


def test_the_readme_holds_the_results_of_this_repository() -> None:
    assert main(["--page", str(ROOT / "README.md"), "--check"]) == 0
    places = re.findall(r"<!-- (results/\S+) -->", (ROOT / "README.md").read_text(encoding="utf-8"))
    held = {str(path.relative_to(ROOT)) for path in ROOT.glob("results/*/*.md")}
    assert set(places) == held > {f"results/scenes-small/{name}.md" for name in ("table1", "table3", "figure4")}


@pytest.mark.parametrize("path", sorted(ROOT.glob("results/*/*.csv")), ids=lambda path: "/".join(path.parts[-2:]))
def test_a_table_of_this_repository_says_what_its_csv_does(path: Path) -> None:
    with path.open(newline="", encoding="utf-8") as file:
        given = {(one["model_label"], one["row_label"], one["measure"]): one for one in csv.DictReader(file)}
    text = path.with_suffix(".md").read_text(encoding="utf-8")
    header, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    model, said = "", set()
    for name, label, *cells in rows:
        model = name or model
        for head, cell in zip(header[2:], cells, strict=True):
            if head == "ratio" or head.startswith("paper"):
                continue
            measure, keys = HEADS.get(head, (head, VALUE))
            found = given.get((model, label, f"reranked/{measure}")) or given[model, label, measure]
            said.add((model, label))
            numbers = [float(number) for number in re.findall(r"[-+]?\d[\d.]*", cell)]
            wanted = [float(found[key]) for key in keys if found[key]]
            assert bool(numbers) == bool(wanted), (model, label, head)
            tolerance = 0.501 if cell.count("%") else 0.0501 if head != "p" else 0.00101
            assert numbers == pytest.approx(wanted[: len(numbers)], abs=tolerance), (model, label, head)
    assert said == {names[:2] for names in given}

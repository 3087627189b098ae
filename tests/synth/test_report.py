"""The closing tables: what they say, and that they fit a terminal of 80 columns."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from synth import tally
from synth.report import SplitCounts, Summary
from synth.rules import CANDIDATE_RULES, IMAGE_RULES, Rule

NAMES = ("person", "baseball glove", "traffic light", "dining table")


def printed(table, width=80):
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def counted(outcomes, names=NAMES):
    """Every class and pair, with six-digit counts of these outcomes."""
    pairs = [(a, b) for a in names for b in ("", *names) if a != b]
    return {
        (*pair, outcome): 123_456 + 1_000 * i + n for i, pair in enumerate(pairs) for n, outcome in enumerate(outcomes)
    }


def summary(counts, output=Path("out")):
    return Summary(output, {"train": SplitCounts(10, 4, 5, tally=counts)})


def words(text):
    return set(text.replace(",", "").split())


def test_every_class_name_and_count_is_readable_in_80_columns():
    counts = counted(["kept", *(rule.value for rule in CANDIDATE_RULES)])
    text = printed(summary(counts).class_table(20))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for name in NAMES:
        assert name in text
    assert {str(count) for count in counts.values()} <= words(text)


@pytest.mark.parametrize("shown", [[], [Rule.GAP], [Rule.NOTHING_KEPT, Rule.SIZE]])
def test_rules_that_rejected_nothing_have_no_column(shown):
    table = summary(counted(["kept", *(rule.value for rule in shown)])).class_table()
    headings = [" ".join(str(column.header).split()) for column in table.columns]
    assert headings == ["class", "beside", "kept", *(rule.text for rule in shown)]
    assert ("rejected" in str(table.caption)) == bool(shown)


def test_the_largest_classes_and_pairs_of_all_splits_come_first():
    counts = {("dog", "", "kept"): 1, ("dog", "", "gap"): 1, ("cat", "", "kept"): 3, ("dog", "cat", "gap"): 1}
    more = {("dog", "", "kept"): 2, ("owl", "", "kept"): 1}
    both = Summary(Path("out"), {"a": SplitCounts(1, 1, 1, tally=counts), "b": SplitCounts(1, 1, 1, tally=more)})
    rows = [line.split() for line in printed(both.class_table(2)).splitlines()]
    assert [row for row in rows if row and row[0] in ("dog", "cat", "owl")] == [
        ["dog", "3", "1"],
        ["cat", "3", "0"],
        ["dog", "cat", "0", "1"],
    ]


def test_names_and_paths_are_no_markup():
    found = summary(counted(["kept"], ("[/b]", "[red]x")), Path("out/[/b]x"))
    assert {"[/b]", "[red]x"} <= words(printed(found.class_table()))
    assert "out/[/b]x" in printed(found.table())


def test_the_first_table_has_every_count_of_every_split():
    dropped, rejected = ({rule: 11 * n for n, rule in enumerate(rules, 1)} for rules in (IMAGE_RULES, CANDIDATE_RULES))
    counts = SplitCounts(2_000, 500, 600, dropped, 4_000, rejected)
    text = printed(Summary(Path("out"), {"train": counts, "test": SplitCounts(7, 0, 0)}, made=False).table())
    assert max(map(len, text.splitlines())) <= 80
    assert "was already there" in text
    assert {"2000", "500", "(25.0%)", "(0.0%)", "600", "4000", "7"} <= words(text)
    assert {str(count) for count in (*dropped.values(), *rejected.values())} <= words(text)


def test_counts_survive_json():
    counts = SplitCounts(9, 3, 4, {Rule.NOT_NAMED: 6}, 20, {Rule.GAP: 5}, {("dog", "", "kept"): 4})
    again = SplitCounts.from_json(json.loads(json.dumps(counts.as_json())), counts.tally)
    assert again.as_json() == counts.as_json()
    assert (again.images, again.used, again.kept, again.candidates, again.tally) == (9, 3, 4, 20, counts.tally)
    assert again.dropped[Rule.NOT_NAMED] == 6
    assert set(counts.as_json()["dropped"]) == {rule.value for rule in IMAGE_RULES}


def test_a_tally_survives_its_table(tmp_path):
    rows = [{"removed": ["dog", 'a "b", c'], "kept": ["cat", "man\nkind"]}, {"removed": ["dog"], "kept": ["cat"]}]
    kept = tally.kept(rows)
    assert (kept["dog", "", "kept"], kept["dog", "cat", "kept"], kept["dog", "man\nkind", "kept"]) == (2, 2, 1)
    rejected = tally.rejected(
        {(0, 1, Rule.GAP): 3, (0, None, Rule.SIZE): 2, (0, 2, Rule.GAP): 1}, ("dog", "cat", "owl")
    )
    assert rejected == {
        ("dog", "", "gap"): 4,
        ("dog", "cat", "gap"): 3,
        ("dog", "owl", "gap"): 1,
        ("dog", "", "size"): 2,
    }
    path = tmp_path / "classes.csv"
    path.write_text(tally.as_csv({"train": kept + rejected, "test": rejected}), encoding="utf-8", newline="")
    assert tally.read(path) == {"train": kept + rejected, "test": rejected}
    assert tally.read(tmp_path / "none.csv") == {}

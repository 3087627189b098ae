import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from metrics.__main__ import main
from metrics.per_query import read, write
from metrics.statistics import bootstrap, holm, paired_test

PROJECT = Path(__file__).parents[2]


def results(path, seed, queries=60, order=None, **changes):
    """Write the results of one model; those of the images' own captions are the same for every model."""
    generator = np.random.default_rng(seed)
    columns = {
        "id": np.arange(queries) * 3,
        "source_image_id": np.arange(queries) // 2,
        "removed": [["dog"] if query % 3 else ["cat", "dog"] for query in range(queries)],
        "ODmAP@1": 100.0 * (generator.random(queries) < 0.3 + 0.4 * seed),
        "ODmAP@5": generator.uniform(0, 100, queries),
        "own_captions/ODmAP@1": np.linspace(0, 100, queries),
    }
    roles = {
        "query_id": "id",
        "group": "source_image_id",
        "measures": [name for name in columns if "@" in name],
        "about": {"gallery": 25_000, "checkpoint": f"{seed}.ckpt"},
        "fixed": ["removed", "gallery"],
    }
    columns |= {name: value for name, value in changes.items() if name in columns}
    roles |= {name: value for name, value in changes.items() if name in roles}
    order = range(queries) if order is None else order
    write(path, {name: [column[row] for row in order] for name, column in columns.items()}, **roles)
    return path


@pytest.fixture
def two(tmp_path):
    return results(tmp_path / "a" / "odmap.parquet", 0), results(tmp_path / "b" / "odmap.parquet", 1)


def rows_of(path):
    with path.open() as file:
        return {(row["file"], row["measure"]): row for row in csv.DictReader(file)}


def cells_of(printed, measure):
    """Return what stands behind the name of a measure in its row."""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if "│" in line]
    return next(cells for name, *cells in rows if name == measure)


def error_of(capsys, *arguments):
    """Return the one sentence that a command ends with."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    assert left.value.code == 2
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("error: ")
    return printed.err


def test_show_prints_every_measure_with_its_interval(two, tmp_path, capsys):
    table = tmp_path / "means.csv"
    assert main(["show", str(two[0]), "--csv", str(table), "--resamples", "500", "--confidence", "0.9"]) == 0
    printed = capsys.readouterr().out
    file = read(two[0])
    wanted = bootstrap(file.values(file.measures), file.groups, resamples=500, confidence=0.9)
    assert "odmap: 60 queries in 30 groups" in printed
    assert "90 % interval" in printed
    for index, measure in enumerate(file.measures):
        row = rows_of(table)["odmap", measure]
        assert [float(row[end]) for end in ("mean", "low", "high")] == [end[index] for end in wanted]
        assert f"{wanted.low[index]:.2f} to {wanted.high[index]:.2f}" in printed
    assert max(map(len, printed.splitlines())) <= 120


def test_show_reads_all_files_of_a_folder(two, capsys):
    results(two[0].with_name("more.parquet"), 0, queries=3)
    assert main(["show", str(two[0].parent), "--resamples", "50"]) == 0
    printed = capsys.readouterr().out
    assert printed.index("more: 3 queries in 2 groups") < printed.index("odmap: 60 queries in 30 groups")


def test_one_query_has_a_mean_and_no_interval(tmp_path, capsys):
    path = results(tmp_path / "odmap.parquet", 0, queries=1, **{"ODmAP@1": [12.5]})
    assert main(["show", str(path)]) == 0
    assert cells_of(capsys.readouterr().out, "ODmAP@1") == ["12.50", "-"]
    assert "one group of queries; a test needs 2 groups or more" in error_of(capsys, "compare", path, path)


def test_compare_is_the_paired_test_of_the_two(two, tmp_path, capsys):
    table = tmp_path / "differences.csv"
    assert main(["compare", *map(str, two), "--csv", str(table), "--resamples", "500", "--seed", "3"]) == 0
    printed = capsys.readouterr().out
    first, second = map(read, two)
    one, other = (file.values(file.measures) for file in (first, second))
    wanted = paired_test(one, other, first.groups, resamples=500, seed=3)
    for index, measure in enumerate(first.measures):
        row = rows_of(table)["odmap", measure]
        assert float(row["first"]) == pytest.approx(one[:, index].mean())
        assert float(row["second"]) == pytest.approx(other[:, index].mean())
        assert int(row["changed"]) == (one[:, index] != other[:, index]).sum()
        found = [float(row[name]) for name in ("difference", "low", "high", "p_value")]
        assert found == [numbers[index] for numbers in wanted]
        low, high, p_value, p_holm = (float(row[name]) for name in ("low", "high", "p_value", "p_holm"))
        assert cells_of(printed, measure) == [
            *(f"{file[:, index].mean():.2f}" for file in (one, other)),
            f"{(one[:, index] != other[:, index]).sum()}",
            f"{wanted.difference[index]:+.2f}",
            f"{low:+.2f} to {high:+.2f}",
            f"{p_value:.4f}",
            f"{p_holm:.4f}" if (one[:, index] != other[:, index]).any() else "-",
        ]
    assert wanted.p_value[0] < float(rows_of(table)["odmap", "ODmAP@1"]["p_holm"])  # or the two columns were alike
    assert max(map(len, printed.splitlines())) <= 120


def test_holm_counts_the_measures_that_changed_over_all_files(two, tmp_path, capsys):
    for path, seed in zip(two, (2, 1), strict=True):
        results(path.with_name("more.parquet"), seed)
    table = tmp_path / "differences.csv"
    assert main(["compare", *(str(path.parent) for path in two), "--csv", str(table), "--resamples", "99"]) == 0
    rows = rows_of(table)
    changed = [row for row in rows.values() if int(row["changed"])]
    assert [row["measure"] for row in changed] == ["ODmAP@1", "ODmAP@5"] * 2
    corrected = holm([float(row["p_value"]) for row in changed])
    assert [float(row["p_holm"]) for row in changed] == corrected.tolist()
    alike = [row for row in rows.values() if not int(row["changed"])]
    assert [(row["p_value"], row["p_holm"]) for row in alike] == [("1.0", "1.0")] * 2
    assert "corrected for the number of measures that changed, 4." in capsys.readouterr().out


def test_identical_results_do_not_differ(two, tmp_path, capsys):
    table = tmp_path / "differences.csv"
    assert main(["compare", str(two[0]), str(two[0]), "--csv", str(table), "--resamples", "50"]) == 0
    assert {row["p_value"] for row in rows_of(table).values()} == {"1.0"}
    assert "measures that changed, 0." in capsys.readouterr().out


def test_queries_are_matched_by_id_and_not_by_row(two, tmp_path):
    shuffled = results(tmp_path / "shuffled.parquet", 1, order=np.random.default_rng(0).permutation(60))
    for name, second in (("straight.csv", two[1]), ("matched.csv", shuffled)):
        main(["compare", str(two[0]), str(second), "--csv", str(tmp_path / name), "--resamples", "99"])
    assert (tmp_path / "straight.csv").read_text() == (tmp_path / "matched.csv").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"queries": 58}, "{a} alone holds 2 of the query ids, the first is 174;"),
        (
            {"id": np.arange(60) * 3 + 3},
            "{a} alone holds 1 of the query ids and {b} alone holds 1 of the query ids, the",
        ),
        ({"id": [str(3 * row) for row in range(60)]}, "{b} alone holds 60 of the query ids, the first is 0;"),
        ({"source_image_id": np.arange(60) // 3}, "source_image_id of query 6 differs, 1 and 0;"),
        ({"removed": [["dog"]] * 60}, "removed of query 0 differs, ['cat', 'dog'] and ['dog'];"),
        ({"about": {"gallery": 5_000}}, "the values of gallery differ, 25000 and 5000;"),
        ({"fixed": ["removed"]}, "the names under `fixed` differ, ['gallery'] and [];"),
        ({"measures": ["ODmAP@1"]}, "the names under `measures` differ, ['ODmAP@5', 'own_captions/ODmAP@1'] and [];"),
        ({"group": None}, "the columns of groups differ, 'source_image_id' and None;"),
    ],
)
def test_what_would_be_wrong_to_compare_is_refused(two, changes, message, capsys):
    results(two[1], 1, **changes)
    error = error_of(capsys, "compare", *two)
    assert message.format(a=two[0], b=two[1]) in error
    assert f"{two[0]} and {two[1]} cannot be compared" in error


def test_files_and_folders_that_do_not_pair_are_refused(two, tmp_path, capsys):
    folders = [path.parent for path in two]
    assert "is a folder and" in error_of(capsys, "compare", folders[0], two[1])
    results(folders[1] / "i2t.parquet", 1)
    assert f"{folders[1]} holds i2t.parquet and {folders[0]} does not" in error_of(capsys, "compare", *folders)
    (tmp_path / "empty").mkdir()
    assert "holds no *.parquet" in error_of(capsys, "show", tmp_path / "empty")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "missing.parquet"], "There is no file missing.parquet"),
        (["shwo", "x"], "invalid choice: 'shwo'"),
        (["show"], "required: PATH"),
        ([], "required: {show,compare}"),
        (["show", "x", "--resample", "3"], "unrecognized arguments: --resample 3; did you mean --resamples?"),
        (["show", "x", "--resamples", "0"], "--resamples: must be a positive integer, got 0"),
        (["show", "x", "--resamples", "1e4"], "--resamples: must be a positive integer, got 1e4"),
        (["show", "x", "--confidence", "95"], "--confidence: must be a number between 0 and 1, got 95"),
        (["show", "x", "--confidence", "high"], "--confidence: must be a number between 0 and 1, got high"),
        (["show", "x", "--seed", "-1"], "--seed: must be an integer from 0, got -1"),
    ],
)
def test_a_mistake_is_answered_in_one_sentence(arguments, message, capsys):
    assert message in error_of(capsys, *arguments)


def test_a_csv_that_cannot_be_written_is_answered_in_one_sentence(two, tmp_path, capsys):
    where = tmp_path / "nowhere" / "means.csv"
    assert f"--csv {where} cannot be written" in error_of(capsys, "show", two[0], "--resamples", "9", "--csv", where)


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from metrics.__main__ import main\n"
        "try: main(['compare', '--help'])\n"
        "except SystemExit: print({'numpy', 'torch', 'pyarrow', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "set()"
    assert "--resamples" in done.stdout


def test_comparing_needs_no_torch(two):
    code = (
        "import sys; from metrics.__main__ import main\n"
        f"main(['compare', {str(two[0])!r}, {str(two[1])!r}, '--resamples', '9'])\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True, capture_output=True)

"""The report of one run and of two, from results on disk to the page in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from argparse import Namespace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules.errors import ConfigError
from experiments.report import main
from experiments.report.tested import read_runs
from metrics import per_query

CHROMIUM = shutil.which("chromium")
HOSTILE = "</script><img src=x onerror=document.title='owned'> a dog & a lamp"
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--v=0",
    "--virtual-time-budget=2000",
)
QUERIES = 30


@pytest.fixture
def reports(retrieved: Any, tmp_path: Path) -> Any:
    """Write a report of the runs of these qualities, and return its text."""

    def write(*runs: str, to: str = "report.html", images: int = 4) -> str:
        folders = [retrieved.run(name) for name in runs]
        against = ["--against", str(folders[1])] if len(folders) == 2 else []
        options = ["--data", str(retrieved.config), "--images", str(images), "--to", str(tmp_path / to)]
        assert main(["--run", str(folders[0]), *against, *options]) == 0
        return (tmp_path / to).read_text(encoding="utf-8")

    return write


def held(page: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(re.findall(r'id="held">(.*?)</script>', page, re.S)[0])
    return found


def test_queries_are_fixed_broken_or_unchanged(reports: Any) -> None:
    given = held(reports("before", "after"))
    states = [given["states"][query["state"]] for query in given["queries"]]
    scores = [tuple(query["scores"]) for query in given["queries"]]
    assert set(states) == {"fixed", "broken", "unchanged"}
    assert states == [{100: "fixed", -100: "broken", 0: "unchanged"}[int(two - one)] for one, two in scores]
    drawn = [states[int(place)] for place in given["pictures"]]
    assert len(drawn) == 4
    assert set(drawn) == set(states)  # each kind has a turn
    assert all(uri.startswith("data:image/jpeg;base64,") for pair in given["pictures"].values() for uri in pair)


def test_it_says_how_many_pictures_are_in_it(reports: Any) -> None:
    assert "pictures of 4 of the 30 queries are in it" in reports("before")
    assert "To keep the file small" not in reports("before", images=QUERIES)


def test_phrases_name_the_classes_of_the_data(reports: Any) -> None:
    given = held(reports("before"))
    assert given["states"] == ["right", "wrong"]
    caption = next(caption for caption in given["captions"] if caption["text"] == "a puppy near a lamp")
    named = {caption["text"][start:end]: [given["classes"][place] for place in classes]
             for start, end, classes in caption["phrases"]}  # fmt: skip
    assert named == {"a puppy": ["dog"], "a lamp": ["lamp"]}


def test_nothing_is_fetched_and_text_is_no_markup(reports: Any) -> None:
    page = reports("before", "after")
    assert any(caption["text"] == HOSTILE for caption in held(page)["captions"])
    assert "<img src=x" not in page
    assert page.count("</script>") == 2
    assert not re.search(r"(?:src|href)\s*=\s*[\"'](?!data:|#)", page)
    assert "script-src &#x27;sha256-" in page or "script-src 'sha256-" in page
    assert "'unsafe-inline'; script-src" in unescape(page)


def test_the_numbers_are_those_of_the_results(reports: Any, retrieved: Any) -> None:
    page = reports("before", "after")
    for name in ("before", "after"):
        mean = np.mean(retrieved.first(name))
        assert re.search(rf"<td>ODmAP@1</td>.*?{mean:.1f} \(", page)
    change = np.mean(retrieved.first("after")) - np.mean(retrieved.first("before"))
    assert f"<td>{change:+.1f} (" in page
    assert "nan %" not in page  # a pair without a query has no tooltip
    for part in ("data fingerprint", "protocol hash", "ODmAP@1, ", "P(column | row)"):
        assert part in page


def test_other_data_than_the_tested_are_refused(reports: Any, retrieved: Any, tmp_path: Path) -> None:
    folder = retrieved.run("before", shift=1000)
    with pytest.raises(ConfigError, match=r"has the query .* config that the run was tested with"):
        main(["--run", str(folder), "--data", str(retrieved.config), "--to", str(tmp_path / "no.html")])
    with pytest.raises(ConfigError, match=r"There is no file .*--run"):
        main(["--run", str(tmp_path / "nowhere"), "--data", str(retrieved.config)])


@pytest.mark.parametrize(("key", "value"), [("removed", ["dog", "lamp"]), ("kept", []), ("source_image_id", 2**60 + 1)])
def test_queries_of_other_data_are_refused_whose_ids_are_the_same(
    reports: Any, retrieved: Any, key: str, value: Any
) -> None:
    place = retrieved.root / "made" / "test" / "metadata.jsonl"
    lines = [json.loads(line) for line in place.read_text().splitlines()]
    lines[4][key] = value
    place.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ConfigError, match=rf"for the query {2**40 + 4} than .*made: give with `--data` the config"):
        reports("before", "after")


def test_cells_tested_on_another_protocol_are_refused(reports: Any, retrieved: Any) -> None:
    told = {"hash": "c0ffee", "results": ".", "record": {"protocol": "44136fa355b3678a"}}  # that of {}
    place = retrieved.run("after") / "cell.json"
    place.write_text(json.dumps(told))
    assert "c0ffee" in reports("before", "after")
    (retrieved.root / "made" / "protocol.json").write_text('{"seed": 1}')
    with pytest.raises(ConfigError, match=r"after/odmap\.parquet was tested on queries of the protocol 44136fa355b367"):
        reports("before", "after")
    place.write_text(json.dumps({**told, "results": "test/1"}))  # these results are not the cell's own
    assert "c0ffee" not in reports("before", "after")


def test_one_folder_is_asked_for_where_a_pattern_has_matched_two(retrieved: Any, capsys: Any) -> None:
    folders = [str(retrieved.run(name)) for name in ("before", "after")]
    with pytest.raises(SystemExit):
        main(["--run", *folders, "--data", str(retrieved.config)])
    assert f"`--run` is one folder, but 2 are given: name one of {', '.join(folders)}." in capsys.readouterr().err


def _recalls(folder: Path, seed: int, prefix: str = "") -> float:
    """Write recalls of 8 images with 20 captions beside ODmAP, and return their sum."""
    generator, total = np.random.default_rng(seed), 0.0
    for way, count in {"i2t": 8, "t2i": 20}.items():
        rows = np.arange(count)
        hits = {f"R@{k}": 100.0 * (generator.random(count) < k / 10) for k in (1, 5)}
        columns = {"query_id": rows, "image_id": rows % 8, **hits}
        path = folder / f"{prefix}{way}.parquet"
        per_query.write(path, columns, query_id="query_id", group="image_id", measures=list(hits), about={})
        total += sum(column.mean() for column in hits.values())
    return total


def test_rsum_has_an_interval_and_a_test(reports: Any, retrieved: Any) -> None:
    sums = [_recalls(retrieved.root / name, seed) for seed, name in enumerate(("before", "after"))]
    (row,) = re.findall(r"<tr><td>i2t \+ t2i</td><td>rsum</td>(.*?)</tr>", reports("before", "after"))
    cells = re.findall(r"<td>(.*?)</td>", row)
    assert [float(cell.split()[0]) for cell in cells[:2]] == [pytest.approx(value, abs=0.051) for value in sums]
    assert cells[2].startswith(f"{sums[1] - sums[0]:+.1f} (")
    assert 0 < float(cells[3]) <= float(cells[4])
    assert cells[5] == "8"
    assert "<td>rsum</td>" in reports("before")


def test_what_only_one_of_two_has_is_named(reports: Any, retrieved: Any) -> None:
    plain, again = retrieved.run("before"), retrieved.run("after")
    shutil.copy(again / "odmap.parquet", again / "reranked-odmap.parquet")
    assert "only one of the two has them: reranked-odmap." in reports("before", "after")
    found = [read_runs(_options(*folders)) for folders in ((again, plain), (again, again), (again, None))]
    assert [[run.found.path.stem for run in runs] for runs in found] == [
        ["odmap"] * 2,
        ["reranked-odmap"] * 2,
        ["reranked-odmap"],
    ]


def test_a_run_is_called_as_asked(retrieved: Any) -> None:
    plain, again = retrieved.run("before"), retrieved.run("after")
    for folders, names in (((plain,), ["mine"]), ((plain, again), ["mine", "yours"])):
        assert [run.name for run in read_runs(_options(*folders, names=names))] == names
    with pytest.raises(ConfigError, match=r"`--names` gives 1 for 2 run\(s\)"):
        read_runs(_options(plain, again, names=["mine"]))


def _options(run: Path, against: Path | None = None, names: list[str] | None = None) -> Namespace:
    return Namespace(run=run, against=against, names=names, reranked=True)


def test_runs_without_a_cut_at_1_have_a_report(retrieved: Any, tmp_path: Path) -> None:
    folder, to = retrieved.run("before", cut=5), tmp_path / "report.html"
    assert main(["--run", str(folder), "--data", str(retrieved.config), "--images", "0", "--to", str(to)]) == 0
    given = held(to.read_text(encoding="utf-8"))
    assert [query["scores"] for query in given["queries"]] == [[score] for score in retrieved.first("before")]
    assert "hallucinated@5" in to.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("cell.json", "{", r"cell\.json is damaged \(.*put back the one that the study wrote"),
        ("cell.json", "[]", r"cell\.json is no cell of a study"),
        ("cell.json", '{"record": 1}', r"cell\.json is no cell of a study"),
        ("config.yaml", "a: [", r"config\.yaml is no yaml"),
    ],
)
def test_broken_records_are_named(reports: Any, retrieved: Any, name: str, text: str, said: str) -> None:
    (retrieved.run("before") / name).write_text(text)
    with pytest.raises(ConfigError, match=said):
        reports("before")


def test_results_of_others_are_refused(retrieved: Any, tmp_path: Path) -> None:
    columns = {"query_id": [1, 2], "ODmAP@1": [0.0, 100.0]}
    per_query.write(
        tmp_path / "mine" / "odmap.parquet", columns, query_id="query_id", group=None, measures=["ODmAP@1"], about={}
    )
    with pytest.raises(ConfigError, match=r"mine/odmap\.parquet has no column `removed`: give a folder that"):
        main(["--run", str(tmp_path / "mine"), "--data", str(retrieved.config)])


def browse(path: Path, fragment: str, profile: Path, *options: str) -> str:
    command = [
        str(CHROMIUM),
        *OPTIONS,
        *options,
        f"--user-data-dir={profile}",
        "--dump-dom",
        f"{path.as_uri()}#{fragment}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_filters_work_in_a_browser(reports: Any, tmp_path: Path) -> None:
    given = held(reports("before", "after"))
    path, profile = tmp_path / "report.html", tmp_path / "profile"
    dog = given["classes"].index("dog")
    fixed = given["states"].index("fixed")
    wanted = {
        "": given["queries"],
        f"search={2**60 + 7}": [query for query in given["queries"] if int(query["source"]) == 2**60 + 7],
        "hubs": given["queries"],  # a section
        "class=dog": [query for query in given["queries"] if dog in query["removed"]],
        "state=fixed": [query for query in given["queries"] if query["state"] == fixed],
        "search=ONERROR&class=dog": [
            query
            for query in given["queries"]
            if dog in query["removed"]
            and any("onerror" in given["captions"][place]["text"] for run in query["captions"] for place in run)
        ],
    }
    for fragment, queries in wanted.items():
        page = browse(path, fragment, profile)
        if not fragment:  # pictures come first
            assert ["<img" in card for card in page.split("<article>")[1:]] == [True] * 4 + [False] * 8
        assert f"{len(queries)} of {QUERIES} queries, page 1 of" in page, fragment
        assert page.count("<article>") == min(len(queries), 12)
        assert "<title>owned" not in page
        marked = set(re.findall(r'<span class="(?:wrong|right)">(.*?)</span>', page))
        assert {"a dog", "a lamp"} < marked <= {"Red", "green", "dog", "lamp", "a dog", "a lamp", "a puppy"}, marked
    last = browse(path, "page=3", profile)
    assert "page 3 of 3" in last
    assert last.count("<article>") == QUERIES - 24


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_nothing_is_wider_than_a_telephone(reports: Any, tmp_path: Path) -> None:
    reports("before", "after")
    frame = tmp_path / "frame.html"  # no window of the browser is as narrow
    frame.write_text("""<script>function measure({scrollWidth, clientWidth}) {
        document.title = `${scrollWidth} of ${clientWidth}`;
    }</script>
    <iframe src="report.html" width="360" height="800" onload="measure(this.contentDocument.documentElement)">""")
    page = browse(frame, "", tmp_path / "profile", "--allow-file-access-from-files")
    needed, there = re.findall(r"<title>(\d+) of (\d+)</title>", page)[0]
    assert 300 < int(there) <= 360
    assert needed == there

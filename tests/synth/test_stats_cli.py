"""The commands that read a finished set, from their arguments to their files."""

import csv

import pytest

import synth
from datamodules.errors import ConfigError
from synth import sheet_cli, stats_cli


@pytest.fixture
def yaml(data, tmp_path, drawn_class_path):
    path = tmp_path / "job.yaml"
    path.write_text(
        f"data: {{class_path: {drawn_class_path}, init_args: {{root: {data.root}}}}}\n"
        f"output: {tmp_path / 'out'}\nfill: {{class_path: ZeroFill}}\n"
        "pairs: {train: [train, restval]}\nqueries: {test: [test]}\n"
    )
    synth.run_file(path)
    return path


def table(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_stats_writes_matrices_pairs_and_figures_beside_the_set(yaml, tmp_path, capsys):
    before = sorted(path for path in (tmp_path / "out").rglob("*"))
    assert stats_cli.main(["--config", str(yaml), "--min_count", "1"]) == 0
    folder = tmp_path / "out_statistics"
    kinds = ("after.csv", "before.csv", "pairs.csv")
    expected = [f"{what}_{kind}" for what in ("captions", "images") for kind in kinds]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*expected, "captions.svg", "images.svg"])
    assert sorted(path for path in (tmp_path / "out").rglob("*")) == before
    matrix = table(folder / "images_before.csv")
    assert matrix[0] == ["of 5", "dog", "frisbee", "man", "cat"]
    assert matrix[1] == ["dog", "3", "1", "1", "2"]
    assert table(folder / "images_after.csv")[0][0] == "of 8"
    ranked = table(folder / "images_pairs.csv")
    assert ranked[0][:4] == ["a", "b", "together_before", "together_after"]
    assert ranked[1][:3] == ["dog", "cat", "2"]
    printed = capsys.readouterr().out
    assert "images: 5 originals, 3 synthetic" in printed
    assert "Mean phi of these 5 pairs" in printed
    assert str(folder) in printed.replace("\n", "")


def test_stats_says_when_no_pair_is_frequent_enough(yaml, tmp_path, capsys):
    assert stats_cli.main(["--config", str(yaml), "--to", str(tmp_path / "a/b"), "--by", "lift"]) == 0
    assert "lower --min_count" in capsys.readouterr().out
    assert (tmp_path / "a/b/images.svg").is_file()


def test_sheet_writes_one_file_beside_the_set(yaml, tmp_path, capsys):
    assert sheet_cli.main(["--config", str(yaml)]) == 0
    assert (tmp_path / "out_train.html").read_text().count("<article>") == 3
    assert "out_train.html" in capsys.readouterr().out
    chosen = ["--images", "1", "--seed", "4", "--split", "test", "--to", str(tmp_path / "one.html")]
    assert sheet_cli.main(["--config", str(yaml), *chosen]) == 0
    first = (tmp_path / "one.html").read_bytes()
    assert first.count(b"<article>") == 1
    assert sheet_cli.main(["--config", str(yaml), *chosen]) == 0
    assert (tmp_path / "one.html").read_bytes() == first


@pytest.mark.parametrize("main", [stats_cli.main, sheet_cli.main])
def test_a_set_that_is_not_there_or_elsewhere_is_refused(yaml, tmp_path, main, data):
    with pytest.raises(ConfigError, match=r"`output` .*elsewhere holds no finished synthetic set"):
        main(["--config", str(yaml), "--output", str(tmp_path / "elsewhere")])
    (tmp_path / "out/protocol.json").write_text('{"config": {"data": {"fingerprint": "other"}}}')
    with pytest.raises(ConfigError, match="other annotations"):
        main(["--config", str(yaml)])


@pytest.mark.parametrize("main", [stats_cli.main, sheet_cli.main])
def test_a_place_that_cannot_be_written_is_named(yaml, main):
    with pytest.raises(ConfigError, match=r"`--to` /dev/null/x cannot be written"):
        main(["--config", str(yaml), "--to", "/dev/null/x"])


@pytest.mark.parametrize(
    ("main", "arguments", "texts"),
    [
        (stats_cli.main, ["--top", "0"], ["--top", "positive integer", "0"]),
        (stats_cli.main, ["--by", "chance"], ["--by", "phi", "lift"]),
        (sheet_cli.main, ["--images", "few"], ["--images", "positive integer"]),
        (sheet_cli.main, ["--seed", "-1"], ["--seed"]),
        (sheet_cli.main, ["--outptu", "x"], ["outptu", "output"]),
    ],
)
def test_mistakes_get_one_sentence(yaml, capsys, main, arguments, texts):
    with pytest.raises(SystemExit) as caught:
        main(["--config", str(yaml), *arguments])
    printed = capsys.readouterr().err
    assert caught.value.code == 2
    assert len(printed.strip().splitlines()) == 1
    for text in texts:
        assert text in printed

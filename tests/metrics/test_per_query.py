import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from metrics.per_query import PerQueryError, read, write

ROLES = {
    "query_id": "query_id",
    "group": "source_image_id",
    "measures": ("ODmAP@1", "hallucinated@1"),
    "fixed": ("removed", "gallery"),
    "about": {"gallery": 25_000, "top_k": (1,)},
}


def columns(**changes):
    return {
        "query_id": torch.tensor([30, 10, 20]),
        "source_image_id": np.array([3, 1, 1]),
        "removed": [["dog"], ["dog", "cat"], []],
        "retrieved_ids": torch.tensor([[1, 2], [3, 4], [5, -1]]),
        "retrieved_scores": torch.tensor([[0.9, 0.8], [0.7, 0.6], [0.5, -torch.inf]], dtype=torch.bfloat16),
        "relevant": torch.tensor([[True, False], [True, True], [False, False]]),
        "ODmAP@1": torch.tensor([100.0, 50.0, 0.0]),
        "hallucinated@1": np.array([0, 0, 100]),
        **changes,
    }


def test_reads_what_was_written_ascending_by_id(tmp_path):
    write(tmp_path / "new" / "odmap.parquet", columns(), **ROLES)
    found = read(tmp_path / "new" / "odmap.parquet")
    assert found.ids == [10, 20, 30]
    assert found.groups.tolist() == [1, 1, 3]
    assert found.values(found.measures).tolist() == [[50, 0], [0, 100], [100, 0]]
    assert found.values(["hallucinated@1"]).dtype == np.float64
    assert found.about == {"gallery": 25_000, "top_k": [1]}
    assert (found.query_id, found.group, found.fixed) == ("query_id", "source_image_id", ("removed", "gallery"))
    assert found.table["removed"].to_pylist() == [["dog", "cat"], [], ["dog"]]
    assert found.table["relevant"].to_pylist() == [[True, True], [False, False], [True, False]]
    assert found.table["retrieved_scores"].to_pylist()[1] == [0.5, -np.inf]


def test_any_parquet_reader_opens_it(tmp_path):
    path = tmp_path / "odmap.parquet"
    write(path, columns(), **ROLES)
    frame = pd.read_parquet(path)
    assert frame["query_id"].tolist() == [30, 10, 20]
    assert frame["ODmAP@1"].mean() == 50
    assert [list(row) for row in frame["retrieved_ids"]] == [[1, 2], [3, 4], [5, -1]]
    assert frame["removed"].map(len).tolist() == [1, 2, 0]


def test_queries_may_have_names_and_no_groups(tmp_path):
    path = tmp_path / "t2i.parquet"
    names = {"query_id": ["b", "a"], "R@1": [0, 100], "empty": np.zeros((2, 0))}
    write(path, names, query_id="query_id", group=None, measures=["R@1"], about={})
    found = read(path)
    assert (found.ids, found.groups) == (["a", "b"], None)
    assert found.table["empty"].to_pylist() == [[], []]


def test_writing_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "odmap.parquet"
    write(path, columns(), **ROLES)
    before = path.read_bytes()

    def full(table, where):
        where.write_bytes(b"half a fi")
        raise OSError("no space left")

    monkeypatch.setattr(parquet, "write_table", full)
    with pytest.raises(OSError, match="no space left"):
        write(path, columns(), **ROLES)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("changes", "roles", "message"),
    [
        ({"query_id": [1, 2, 1]}, {}, "query_id 'query_id' holds 1 2 times"),
        ({"query_id": [1.5, 2, 3]}, {}, "Column 'query_id' of query_id must hold an integer or a string"),
        ({"source_image_id": [1, None, 2]}, {}, "Column 'source_image_id' of group must hold an integer or a string"),
        ({"ODmAP@1": [1.0, np.nan, 2.0]}, {}, "Column 'ODmAP@1' of measures must hold a finite number"),
        ({"ODmAP@1": [1.0, None, 2.0]}, {}, "Column 'ODmAP@1' of measures must hold a finite number"),
        ({"ODmAP@1": np.zeros((3, 2))}, {}, "Column 'ODmAP@1' of measures must hold a finite number"),
        ({"ODmAP@1": [True, False, True]}, {}, "Column 'ODmAP@1' of measures must hold a finite number"),
        ({"ODmAP@1": [1.0, 2.0]}, {}, "ODmAP@1"),
        ({"removed": np.zeros((3, 2, 2))}, {}, r"Column 'removed' must have shape \[Q\] or \[Q, K\], got \(3, 2, 2\)"),
        ({}, {"group": "photo"}, "group names 'photo', which is no column"),
        ({}, {"measures": ["ODmAP@5"]}, "measures names 'ODmAP@5', which is no column"),
        ({}, {"measures": []}, "columns must hold one measure"),
        ({}, {"fixed": ["galery"]}, "fixed names 'galery', which is neither a column nor in `about`"),
    ],
)
def test_write_names_what_is_wrong_and_writes_nothing(tmp_path, changes, roles, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "odmap.parquet", columns(**changes), **{**ROLES, **roles})
    assert not list(tmp_path.iterdir())


def test_no_queries_are_refused(tmp_path):
    nothing = {"query_id": torch.zeros(0, dtype=torch.long), "R@1": torch.zeros(0)}
    with pytest.raises(ValueError, match="columns must hold one measure and one query or more"):
        write(tmp_path / "i2t.parquet", nothing, query_id="query_id", group=None, measures=["R@1"], about={})


def missing(path):
    path.unlink()


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-100])


def emptied(path):
    path.write_bytes(b"")


def damaged(path):
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :])


def text(path):
    path.write_text("query_id,ODmAP@1\n1,100\n")


def another_table(path):
    parquet.write_table(pa.table({"query_id": [1]}), path)


def another_format(path):
    table = parquet.read_table(path)
    header = {**json.loads(table.schema.metadata[b"odmap.per_query"]), "format": 2}
    parquet.write_table(table.replace_schema_metadata({b"odmap.per_query": json.dumps(header)}), path)


def a_column_dropped(path):
    parquet.write_table(parquet.read_table(path).drop_columns(["ODmAP@1"]), path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (missing, "There is no file"),
        (cut_off, "is no Parquet file, or was cut off"),
        (emptied, "is no Parquet file, or was cut off"),
        (damaged, "is no Parquet file, or was cut off"),
        (text, "is no Parquet file, or was cut off"),
        (another_table, "holds no per-query results"),
        (another_format, "has format 2 of per-query results, this version reads format 1"),
        (a_column_dropped, "was changed after it was written: measures names 'ODmAP@1', which is no column"),
    ],
)
def test_read_says_in_one_sentence_what_is_wrong_with_the_file(tmp_path, spoil, message):
    path = tmp_path / "odmap.parquet"
    write(path, columns(), **ROLES)
    spoil(path)
    with pytest.raises(PerQueryError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(PerQueryError, match="There is no file"):
        read(tmp_path)

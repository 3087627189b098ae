from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.errors import AnnotationError, MissingPathError
from datamodules.sources import existing_file, existing_folder, rows_of


@pytest.mark.parametrize("name", ["karpathy", "instances"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"images": [\n{"cocoid": 1},\n{"coc', r"is not valid JSON at line 3, column 2"),
        (b"", "is not valid JSON at line 1"),
        (b"\x1f\x8b\x08\xff", "is not text but binary"),
        (b"[1, 2]", "has no list of images|is not a COCO instances file"),
    ],
)
def test_a_broken_json_is_named_with_its_key_and_line(tiny, name, content, message):
    (tiny.folder / f"{name}.json").write_bytes(content)
    with pytest.raises(AnnotationError, match=rf"{name}.json \(config key `{name}`\) ({message})"):
        tiny.read()


def test_missing_paths_are_absolute_named_with_their_key_and_the_nearest_name(tiny, monkeypatch):
    monkeypatch.chdir(tiny.folder)
    there = str(tiny.folder)
    with pytest.raises(MissingPathError, match=rf"no file {there}/karpaty.json .*`key`\): did you mean karpathy.json"):
        existing_file(Path("karpaty.json"), "key")
    with pytest.raises(MissingPathError, match=rf"no folder {there}/nowhere .*`key`\): set `key` to the folder"):
        existing_folder(Path("nowhere"), "key")
    with pytest.raises(MissingPathError, match=rf"not even {there}/image \(.*did you mean images"):
        existing_folder(Path("image/val2014"), "key")
    with pytest.raises(MissingPathError, match=rf"{there}/images .*`key`\) is not a file"):
        existing_file(Path("images"), "key")
    with pytest.raises(MissingPathError, match=rf"{there}/karpathy.json .*`key`\) is not a folder"):
        existing_folder(Path("karpathy.json"), "key")


def test_each_path_of_a_data_set_has_its_own_key(tiny):
    with pytest.raises(MissingPathError, match="`image_root`"):
        tiny.read(root="nowhere")
    with pytest.raises(MissingPathError, match="`instances`"):
        tiny.read(instances=["instances.json", "nothing.json"])
    (tiny.folder / "karpathy.json").unlink()
    with pytest.raises(MissingPathError, match="`karpathy`"):
        tiny.read()


@given(st.lists(st.integers(0, 20), max_size=12), st.lists(st.integers(0, 25), max_size=12))
def test_rows_of_equals_a_search(ids, wanted):
    found = rows_of(np.array(ids, np.int64), np.array(wanted, np.int64))
    assert found.tolist() == [ids.index(value) if value in ids else -1 for value in wanted]

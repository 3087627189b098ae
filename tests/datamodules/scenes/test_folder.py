import json

import pytest

from datamodules.errors import ConfigError
from datamodules.scenes.folder import DrawnFolder


def header(seed):
    return {"version": 1, "config": {"seed": seed}}


def writer(text):
    def write(folder):
        folder.mkdir()
        (folder / "picture").write_text(text)

    return write


def drawn(root):
    return DrawnFolder(root, "Pictures", "pictures")


@pytest.mark.parametrize("seed", [0, 1])
def test_of_two_processes_the_faster_one_draws(tmp_path, seed):
    root = tmp_path / "set"

    def slow(folder):
        writer("slow")(folder)
        drawn(root).draw(header(seed), writer("fast"))

    if seed == 0:
        drawn(root).draw(header(0), slow)
    else:
        with pytest.raises(ConfigError, match=r"pictures\.seed = 1, but 0 is asked for"):
            drawn(root).draw(header(0), slow)
    assert (root / "picture").read_text() == "fast"
    assert list(tmp_path.iterdir()) == [root]


def test_a_link_to_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "large_disk").mkdir()
    (tmp_path / "set").symlink_to("large_disk")
    drawn(tmp_path / "set").draw(header(0), writer("mine"))
    assert (tmp_path / "set").is_symlink()
    assert (tmp_path / "large_disk" / "picture").read_text() == "mine"


def test_a_root_that_cannot_be_replaced_is_told(tmp_path, monkeypatch):
    def replace(*_):
        raise OSError(16, "Device or resource busy")  # as where root is a mounted disk

    monkeypatch.setattr("os.replace", replace)
    with pytest.raises(ConfigError, match=r"set \(Device or resource busy\)"):
        drawn(tmp_path / "set").draw(header(0), writer("mine"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("note", ["", "[]", "{}", '{"config": 3}', "\xff"])
def test_a_note_of_something_else_is_no_set(tmp_path, note):
    (tmp_path / "pictures.json").write_bytes(note.encode("latin-1"))
    with pytest.raises(ConfigError, match="something other than Pictures"):
        drawn(tmp_path).draw(header(0), writer("mine"))


def test_a_set_of_another_version_is_refused(tmp_path):
    drawn(tmp_path / "set").draw(header(0), writer("mine"))
    with pytest.raises(ConfigError, match=r"pictures\.version = 1, but 2"):
        drawn(tmp_path / "set").draw(header(0) | {"version": 2}, writer("mine"))
    assert json.loads((tmp_path / "set" / "pictures.json").read_text()) == header(0)

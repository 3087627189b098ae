"""Models from here or from the hub, and what tells one from another."""

import hashlib

import pytest

from datamodules.errors import ConfigError, MissingPathError
from synth import weights


def loader(*answers):
    """A loader that gives or raises one answer after the other, and the list of where it was told to look."""
    asked, left = [], iter(answers)

    def load(local_files_only):
        asked.append("here" if local_files_only else "hub")
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return load, asked


@pytest.mark.parametrize("refusal", [OSError("not here"), ConfigError("its tokenizer has no words"), KeyError("kind")])
def test_what_is_not_whole_here_comes_from_the_hub(refusal):
    load, asked = loader(refusal, "network")
    assert weights.pretrained(load, "some/model", "Detector", "a model") == "network"
    assert asked == ["here", "hub"]


def test_what_is_whole_here_does_not_ask_the_hub():
    load, asked = loader("network")
    assert weights.pretrained(load, "some/model", "Detector", "a model") == "network"
    assert asked == ["here"]


@pytest.mark.parametrize(
    ("refusal", "reason"), [(RuntimeError("size mismatch.\nfor a.weight"), "size mismatch"), (KeyError(), "KeyError")]
)
def test_a_folder_never_asks_the_hub(tmp_path, refusal, reason):
    load, asked = loader(refusal)
    with pytest.raises(ConfigError) as told:
        weights.pretrained(load, str(tmp_path), "Detector", "a model")
    assert str(told.value) == f"`model` {tmp_path} of Detector cannot be loaded ({reason}); give a model."
    assert asked == ["here"]


def test_a_refusal_keeps_its_own_sentence():
    load, _ = loader(OSError(), ConfigError("holds another"))
    with pytest.raises(ConfigError, match=r"^holds another$"):
        weights.pretrained(load, "some/model", "Detector", "a model")


def test_a_bug_keeps_its_traceback():
    load, _ = loader(AssertionError())
    with pytest.raises(AssertionError):
        weights.pretrained(load, "some/model", "Detector", "a model")


@pytest.mark.parametrize("path", ["/nowhere/model", "./nowhere", "../nowhere", "~/nowhere", "a/b/c"])
def test_a_path_that_leads_nowhere_is_told_from_an_id(path):
    weights.check_model("some/model", "Detector")
    weights.check_model("model", "Detector")
    with pytest.raises(MissingPathError, match=f"`model` of Detector is {path}, but"):
        weights.check_model(path, "Detector")


def test_a_file_counts_by_its_bytes(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"weights")
    assert weights.content(tmp_path / "a.onnx") == f"sha256:{hashlib.sha256(b'weights').hexdigest()}"


def test_a_folder_counts_by_the_names_and_bytes_of_what_is_no_hidden_file(tmp_path):
    folder = tmp_path / ".cache" / "model"  # the folder itself may be hidden
    (folder / "unet").mkdir(parents=True)
    (folder / "unet" / "a.bin").write_bytes(b"a")
    (folder / "config.json").write_text("{}")
    top, deep = weights.content(folder), weights.content(folder, "*", "*/*")
    assert top != deep
    (folder / ".git").mkdir()
    for hidden in (".gitattributes", ".git/index", "unet/.lock"):
        (folder / hidden).write_text("x")
    assert (weights.content(folder), weights.content(folder, "*", "*/*")) == (top, deep)
    (folder / "unet" / "a.bin").rename(folder / "unet" / "b.bin")
    assert weights.content(folder) == top
    assert weights.content(folder, "*", "*/*") != deep
    (folder / "config.json").write_text("{ }")
    assert weights.content(folder) != top


def test_the_order_in_which_a_disk_lists_files_counts_for_nothing(tmp_path, monkeypatch):
    for name in "abc":
        (tmp_path / name).write_text(name)
    before, glob = weights.content(tmp_path), weights.Path.glob
    for order in (sorted, lambda files: sorted(files, reverse=True)):
        monkeypatch.setattr(weights.Path, "glob", lambda *given, order=order: order(glob(*given)))
        assert weights.content(tmp_path) == before


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "a.pt").touch()

    def fail(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(weights, "file_digest", fail)
    with pytest.raises(ConfigError, match=r"The file .*a\.pt of a model cannot be read \(Permission denied\)"):
        weights.content(tmp_path / "a.pt")

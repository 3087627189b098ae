import hashlib
import os
import time
from pathlib import Path

import pytest

from datamodules import cache
from datamodules.cache import cache_root, content_hash, contents_hash, replacing, require_writable
from datamodules.errors import ConfigError


def test_the_argument_wins_over_the_environment_and_that_over_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("ODMAP_CACHE", raising=False)
    assert cache_root() == Path("/home/someone/.cache/odmap")
    monkeypatch.setenv("ODMAP_CACHE", "~/scratch")
    assert cache_root() == Path("/home/someone/scratch")
    assert cache_root(Path("own")) == Path("own")


def write_half(path):
    with replacing(path) as file:
        file.write(b"half")
        raise RuntimeError


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "note"
    with replacing(path) as file:
        file.write(b"old")
        assert not path.exists()
    with pytest.raises(RuntimeError):
        write_half(path)
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


@pytest.fixture
def digests(monkeypatch):
    """Files that were read to be hashed."""
    read = []
    real = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, name: read.append(file.name) or real(file, name))
    return read


def test_an_unchanged_file_is_read_once(tmp_path, monkeypatch, digests):
    path = tmp_path / "source"
    path.write_bytes(b"one")
    later = time.time_ns() + 10_000_000_000
    monkeypatch.setattr(cache.time, "time_ns", lambda: later)
    first = content_hash(path, tmp_path / "cache")
    assert content_hash(path, tmp_path / "cache") == first
    assert len(digests) == 1


def test_many_files_are_read_once_until_one_of_them_changes(tmp_path, monkeypatch, digests):
    names = ["b/1", "b/2", "a"]
    (tmp_path / "b").mkdir()
    for name in names:
        (tmp_path / name).write_text(name)
    later = time.time_ns() + 10_000_000_000
    monkeypatch.setattr(cache.time, "time_ns", lambda: later)
    first = contents_hash(tmp_path, names, tmp_path / "cache")
    assert contents_hash(tmp_path, names, tmp_path / "cache") == first
    assert len(digests) == 3
    assert contents_hash(tmp_path, names[:2], tmp_path / "cache") != first
    assert contents_hash(tmp_path, names[2:], tmp_path / "cache") == content_hash(tmp_path / "a", tmp_path / "cache")
    (tmp_path / "b" / "2").write_text("new")
    assert contents_hash(tmp_path, names, tmp_path / "cache") != first
    assert contents_hash(tmp_path, names, tmp_path / "cache") == contents_hash(tmp_path, names, tmp_path / "other")


def test_a_change_of_equal_size_and_time_is_noticed(tmp_path, monkeypatch):
    path = tmp_path / "source"
    path.write_bytes(b"one")
    later = time.time_ns() + 10_000_000_000
    monkeypatch.setattr(cache.time, "time_ns", lambda: later)
    first, stat = content_hash(path, tmp_path / "cache"), path.stat()
    time.sleep(0.02)
    path.write_bytes(b"two")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert content_hash(path, tmp_path / "cache") != first


def test_a_file_that_was_just_written_is_not_trusted_to_its_times(tmp_path, digests):
    path = tmp_path / "source"
    path.write_bytes(b"one")
    content_hash(path, tmp_path / "cache")
    content_hash(path, tmp_path / "cache")
    assert len(digests) == 2


def test_a_broken_note_or_an_unwritable_cache_only_cost_the_reading(tmp_path, monkeypatch):
    path = tmp_path / "source"
    path.write_bytes(b"one")
    later = time.time_ns() + 10_000_000_000
    monkeypatch.setattr(cache.time, "time_ns", lambda: later)
    first = content_hash(path, tmp_path / "cache")
    for note in (tmp_path / "cache" / "hashes").iterdir():
        note.write_bytes(b"")
    assert content_hash(path, tmp_path / "cache") == first
    assert content_hash(path, path) == first


def test_a_cache_below_a_file_is_refused_with_its_keys(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be written \(Not a directory\).*`cache_dir`.*ODMAP_CACHE"):
        require_writable(tmp_path / "file" / "cache")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_cache_is_refused(tmp_path):
    (tmp_path / "cache").mkdir(mode=0o500)
    with pytest.raises(ConfigError, match="Permission denied"):
        require_writable(tmp_path / "cache")

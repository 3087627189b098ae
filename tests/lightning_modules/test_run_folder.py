"""A folder of its own for every run, and Weights & Biases that never asks and never hangs."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from lightning_modules.run_folder import forget_run_folder, fresh_run_folder, share_run_folder, wandb_is_offline


def test_runs_of_one_second_get_folders_of_their_own(tmp_path: Path) -> None:
    folders = {fresh_run_folder(tmp_path, "demo") for _ in range(3)}
    assert len(folders) == 3
    assert all(folder.is_dir() and folder.parent == tmp_path / "demo" for folder in folders)


def test_started_processes_share_the_folder(tmp_path: Path) -> None:
    folder = fresh_run_folder(tmp_path, "demo")
    share_run_folder(folder)
    assert fresh_run_folder(tmp_path, "demo") == folder
    (folder / "config.yaml").touch()
    forget_run_folder()
    assert fresh_run_folder(tmp_path, "demo") != folder


def test_a_run_that_left_nothing_leaves_no_folder(tmp_path: Path) -> None:
    share_run_folder(folder := fresh_run_folder(tmp_path, "demo"))
    forget_run_folder()
    assert not folder.exists()


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.delenv("WANDB_MODE")
    for name in ("https_proxy", "http_proxy", "all_proxy", "HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_the_mode_of_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "dryrun")
    assert wandb_is_offline() == "WANDB_MODE is dryrun"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_is_offline() is None


def test_without_a_key_it_is_offline(online: pytest.MonkeyPatch) -> None:
    assert wandb_is_offline() == "you are not logged in (`wandb login`)"


def test_with_a_key_and_no_server_it_is_offline(online: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    online.setenv("WANDB_API_KEY", "0" * 40)
    online.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    assert wandb_is_offline() == "127.0.0.1 cannot be reached"


def test_with_a_netrc_entry_and_a_server_it_is_online(online: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login user password " + "0" * 40 + "\n")
    online.setenv("NETRC", str(tmp_path / "netrc"))
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        online.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert wandb_is_offline() is None

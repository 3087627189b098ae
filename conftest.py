"""Every test runs without network beyond loopback, without an account, and with caches of its own."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

_LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0")  # noqa: S104 (names of this machine, nothing is bound)


@pytest.fixture(scope="session", autouse=True)
def _own_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    settings = {
        "ODMAP_CACHE": str(tmp_path_factory.mktemp("cache")),
        "GLOO_SOCKET_IFNAME": "lo",
        "HF_HUB_OFFLINE": "1",
        "WANDB_DATA_DIR": str(tmp_path_factory.mktemp("wandb")),
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "NETRC": os.devnull,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        patch.delenv("WANDB_API_KEY", raising=False)
        patch.setattr(socket.socket, "connect", _guarded(socket.socket.connect))
        patch.setattr(socket.socket, "connect_ex", _guarded(socket.socket.connect_ex))
        yield


@pytest.fixture(scope="session")
def processes() -> Any:
    """Start processes from one server that has torch and torchmetrics loaded, so that each costs little."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch.nn.parallel", "torchmetrics", "lightning.pytorch"])
    return context


def _guarded(connect: Any) -> Any:
    def guarded(self: socket.socket, address: Any) -> Any:
        if self.family != socket.AF_UNIX and not str(address[0]).startswith(_LOOPBACK):
            raise OSError(f"the tests are not allowed to reach {address}")
        return connect(self, address)

    return guarded

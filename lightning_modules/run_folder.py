"""A fresh folder for every run, and the state of Weights & Biases on this machine."""

from __future__ import annotations

import netrc
import os
import socket
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from urllib.parse import urlparse

from lightning.pytorch.utilities import rank_zero_only

_VARIABLE = "ODMAP_RUN_FOLDER"  # hands the folder on to the processes that DDP starts


def fresh_run_folder(root: Path, name: str) -> Path:
    """Return `root/name/DATE-TIME`, made new on rank zero; processes started by it get the same folder.

    Args:
        root: folder of all runs.
        name: name of the run's family.
    """
    if inherited := os.environ.get(_VARIABLE):
        return Path(inherited)
    stamp = root / name / datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    folder, copy = stamp, 1
    while getattr(rank_zero_only, "rank", 0) == 0:
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:
            copy += 1
            folder = stamp.with_name(f"{stamp.name}-{copy}")
    return folder


def share_run_folder(folder: Path) -> None:
    """Let the processes that the Trainer starts from this one use the same folder."""
    os.environ[_VARIABLE] = str(folder)


def forget_run_folder() -> None:
    """End the sharing, so that the next run of this process gets a folder of its own; an empty folder goes."""
    if folder := os.environ.pop(_VARIABLE, None):
        with suppress(OSError):  # it holds the record of a run
            Path(folder).rmdir()


def wandb_is_offline() -> str | None:
    """Say why Weights & Biases has to run offline, or return None when it can be reached with a key.

    Looks at the environment and the netrc file alone, and waits at most 3 seconds for the server: it never asks.
    Where `WANDB_MODE` is "disabled" nothing is written at all, so there is nothing to keep offline.
    """
    mode = os.environ.get("WANDB_MODE")
    if mode == "disabled":
        return None
    if mode in ("offline", "dryrun"):
        return f"WANDB_MODE is {mode}"
    server = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"))
    host = server.hostname or ""
    if not os.environ.get("WANDB_API_KEY") and not _has_netrc_entry(host):
        return "you are not logged in (`wandb login`)"
    if any(name.lower() in ("https_proxy", "http_proxy", "all_proxy") for name in os.environ):
        return None
    try:
        socket.create_connection((host, server.port or (80 if server.scheme == "http" else 443)), timeout=3).close()
    except OSError:
        return f"{host} cannot be reached"
    return None


def _has_netrc_entry(host: str) -> bool:
    for path in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        try:
            if path and netrc.netrc(os.path.expanduser(path)).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False

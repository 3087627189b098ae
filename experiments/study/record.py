"""How a cell was made: on which machine, with which versions, from which data."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "lightning", "torchmetrics", "open_clip_torch", "transformers", "timm")


def record(synthetic: Path, started: str, seconds: float) -> dict[str, Any]:
    """Return how a cell was made.

    Args:
        synthetic: the set that its queries come from.
        started: when it began.
        seconds: how long it took since it was last taken up.
    """
    return {
        "started": started,
        "seconds": round(seconds, 1),
        "device": device(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _PACKAGES},
        "commit": commit(),
        **asked(synthetic),
    }


def asked(synthetic: Path) -> dict[str, Any]:
    """Return which data and queries a cell is tested on: the data's fingerprint and the hash of the set's protocol."""
    protocol = (synthetic / "protocol.json").read_bytes()
    data = json.loads(protocol).get("config", {}).get("data", {})
    return {
        "data": data.get("fingerprint") if isinstance(data, dict) else None,
        "protocol": hashlib.sha256(protocol).hexdigest()[:16],
    }


@cache
def device() -> str:
    """Return what models are trained on: the GPU's name, or the CPU with its number of cores."""
    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name(0))
    return f"CPU ({platform.machine()}, {cores()} cores)"


def cores() -> int:
    """Return how many cores this process may use; all there are where the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def commit() -> str | None:
    """Return the commit of this program, with a + where files differ from it; None outside of a repository.

    It is looked up each time, since it may change while a study runs.
    """
    root = Path(__file__).parents[2]
    try:
        head = _git(root, "rev-parse", "--short=12", "HEAD")
        return head + "+" * bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603

"""Seconds and memory of the two commands that a newcomer types first: `train.py --help`, and the demo from scratch.

Run from an installed checkout: `.venv/bin/python benchmarks/demo.py`. The demo runs in an empty folder with an empty
cache, so it draws Scenes, synthesises, trains and validates. Its closing ODmAP@1 is compared with the random row before
a figure is printed.
"""

from __future__ import annotations

import csv
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).parents[1]
TRAIN = [sys.executable, str(PROJECT / "train.py")]


def main() -> None:
    """Print one line per command."""
    help_seconds = [_run([*TRAIN, "--help"], PROJECT)[0] for _ in range(6)][1:]
    print(f"train.py --help: {statistics.median(help_seconds):.2f} s (median of 5, warm)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(PROJECT / "configs", folder / "configs")
        seconds, peak = _run([*TRAIN, "fit", "--config", "configs/demo.yaml"], folder)
        model, chance = _scores(folder)
        assert model > 2 * chance, f"ODmAP@1 is {model:.1f}, a random ranking has {chance:.1f}"
        print(f"demo: ODmAP@1 {model:.1f}, random ranking {chance:.1f}")
        print(f"demo: {seconds:.0f} s in all, {peak / 2**20:.2f} GiB at its peak (PSS of all processes)")


def _scores(folder: Path) -> tuple[float, float]:
    with next((folder / "runs").glob("demo/*/metrics.csv")).open() as file:
        last = [row for row in csv.DictReader(file) if row["val/ODmAP@1"]][-1]
    return float(last["val/ODmAP@1"]), float(last["val/random/ODmAP@1"])


def _run(command: list[str], folder: Path) -> tuple[float, int]:
    """Run a command and return its seconds and the peak memory of its processes in KiB."""
    environment = {**os.environ, "ODMAP_CACHE": str(folder / "cache"), "WANDB_MODE": "offline"}
    start, peak = time.perf_counter(), 0
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, sum(_pss(pid) for pid in _family(process.pid)))
        time.sleep(0.05 if peak < 2**18 else 1)
    assert process.returncode == 0, f"{' '.join(command)} ended with status {process.returncode}"
    return time.perf_counter() - start, peak


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [pid, *(relative for child in children for relative in _family(int(child)))]


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


if __name__ == "__main__":
    main()

"""How the runs of a report were made, as far as their folders say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from datamodules.errors import ConfigError
from experiments.report.numbers import table
from experiments.report.tested import Asked, Run
from experiments.yaml_files import read_mapping


def record(runs: Sequence[Run], asked: Asked) -> str:
    """Return what is known of each run as a table, and their configs below; every text is escaped."""
    facts = [_facts(run) | _of_data(asked) for run in runs]
    keys = dict.fromkeys(key for each in facts for key in each)
    rows = [[key, *(each.get(key, "") for each in facts)] for key in keys]
    return table(["", *(run.name for run in runs)], rows) + "".join(map(_config, runs))


def _facts(run: Run) -> dict[str, str]:
    facts = {"results": str(run.folder)} | {key: str(value) for key, value in run.found.about.items() if value != ""}
    if cell := run.nearest("cell.json"):
        told = _cell(cell)
        facts |= {"cell": str(told.get("hash", ""))} | _flat(told.get("record", {}))
    if config := run.nearest("config.yaml"):
        seed = read_mapping(config, "put back the one that the run wrote").get("seed_everything")
        first = config.read_text(encoding="utf-8").partition("\n")[0]
        facts |= {"seed": str(seed), "written by": first.lstrip("# ")}
    return facts


def _cell(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(
            f"{path} is damaged ({error}): put back the one that the study wrote, or delete it."
        ) from error
    if not isinstance(told, dict):
        raise ConfigError(f"{path} is no mapping: put back the one that the study wrote, or delete it.")
    return told


def _flat(held: dict[str, Any]) -> dict[str, str]:
    flat = {key: value for key, value in held.items() if not isinstance(value, dict)}
    flat |= {
        f"{key} {name}": value for key, each in held.items() if isinstance(each, dict) for name, value in each.items()
    }
    return {key: str(value) for key, value in flat.items() if value is not None}


def _of_data(asked: Asked) -> dict[str, str]:
    return {
        "split": asked.split,
        "data fingerprint": asked.data.tables.fingerprint,
        "synthetic set": str(asked.made.root),
        "protocol hash": asked.protocol_hash,
    }


def _config(run: Run) -> str:
    config = run.nearest("config.yaml")
    if config is None:
        return ""
    text = escape(config.read_text(encoding="utf-8"))
    return f"<details><summary>Config of {escape(run.name)}</summary><pre>{text}</pre></details>"

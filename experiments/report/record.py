"""How the runs of a report were made, as far as their folders say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

import yaml

from experiments.report.numbers import table
from experiments.report.tested import Asked, Run


def record(runs: Sequence[Run], asked: Asked) -> str:
    """Return what is known of each run as a table, and their configs below; every text is escaped."""
    facts = [_facts(run) | _of_data(asked) for run in runs]
    keys = dict.fromkeys(key for each in facts for key in each)
    rows = [[key, *(each.get(key, "") for each in facts)] for key in keys]
    return table(["", *(run.name for run in runs)], rows) + "".join(map(_config, runs))


def _facts(run: Run) -> dict[str, str]:
    facts = {"results": str(run.folder)} | {key: str(value) for key, value in run.found.about.items() if value != ""}
    if cell := run.nearest("cell.json"):
        told = json.loads(cell.read_text(encoding="utf-8"))
        facts |= {"cell": str(told.get("hash", ""))} | _flat(told.get("record", {}))
    if config := run.nearest("config.yaml"):
        text = config.read_text(encoding="utf-8")
        seed = (yaml.safe_load(text) or {}).get("seed_everything")
        facts |= {"seed": str(seed), "written by": text.partition("\n")[0].lstrip("# ")}
    return facts


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

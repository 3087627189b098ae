"""How the runs of a report were made, as far as their folders say."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

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
    if told := run.cell:
        facts |= {"cell": str(told.get("hash", ""))} | _flat(told.get("record", {}))
    if config := run.nearest("config.yaml"):
        seed = read_mapping(config, "put back the one that the run wrote").get("seed_everything")
        first = config.read_text(encoding="utf-8").partition("\n")[0]
        facts |= {"seed": str(seed), "written by": first.lstrip("# ")}
    return facts


def _flat(held: dict[str, Any]) -> dict[str, str]:
    flat = {key: value for key, value in held.items() if not isinstance(value, dict)}
    flat |= {
        f"{key} {name}": value for key, each in held.items() if isinstance(each, dict) for name, value in each.items()
    }
    return {key: str(value) for key, value in flat.items() if value is not None}


def _of_data(asked: Asked) -> dict[str, str]:
    return {
        "split of --data": asked.split,
        "data fingerprint of --data": asked.data.tables.fingerprint,
        "synthetic set of --data": str(asked.made.root),
        "protocol hash of --data": asked.protocol_hash,
    }


def _config(run: Run) -> str:
    config = run.nearest("config.yaml")
    if config is None:
        return ""
    text = escape(config.read_text(encoding="utf-8"))
    return f"<details><summary>Config of {escape(run.name)}</summary><pre>{text}</pre></details>"

"""Yaml files that a user gives: read, or refused in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from datamodules.errors import ConfigError


def read_mapping(path: Path, hint: str) -> dict[str, Any]:
    """Return what a yaml holds.

    Args:
        path: of a file that is there.
        hint: what to do where it is no mapping, for messages.

    Raises:
        ConfigError: it is no yaml, or no mapping.
    """
    try:
        held = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no yaml ({' '.join(str(error).split())}).") from error
    if not isinstance(held, dict):
        raise ConfigError(f"{path} is no mapping: {hint}.")
    return held

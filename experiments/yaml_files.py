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
    return mapping_in(read_text(path), path, hint)


def read_text(path: Path) -> str:
    """Return the text of a yaml.

    Args:
        path: of a file that is there.

    Raises:
        ConfigError: it is no UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no yaml ({error}).") from error


def mapping_in(text: str, path: Path, hint: str) -> dict[str, Any]:
    """Return what the text of a yaml holds.

    Args:
        text: of the file.
        path: of the same, for messages.
        hint: what to do where it is no mapping, for messages.

    Raises:
        ConfigError: it is no yaml, or no mapping.
    """
    try:
        held = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no yaml ({' '.join(str(error).split())}).") from error
    if not isinstance(held, dict):
        raise ConfigError(f"{path} is no mapping: {hint}.")
    return held

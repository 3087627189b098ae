"""A drawn data set appears whole or not at all, and is never drawn over another."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.errors import ConfigError


@dataclass(frozen=True)
class DrawnFolder:
    """Where a data set is drawn to, and how errors speak of it.

    Attributes:
        root: the data set's folder.
        name: what the data set is called.
        key: config key of what it is made of.
    """

    root: Path
    name: str
    key: str

    @property
    def note(self) -> str:
        """File below `root` that holds the config and the version of the format."""
        return f"{self.key}.json"

    def draw(self, header: dict[str, Any], write: Callable[[Path], None]) -> None:
        """Have the data set written into a draft that becomes `root` in one step, unless it is there already.

        Args:
            header: what the data set depends on; its value under `config` is named by key where it differs.
            write: creates the folder that it is given, and fills it.

        Raises:
            ConfigError: `root` holds a data set of another config, or something else, or cannot be written.
        """
        if self._is_finished(header):
            return
        with self._draft() as draft:
            folder = Path(draft) / "drawn"
            write(folder)
            (folder / self.note).write_text(json.dumps(header, indent=1) + "\n", encoding="utf-8")
            try:
                os.replace(folder, self.root.resolve())  # a link to a folder stays a link
            except OSError as error:
                if not self._is_finished(header):  # another process may have been faster
                    raise self._unwritable(error) from None

    def _draft(self) -> tempfile.TemporaryDirectory[str]:
        try:
            root = self.root.resolve()
            root.parent.mkdir(parents=True, exist_ok=True)
            return tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-")
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> ConfigError:
        return ConfigError(
            f"{self.name} cannot be written to {self.root} ({error.strerror}), which root names: "
            "name a folder that can be written."
        )

    def _is_finished(self, header: dict[str, Any]) -> bool:
        """Tell whether the data set of this header is there; anything else is refused, never replaced."""
        root = self.root
        if not root.exists() or (root.is_dir() and not any(root.iterdir())):
            return False
        found = self._noted()
        if found is None:
            raise ConfigError(f"{root} holds something other than {self.name} (root): name a new or an empty folder.")
        for key, wanted in [*header["config"].items(), *header.items()]:
            present = found["config"].get(key, found.get(key))
            if present != wanted and key != "config":
                raise ConfigError(
                    f"{root} was drawn with {self.key}.{key} = {present!r}, but {wanted!r} is asked for: "
                    "name another root or delete the folder."
                )
        return True

    def _noted(self) -> dict[str, Any] | None:
        """Return what the note says; None where there is none, or it is not of our writing."""
        try:
            found = json.loads((self.root / self.note).read_text(encoding="utf-8"))
            return found if isinstance(found["config"], dict) else None
        except (OSError, ValueError, TypeError, KeyError):
            return None

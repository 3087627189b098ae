"""Cells: one model, one row and one seed; what decides its result, and where that is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from datamodules.errors import ConfigError
from experiments.study.rows import MIXING, Row, row
from experiments.study.settings import STANDARD, WORK, Model, Settings, merged, placed
from experiments.yaml_files import mapping_in, read_text

_BEGUN, _FINISHED = "begun.json", "cell.json"
_TEST = "test"  # the written split that queries of the test come from


@dataclass(frozen=True)
class Cell:
    """One training and its test, or a test alone.

    Attributes:
        settings: of the study.
        model: name of what is trained.
        row: how.
        seed: of the weights, the order, the augmentation and the choice of synthetic pairs.
        work: folder of data, synthetic sets and cells.
    """

    settings: Settings
    model: str
    row: Row
    seed: int
    work: Path

    @property
    def name(self) -> str:
        """What it is called in messages: `clip/synthetic/seed0`."""
        return f"{self.model}/{self.row.name}/seed{self.seed}"

    def folder(self, root: Path) -> Path:
        """Return its folder below that of the study."""
        return root / "cells" / self.name

    @cached_property
    def config(self) -> str:
        """Text of its model's config, read once: a file that is changed later changes no cell of a study that runs.

        Raises:
            ConfigError: it is no text.
        """
        return read_text(self._model.config)

    @cached_property
    def fit(self) -> dict[str, Any] | None:
        """What its training changes in the model's config; None where it has no training of its own."""
        return None if self._fit is None else placed(self._fit, self.work)

    @cached_property
    def test(self) -> dict[str, Any]:
        """What its test changes in the model's config: always the same data, queries and gallery."""
        return placed(self._test, self.work)

    @cached_property
    def _fit(self) -> dict[str, Any] | None:
        if not self.row.trained or self.row.checkpoint_of:
            return None
        source = merged(self.settings.source, self.settings.oracle if self.row.on_oracle else None)
        ratio = {"data": {"init_args": {"ratio": self.settings.ratio}}}
        return merged(MIXING, self._common(source, self.row.synthesis), ratio, *self._overlays, self.row.overlay)

    @cached_property
    def _test(self) -> dict[str, Any]:
        return merged(self._common(self.settings.source, STANDARD), *self._overlays, self.row.test)

    @cached_property
    def parent(self) -> Cell | None:
        """The cell whose checkpoint this one tests, if any."""
        if self.row.checkpoint_of is None:
            return None
        return Cell(self.settings, self.model, row(self.settings, self.row.checkpoint_of), self.seed, self.work)

    @property
    def syntheses(self) -> dict[str, dict[str, Any]]:
        """The synthetic sets that it needs, as configs of `python -m synth`, by name."""
        return placed(self._syntheses, self.work)

    @property
    def _syntheses(self) -> dict[str, dict[str, Any]]:
        return {name: self._synthesis(name) for name in dict.fromkeys((STANDARD, self.row.synthesis))}

    @cached_property
    def spec(self) -> dict[str, Any]:
        """Everything that decides its result; where the work folder lies does not.

        Raises:
            ConfigError: the config of its model is no yaml, no mapping, or names another file.
        """
        parent = self.parent
        spec = {
            "config": self._mapping(),
            "fit": self._fit,
            "test": self._test,
            "syntheses": self._syntheses,
            "seed": self.seed,
            "parent": parent.hash if parent else None,
        }
        found: dict[str, Any] = json.loads(json.dumps(spec, default=str))  # dates of a yaml, and keys that are no texts
        return found

    @cached_property
    def hash(self) -> str:
        """Hash of `spec`."""
        text = json.dumps(self.spec, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def results(self, root: Path) -> Path | None:
        """Return the folder with the results of its test, None where the cell is not finished."""
        told = self.read(root)
        return None if told is None else self.folder(root) / told["results"]

    def data(self, root: Path) -> Path:
        """Write a config of the data that it is tested on, where they lie now, and return its path."""
        path = self.folder(root) / "data.yaml"
        path.write_text(yaml.safe_dump({"data": merged(self._mapping(), self.test)["data"]}), encoding="utf-8")
        return path

    def read(self, root: Path) -> dict[str, Any] | None:
        """Return what was found, None where the cell is not finished.

        Raises:
            ConfigError: it was made or begun with other settings, or its record is damaged.
        """
        folder = self.folder(root)
        if not (folder / _FINISHED).exists():
            self._checked(folder / _BEGUN)
            return None
        return self._checked(folder / _FINISHED)

    def begin(self, root: Path) -> None:
        """Write down what decides its result, into its folder, before anything is made of it.

        Raises:
            ConfigError: it was begun with other settings.
        """
        if self._checked(self.folder(root) / _BEGUN) is None:
            self._write(self.folder(root) / _BEGUN, {})

    def finish(self, root: Path, found: Mapping[str, Any]) -> None:
        """Write down what was found, which makes it finished."""
        self._write(self.folder(root) / _FINISHED, found)

    def _mapping(self) -> dict[str, Any]:
        held = mapping_in(self.config, self._model.config, "give a config of train.py")
        for key in ("model", "data", "trainer"):
            if str(held.get(key)).endswith((".yaml", ".yml", ".json")):
                raise ConfigError(
                    f"{self._model.config}: `{key}` is the file {held[key]}: write what it holds into the config, as a "
                    "study has to know all that decides a result."
                )
        return held

    def _write(self, path: Path, found: Mapping[str, Any]) -> None:
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps({"hash": self.hash, **found, "spec": self.spec}, indent=1), encoding="utf-8")
        draft.replace(path)

    def _checked(self, path: Path) -> dict[str, Any] | None:
        if not path.exists():
            return None
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            made = found["hash"]
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path} is damaged: delete {path.parent} to have the cell made again.") from error
        if made != self.hash:
            raise ConfigError(
                f"{path.parent} was made with other settings{_which(found, self.spec)}: name another `--work` folder, "
                "or delete that one."
            )
        return found

    @property
    def _model(self) -> Model:
        return self.settings.model(self.model)

    @property
    def _overlays(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.settings.overlay, self._model.overlay

    def _common(self, source: dict[str, Any], synthesis: str) -> dict[str, Any]:
        arguments = {"synthetic": _output(synthesis), "seed": self.seed}
        logs = {"trainer": {"logger": False}}  # beside the csv that every run keeps
        data = {"data": merged(source, {"init_args": arguments})}
        return {"seed_everything": self.seed, "synthesis": None, **logs, **data}

    def _synthesis(self, name: str) -> dict[str, Any]:
        config = merged(self.settings.synthesis)
        source = self.settings.source
        if name != STANDARD:
            config["queries"] = {split: of for split, of in config.get("queries", {}).items() if split != _TEST}
            config.update(self.row.changes)
            source = merged(source, self.settings.oracle if self.row.on_oracle else None)
        return {"data": source, "output": _output(name), **config}


def cells_of(settings: Settings, models: Sequence[str], names: Sequence[str], seeds: int, work: Path) -> list[Cell]:
    """Return the cells of a table: these rows of these models, with seeds 0, 1, ...

    A zero-shot row is there once, and only for models that have weights to start from.

    Raises:
        ConfigError: there is no such model or row.
    """
    chosen = [row(settings, name) for name in names]
    return [
        Cell(settings, model.name, one, seed, work)
        for seed in range(seeds)
        for model in map(settings.model, models)
        for one in chosen
        if one.trained or (model.zero_shot and seed == 0)
    ]


def _output(name: str) -> str:
    return f"{WORK}/synthetic/{name}"


def _which(found: dict[str, Any], spec: dict[str, Any]) -> str:
    """Name the first part that differs."""
    made = found.get("spec", {})
    changed = next((key for key in spec if made.get(key) != spec[key]), None)
    return f" (`{changed}` differs)" if changed else ""

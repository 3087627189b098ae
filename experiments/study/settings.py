"""What a study trains on which data, read from a yaml such as those in `experiments/settings`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from datamodules.errors import ConfigError, MissingPathError
from experiments.yaml_files import read_mapping

SHIPPED = Path(__file__).parents[1] / "settings"
STANDARD = "standard"
"""Name of the synthetic set that queries come from, and pairs where a row does not say otherwise."""

WORK = "$WORK"
"""What stands for the folder of data, synthetic sets and cells in the texts of settings, the models' `config` aside."""


@dataclass(frozen=True)
class Model:
    """One model of a study.

    Attributes:
        name: by which it is asked for.
        label: to show.
        config: of `train.py`.
        overlay: what the study changes in it.
        zero_shot: whether the weights that training starts from are worth a row of their own.
    """

    name: str
    label: str
    config: Path
    overlay: dict[str, Any] = field(default_factory=dict)
    zero_shot: bool = False


@dataclass(frozen=True)
class Settings:
    """What a study trains on which data.

    Attributes:
        name: of its folders.
        dataset: label of the data.
        models: by name.
        source: the data as a config names them: `class_path` and `init_args`, without synthetic pairs.
        synthesis: config of `python -m synth` without `data` and `output`; the standard set.
        overlay: what is changed in the config of every model.
        oracle: what is changed in `source` for data without the correlation; None where there are none.
        ratio: of synthetic to original pairs; None for all pairs that there are.
        ratios: those of Figure 4.
        fills: by name, those of Table 3 as `fill` of a synthesis; the standard one is not among them.
        captions: likewise, its caption strategies, as changes of a synthesis.
        dilations: pixels by which removed regions grow, with each of the fills, for rows beyond the paper.
        margin: weight of the counterfactual margin, for a row beyond the paper; None for none.
    """

    name: str
    dataset: str
    models: dict[str, Model]
    source: dict[str, Any]
    synthesis: dict[str, Any]
    overlay: dict[str, Any] = field(default_factory=dict)
    oracle: dict[str, Any] | None = None
    ratio: float | None = None
    ratios: Sequence[float] = ()
    fills: dict[str, dict[str, Any]] = field(default_factory=dict)
    captions: dict[str, dict[str, Any]] = field(default_factory=dict)
    dilations: Sequence[int] = ()
    margin: float | None = None

    def model(self, name: str) -> Model:
        """Return a model by its name.

        Raises:
            ConfigError: there is none.
        """
        if name not in self.models:
            raise ConfigError(f"`--models` has {name!r}, {known(name, self.models)}")
        return self.models[name]


def known(name: str, names: Sequence[str] | Mapping[str, Any]) -> str:
    """Return the end of a sentence about a name: which one may have been meant, or which ones there are.

    Example:
        >>> known("clipp", ["vsepp", "clip"]), known("x", ["vsepp", "clip"])
        ('did you mean clip?', 'known are vsepp, clip.')
    """
    near = get_close_matches(name, list(names), n=1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(names)}."


def merged(*parts: Mapping[str, Any] | None) -> dict[str, Any]:
    """Merge nested mappings; the later wins, and lists are replaced.

    Example:
        >>> merged({"a": {"b": 1, "c": [1]}}, None, {"a": {"c": [2]}})
        {'a': {'b': 1, 'c': [2]}}
    """
    found: dict[str, Any] = {}
    for part in parts:
        for key, value in (part or {}).items():
            both = isinstance(value, Mapping) and isinstance(found.get(key), Mapping)
            found[key] = merged(found[key], value) if both else value
    return found


_NAME = re.compile(r"\w[\w.-]*")


def placed(held: Mapping[str, Any], work: Path) -> dict[str, Any]:
    """Return a nested mapping with the work folder in place of `$WORK` in its texts.

    Example:
        >>> placed({"root": "$WORK/scenes", "splits": ["$WORK"]}, Path("work"))
        {'root': 'work/scenes', 'splits': ['work']}
    """
    return {key: _placed(value, str(work)) for key, value in held.items()}


def read(path: Path) -> Settings:
    """Read the settings of a study.

    Args:
        path: yaml with the attributes of `Settings`, the name aside, which is that of the file.

    Raises:
        MissingPathError: there is no such file, or no config that it names.
        ConfigError: it is no yaml, lacks a key, has one too many, or a value is of another kind.
    """
    if not path.is_file():
        raise MissingPathError(f"`--settings` is {path}, which is no file; shipped are {', '.join(_shipped())}.")
    held = read_mapping(path, "see those in experiments/settings")
    _check_keys(f"{path}", held, Settings, {"name"})
    _check_names(path, held)
    if not isinstance(held["synthesis"].get("queries", {}), dict):
        raise ConfigError(
            f"{path}: `synthesis.queries` is {held['synthesis']['queries']!r}, but must be a mapping such as "
            "{test: [test]}."
        )
    models = {name: _model(path, name, entry) for name, entry in held.pop("models").items()}
    return Settings(path.stem, models=models, **held)


def _model(path: Path, name: str, entry: Any) -> Model:
    _check_keys(f"{path}: `models.{name}`", entry, Model, {"name"})
    config = Path(entry["config"])
    if not config.is_file():
        raise MissingPathError(
            f"{path}: `models.{name}.config` is {config}, but {config.absolute()} is no file: run the command from the "
            "folder that the path starts from."
        )
    return Model(name, **{**entry, "config": config})


def _check_keys(where: str, held: Mapping[str, Any], kind: Any, given: set[str]) -> None:
    from dataclasses import MISSING

    names = [one.name for one in fields(kind) if one.name not in given]
    if unknown := next((key for key in held if key not in names), None):
        raise ConfigError(f"{where} has no key `{unknown}`, {known(str(unknown), names)}")
    needed = {one.name for one in fields(kind) if one.default is MISSING and one.default_factory is MISSING}
    if missing := sorted(needed - given - held.keys()):
        raise ConfigError(f"{where} lacks the key `{missing[0]}`.")
    for one in fields(kind):
        said, fits = _KINDS[one.type.removesuffix(" | None")]
        may_be_none = one.type.endswith(" | None") and held.get(one.name) is None
        if one.name in held and not may_be_none and not fits(held[one.name]):
            raise ConfigError(f"{where}: `{one.name}` is {held[one.name]!r}, but must be {said}.")


def _check_names(path: Path, held: Mapping[str, Any]) -> None:
    """Refuse names that could not be those of folders."""
    if not held["models"]:
        raise ConfigError(f"{path}: `models` is empty: name one at least, with its label and config.")
    for key in ("models", "fills", "captions"):
        if wrong := [name for name in held.get(key, {}) if not _is_text(name) or not _NAME.fullmatch(name)]:
            raise ConfigError(
                f"{path}: `{key}` has the name {wrong[0]!r}, but folders are called by it: give letters, digits, _, . "
                "and -, in quotes where it would be a number."
            )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and _is_number(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_mappings(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(inner, dict) for inner in value.values())


_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {  # by annotation
    "str": ("a text", _is_text),
    "Path": ("a path", _is_text),
    "bool": ("true or false", lambda value: isinstance(value, bool)),
    "float": ("a number above 0, as 0.4", _is_number),
    "Sequence[int]": (
        "a list of whole numbers above 0",
        lambda value: isinstance(value, list) and all(map(_is_whole, value)),
    ),
    "Sequence[float]": (
        "a list of numbers above 0",
        lambda value: isinstance(value, list) and all(map(_is_number, value)),
    ),
    "dict[str, Any]": ("a mapping", lambda value: isinstance(value, dict)),
    "dict[str, dict[str, Any]]": ("a mapping of mappings", _are_mappings),
    "dict[str, Model]": ("a mapping of mappings with label and config", _are_mappings),
}


def _placed(value: Any, work: str) -> Any:
    if isinstance(value, dict):
        return {key: _placed(inner, work) for key, inner in value.items()}
    if isinstance(value, list):
        return [_placed(inner, work) for inner in value]
    return value.replace(WORK, work) if isinstance(value, str) else value


def _shipped() -> list[str]:
    return sorted(str(path) for path in SHIPPED.glob("*.yaml"))

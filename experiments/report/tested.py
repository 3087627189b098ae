"""What `train.py test` left of one run, and the data that it was tested on."""

from __future__ import annotations

import hashlib
import json
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules import RetrievalDataModule
from datamodules.errors import ConfigError
from datamodules.sources import rows_of
from datamodules.synthetic_set import SyntheticSet
from experiments.options import load_data
from metrics.compare import check_comparable
from metrics.per_query import PerQuery, PerQueryError, read

_RERANKED = "reranked-odmap.parquet"
_COLUMNS = ("removed", "kept", "source_image_id", "retrieved_ids", "relevant")
_MEND_CELL = "put back the one that the study wrote, or delete it"
_MEND_DATA = "give with `--data` the config that the run was tested with"

STATES = ("fixed", "broken", "unchanged")
"""What became of a query from one run to another; of a single run see `OUTCOMES`."""
OUTCOMES = ("right", "wrong")
"""Whether the first caption is relevant and names nothing that was removed."""


@dataclass(frozen=True)
class Run:
    """One run and what it found for every query.

    Attributes:
        folder: as `train.py test` left it.
        name: what to call it.
        found: its ODmAP, after re-ranking where that was done.
    """

    folder: Path
    name: str
    found: PerQuery

    @staticmethod
    def read(folder: Path, name: str | None = None, *, reranked: bool = False) -> Run:
        """Read the results of a run.

        Args:
            folder: holds `odmap.parquet` or, of what is re-ranked, `reranked-odmap.parquet`.
            name: what to call it; None for what its path says.
            reranked: whether to take what the model has after re-ranking.

        Raises:
            ConfigError: it holds no results that can be used.
        """
        path = folder / (_RERANKED if reranked else "odmap.parquet")
        try:
            found = read(path)
        except PerQueryError as error:
            raise ConfigError(f"{error} (`--run` and `--against` take a folder that `train.py test` wrote.)") from error
        if lost := [column for column in _COLUMNS if column not in found.table.column_names]:
            raise ConfigError(f"{path} has no column `{lost[0]}`: give a folder that `train.py test` wrote.")
        return Run(folder, name or called(folder), found)

    @cached_property
    def retrieved(self) -> NDArray[np.int64]:
        """`[Q, K]` ids of captions, best first, -1 where there is none."""
        column = self.found.table["retrieved_ids"].combine_chunks()
        ids: NDArray[np.int64] = column.flatten().to_numpy().reshape(len(column), -1)
        return ids

    @property
    def first(self) -> NDArray[np.float64]:
        """`[Q]` ODmAP@1, 0 or 100, which is no measure of runs whose `top_k` does not begin with 1."""
        from pyarrow import compute

        right = compute.list_element(self.found.table["relevant"], 0)
        return np.where(right.to_numpy(), 100.0, 0.0)

    @property
    def cuts(self) -> list[str]:
        """The measures ODmAP@k, ascending."""
        return [name for name in self.found.measures if name.startswith("ODmAP@")]

    def masks(self, role: str, class_names: Sequence[str]) -> NDArray[np.bool_]:
        """Return `[Q, C]` bool: the classes that each query's image lost (`removed`) or still has (`kept`).

        Raises:
            ConfigError: the data have no such class.
        """
        index = {name: place for place, name in enumerate(class_names)}
        mask = np.zeros((len(self.found.ids), len(index)), dtype=bool)
        for row, names in enumerate(self.found.table[role].to_pylist()):
            for name in names:
                if name not in index:
                    raise ConfigError(f"{self.found.path} names the class {name!r}, which `--data` does not have.")
                mask[row, index[name]] = True
        return mask

    @cached_property
    def cell(self) -> dict[str, Any]:
        """What the study said of the cell whose results these are, `{}` where they are of none.

        Raises:
            ConfigError: its file is damaged.
        """
        path = self.nearest("cell.json")
        if path is None:
            return {}
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{path} is damaged ({error}): {_MEND_CELL}.") from error
        if not isinstance(told, dict) or not isinstance(told.get("record", {}), dict):
            raise ConfigError(f"{path} is no cell of a study: {_MEND_CELL}.")
        return told if (path.parent / str(told.get("results"))).resolve() == self.folder.resolve() else {}

    def nearest(self, file: str) -> Path | None:
        """Return the file of this name in the folder of the results or, of a run's folders, the next one above."""
        folders = [self.folder, *self.folder.absolute().parents[:4]]
        return next((folder / file for folder in folders if (folder / file).is_file()), None)


def called(folder: Path) -> str:
    """Return what tells a folder of results from others.

    Example:
        >>> called(Path("runs/demo/20250131-120000/checkpoints/best-test-20250131-130000"))
        'demo/20250131-120000'
        >>> called(Path("studies/s/cells/clip/control/seed0/test/20250131-120000"))
        'clip/control/seed0'
    """
    parts = folder.absolute().parts
    if "cells" in parts[:-3]:
        start = len(parts) - parts[::-1].index("cells")
        return "/".join(parts[start : start + 3])
    end = parts.index("checkpoints") if "checkpoints" in parts else len(parts)
    return "/".join(parts[max(end - 2, 0) : end])


def read_runs(options: Namespace) -> list[Run]:
    """Return the run of `--run` and, where it is given, that of `--against`.

    Raises:
        ConfigError: one cannot be used, the two were not asked the same, or there are not as many names as runs.
    """
    folders = [options.run, *([] if options.against is None else [options.against])]
    names = options.names or [None] * len(folders)
    if len(names) != len(folders):
        raise ConfigError(f"`--names` gives {len(names)} for {len(folders)} run(s): give one for each.")
    reranked = options.reranked and all((folder / _RERANKED).is_file() for folder in folders)
    runs = [Run.read(folder, name, reranked=reranked) for folder, name in zip(folders, names, strict=True)]
    try:
        for run in runs[1:]:
            check_comparable(runs[0].found, run.found)
    except PerQueryError as error:
        raise ConfigError(str(error)) from error
    return runs


def states(runs: Sequence[Run]) -> list[str]:
    """Return what became of each query, one of `STATES` for two runs and of `OUTCOMES` for one."""
    if len(runs) == 1:
        return [OUTCOMES[0] if value > 0 else OUTCOMES[1] for value in runs[0].first]
    signs = np.sign(runs[1].first - runs[0].first).astype(int)
    return [{1: "fixed", -1: "broken", 0: "unchanged"}[sign] for sign in signs.tolist()]


@dataclass(frozen=True)
class Asked:
    """The data that runs were tested on.

    Attributes:
        data: prepared.
        split: the images that were asked of.
        made: the synthetic images of the split.
        rows: `[Q]` row of `made` for each query.
        sources: `[Q]` image row of the data for the source of each query.
    """

    data: RetrievalDataModule
    split: str
    made: SyntheticSet
    rows: NDArray[np.int64]
    sources: NDArray[np.int64]

    @staticmethod
    def load(config: Path, keys: Sequence[str], runs: Sequence[Run]) -> Asked:
        """Load the data of a config and find in them the queries that all runs were asked.

        Raises:
            ConfigError: it is no config of retrieval with a synthetic set, or that is not what the runs were asked.
            UserError: data are not there or broken.
        """
        run = runs[0]
        data = load_data(config, keys, synthetic=True)
        if not isinstance(data, RetrievalDataModule) or data.synthetic_root is None:
            raise ConfigError(f"{config} has no synthetic set (key `data.init_args.synthetic`), which queries are of.")
        data.prepare_data()
        data.setup("test")
        split = data.val_split if run.found.about.get("stage") == "val" else data.test_split
        tables = data.tables
        made = SyntheticSet.read(data.synthetic_root, [split], tables.class_names, tables.image_ids)
        rows = rows_of(made.image_ids, np.asarray(run.found.ids, dtype=np.int64))
        if (rows < 0).any():
            raise ConfigError(
                f"{run.found.path} has the query {run.found.ids[int(rows.argmin())]}, which split {split} of "
                f"{made.root} has not: {_MEND_DATA}."
            )
        asked = Asked(data, split, made, rows, rows_of(tables.image_ids, made.source_image_ids[rows]))
        asked._check_queries(run)
        for one in runs:
            asked._check_protocol(one)
        return asked

    @property
    def protocol_hash(self) -> str:
        """First digits of the SHA-256 of the synthetic set's protocol, as cells of a study record it."""
        return hashlib.sha256((self.made.root / "protocol.json").read_bytes()).hexdigest()[:16]

    def _check_queries(self, run: Run) -> None:
        """Refuse other queries that have the same ids, as those of another data set or synthesis may."""
        names = self.data.tables.class_names
        sources = np.asarray(run.found.table["source_image_id"].to_pylist())
        same = self.made.source_image_ids[self.rows] == sources
        for role in ("removed", "kept"):
            same &= (getattr(self.made, role)[self.rows] == run.masks(role, names)).all(axis=1)
        if not same.all():
            query = run.found.ids[int(same.argmin())]
            raise ConfigError(
                f"{run.found.path} has another source, or other removed or kept classes, for the query {query} than "
                f"{self.made.root}: {_MEND_DATA}."
            )

    def _check_protocol(self, run: Run) -> None:
        made = run.cell.get("record", {}).get("protocol", self.protocol_hash)
        if made != self.protocol_hash:
            raise ConfigError(
                f"{run.found.path} was tested on queries of the protocol {made}, but {self.made.root} has the protocol "
                f"{self.protocol_hash}: {_MEND_DATA}."
            )


def caption_rows(asked: Asked, run: Run, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the caption rows of captions that a run retrieved.

    Raises:
        ConfigError: the data have no such caption.
    """
    rows = rows_of(asked.data.tables.caption_ids, ids)
    if (rows < 0).any():
        raise ConfigError(
            f"{run.found.path} retrieved the caption {ids[rows < 0][0]}, which the data have not: {_MEND_DATA}."
        )
    return rows


def words(asked: Asked, rows: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Return captions with the phrases of them that name classes.

    Args:
        asked: the data.
        rows: `[R]` caption rows.

    Returns:
        For each caption `text`, and `phrases` as lists of start, end and class indices.
    """
    texts, found = asked.data.tables.texts.take(rows), asked.data.phrases(rows)
    return [
        {"text": text, "phrases": [[one.start, one.end, sorted(one.classes)] for one in phrases if one.classes]}
        for text, phrases in zip(texts, found, strict=True)
    ]

"""Files of per-query results: Parquet that any reader opens, whose metadata says what the columns are."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics.arrays import Values, as_array

_KEY = b"odmap.per_query"  # of the file's metadata
_FORMAT = 1
_ROLES = {"query_id", "group", "measures", "fixed", "about"}


class PerQueryError(ValueError):
    """A file of per-query results cannot be used; the message names the file."""


@dataclass(frozen=True)
class PerQuery:
    """Per-query results as `read` found them.

    Attributes:
        path: the file.
        table: `pyarrow.Table` of all columns, ascending by query id.
        query_id: the column that identifies a query.
        group: the column that is equal for queries that are not independent, None where all are.
        measures: the columns of numbers that are averaged, in per cent.
        fixed: the columns and the entries of `about` that describe the task and not the model.
        about: what else the writer said, as JSON holds it.
    """

    path: Path
    table: Any
    query_id: str
    group: str | None
    measures: tuple[str, ...]
    fixed: tuple[str, ...]
    about: dict[str, Any]

    @property
    def ids(self) -> list[Any]:
        """The `[Q]` ids of the queries."""
        ids: list[Any] = self.table[self.query_id].to_pylist()
        return ids

    @property
    def groups(self) -> NDArray[Any] | None:
        """The `[Q]` groups of the queries, None where the queries are independent."""
        return None if self.group is None else np.asarray(self.table[self.group].to_pylist())

    def values(self, measures: Iterable[str]) -> NDArray[np.float64]:
        """Return some measures, `[Q, M]` in per cent."""
        return np.stack([self.table[name].to_numpy().astype(np.float64) for name in measures], axis=1)


def write(
    path: Path | str,
    columns: Mapping[str, Values],
    *,
    query_id: str,
    group: str | None,
    measures: Sequence[str],
    about: Mapping[str, Any],
    fixed: Sequence[str] = (),
) -> None:
    """Write per-query results in one step: readers see the whole file or none.

    Args:
        path: where to; folders that do not exist are made.
        columns: `[Q]` or `[Q, K]` tensors, arrays or lists by name, one row per query; rows of lists may differ in
            length, as the names of the removed classes do.
        query_id: the column that identifies a query: integers or strings, each once.
        group: the column that is equal for queries that are not independent, or None.
        measures: the columns that are averaged: finite numbers `[Q]`, in per cent.
        about: what else a reader has to know (gallery, checkpoint), as JSON can hold it.
        fixed: the columns and the entries of `about` that describe the task and not the model, as what was removed
            from the image or the size of the gallery: two files are compared only where all of these are equal.

    Raises:
        TypeError: `about` holds something that JSON cannot.
        ValueError: Columns differ in length or are missing, an id is repeated, or a measure is not a finite number.

    Example:
        >>> import tempfile
        >>> import torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "odmap.parquet")
        ...     columns = {"query_id": torch.tensor([8, 7]), "ODmAP@1": torch.tensor([0.0, 100.0])}
        ...     write(path, columns, query_id="query_id", group=None, measures=["ODmAP@1"], about={"gallery": 25_000})
        ...     found = read(path)
        >>> found.ids, found.values(["ODmAP@1"]).tolist(), found.about
        ([7, 8], [[100.0], [0.0]], {'gallery': 25000})
    """
    import pyarrow as pa
    from pyarrow import parquet

    roles: dict[str, Any] = {"query_id": query_id, "group": group, "measures": list(measures), "fixed": list(fixed)}
    table = pa.table({name: _column(name, rows) for name, rows in columns.items()})
    _check(table, **roles, about=about)
    header = json.dumps({"format": _FORMAT, **roles, "about": dict(about)})
    with _replacing(Path(path)) as draft:
        parquet.write_table(table.replace_schema_metadata({_KEY: header}), draft)


def read(path: Path | str) -> PerQuery:
    """Read a file that `write` made.

    Raises:
        PerQueryError: The file is missing, cut off, or no file of per-query results.
    """
    import pyarrow as pa
    from pyarrow import parquet

    path = Path(path)
    if not path.is_file():
        raise PerQueryError(f"There is no file {path}; name a file of per-query results.")
    try:
        with parquet.ParquetFile(path) as file:
            table = file.read()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise PerQueryError(f"{path} is no Parquet file, or was cut off ({reason}); write it again.") from error
    header = _header(path, table.schema.metadata or {})
    try:
        _check(table, **header)
    except ValueError as error:
        raise PerQueryError(f"{path} was changed after it was written: {error}") from error
    ordered = table.sort_by(header["query_id"])
    measures, fixed = tuple(header["measures"]), tuple(header["fixed"])
    return PerQuery(path, ordered, header["query_id"], header["group"], measures, fixed, header["about"])


def _header(path: Path, metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    if _KEY not in metadata:
        raise PerQueryError(
            f"{path} holds no per-query results: its metadata has no `{_KEY.decode()}`; name a file that "
            "`metrics.per_query.write` made."
        )
    header: dict[str, Any] = json.loads(metadata[_KEY])
    form = header.pop("format", None)
    if form != _FORMAT or header.keys() != _ROLES:
        raise PerQueryError(f"{path} has format {form} of per-query results, this version reads format {_FORMAT}.")
    return header


def _column(name: str, rows: Values) -> Any:
    import pyarrow as pa

    if isinstance(rows, list | tuple):
        return pa.array(rows)
    array = as_array(rows)
    if array.ndim not in (1, 2):
        raise ValueError(f"Column {name!r} must have shape [Q] or [Q, K], got {array.shape}.")
    if array.ndim == 1:
        return pa.array(array)
    ends = pa.array(np.arange(len(array) + 1) * array.shape[1], pa.int32())
    return pa.ListArray.from_arrays(ends, pa.array(array.ravel()))


def _check(
    table: Any, query_id: str, group: str | None, measures: list[str], fixed: list[str], about: Mapping[str, Any]
) -> None:
    scalars = {"query_id": [query_id], "group": [group] if group else [], "measures": measures}
    for role, names in scalars.items():
        for name in names:
            _check_scalars(table, role, name)
    if unknown := [name for name in fixed if name not in table.column_names and name not in about]:
        raise ValueError(f"fixed names {unknown[0]!r}, which is neither a column nor in `about`.")
    if not measures or not len(table):
        raise ValueError("columns must hold one measure and one query or more.")
    repeated, times = Counter(table[query_id].to_pylist()).most_common(1)[0]
    if times > 1:
        raise ValueError(f"query_id {query_id!r} holds {repeated!r} {times} times; each query has one row.")


def _check_scalars(table: Any, role: str, name: str) -> None:
    """Refuse a column that has not one id, or for a measure one finite number, in every row."""
    from pyarrow import types

    if name not in table.column_names:
        raise ValueError(f"{role} names {name!r}, which is no column; there are {', '.join(table.column_names)}.")
    column = table[name]
    number = types.is_integer(column.type) or types.is_floating(column.type)
    if role == "measures" and (not number or not np.isfinite(column.to_numpy().astype(np.float64)).all()):
        raise ValueError(f"Column {name!r} of measures must hold a finite number in every row.")
    identifier = types.is_integer(column.type) or types.is_string(column.type) or types.is_large_string(column.type)
    if role != "measures" and (not identifier or column.null_count):
        raise ValueError(f"Column {name!r} of {role} must hold an integer or a string in every row.")


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to that becomes `path` at the end, or vanishes where the writing fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)

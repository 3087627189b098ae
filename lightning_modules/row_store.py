"""Tensors under ids that are kept on disk while a process needs them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from metrics.distributed import Alone

_SHARED_AT_ONCE = 16_384  # rows


class RowStore:
    """Rows of one or more fields, in files without a name that the system removes, however the process ends.

    Reading maps a file for a moment, so that memory does not grow with the rows that were read.

    Args:
        folder: where the files take up space; made where it is missing.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder, RowStore(Path(folder)) as store:
        ...     store.add(torch.tensor([7, 5]), {"states": torch.tensor([[1.0, 2], [3, 4]])})
        ...     store.read(store.positions(torch.tensor([5])))
        {'states': tensor([[3., 4.]])}
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._ids: list[Tensor] = []
        self._fields: dict[str, _RowFile] = {}

    def __len__(self) -> int:
        return sum(map(len, self._ids))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def add(self, ids: Tensor, fields: Mapping[str, Tensor]) -> None:
        """Add rows.

        Args:
            ids: `[N]` int64.
            fields: `[N, ...]` each; all rows of a field have one shape and dtype.

        Raises:
            ValueError: A row has another shape than those before, or there are other fields.
            OSError: The disk is full.
        """
        if not len(ids):
            return
        if self._fields and self._fields.keys() != fields.keys():
            raise ValueError(f"Rows have the fields {sorted(fields)} after {sorted(self._fields)}.")
        for name, rows in fields.items():
            if name not in self._fields:
                self._fields[name] = _RowFile(self._folder)
            self._fields[name].append(name, rows.cpu())
        self._ids.append(ids.cpu())

    def positions(self, ids: Tensor) -> Tensor:
        """Return where rows stand, the first ones where an id was given twice.

        Args:
            ids: `[N]` int64.

        Raises:
            KeyError: There is no row of an id.
        """
        known, order = torch.cat([torch.empty(0, dtype=torch.long), *self._ids]).sort(stable=True)
        missing = ~torch.isin(ids, known)
        if missing.any():
            raise KeyError(f"There is no row of id {int(ids[missing][0])}.")
        return order[torch.searchsorted(known, ids)]

    def read(self, positions: Tensor) -> dict[str, Tensor]:
        """Return the fields of the rows at these positions, `[N, ...]` each."""
        return {name: file.read(positions) for name, file in self._fields.items()}

    def of_all(self, ranks: Alone) -> RowStore:
        """Return the rows of all ranks, which need not share a disk; all of them must call it."""
        if ranks.size == 1:
            return self
        ids, everyone = torch.cat([torch.empty(0, dtype=torch.long), *self._ids]), RowStore(self._folder)
        for start in range(0, int(ranks.highest(torch.tensor(len(ids)))), _SHARED_AT_ONCE):
            chosen = torch.arange(len(ids))[start : start + _SHARED_AT_ONCE]
            for theirs, fields in ranks.gather_objects((ids[chosen], self.read(chosen))):
                everyone.add(theirs, fields)
        return everyone

    def close(self) -> None:
        """Give the space on disk back."""
        for file in self._fields.values():
            file.close()


class _RowFile:
    """Rows of one shape and dtype."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (it lives as long as the store)
        self._form: tuple[tuple[int, ...], np.dtype[Any]] | None = None
        self._length = 0

    def append(self, name: str, rows: Tensor) -> None:
        array = rows.contiguous().numpy()
        form = array.shape[1:], array.dtype
        if self._form not in (None, form):
            raise ValueError(f"Rows of {name!r} have shape and dtype {form} after {self._form}: all must have one.")
        self._form = form
        self._length += len(array)
        self._file.write(array.data)
        self._file.flush()

    def read(self, positions: Tensor) -> Tensor:
        assert self._form is not None  # noqa: S101 (a file is made for its first rows)
        shape, dtype = self._form
        mapped = np.memmap(self._file, dtype, mode="r", shape=(self._length, *shape))
        return torch.from_numpy(np.asarray(mapped[positions.numpy()]))

    def close(self) -> None:
        self._file.close()

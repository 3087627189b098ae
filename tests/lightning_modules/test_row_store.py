"""Rows on disk: what is read is what was added, and nothing stays behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from lightning_modules.row_store import RowStore
from metrics.distributed import Alone


def _fields(ids: torch.Tensor) -> dict[str, torch.Tensor]:
    half = (ids[:, None, None] + torch.arange(6).view(2, 3) / 8).half()
    return {"states": half, "mask": (ids[:, None] >> torch.arange(4)) % 2 == 1, "ids": ids.clone()}


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    with RowStore(tmp_path / "made") as store:
        for ids in (torch.tensor([7, 3]), torch.tensor([], dtype=torch.long), torch.tensor([900, 4, 5])):
            store.add(ids, _fields(ids))
        assert len(store) == 5
        wanted = torch.tensor([4, 7, 4, 900])
        read = store.read(store.positions(wanted))
        for name, rows in _fields(wanted).items():
            assert read[name].dtype == rows.dtype
            assert torch.equal(read[name], rows)


def test_the_first_of_rows_with_one_id_counts(tmp_path: Path) -> None:
    with RowStore(tmp_path) as store:
        store.add(torch.tensor([5, 5]), {"x": torch.tensor([1.0, 2.0])})
        store.add(torch.tensor([5]), {"x": torch.tensor([3.0])})
        assert store.read(store.positions(torch.tensor([5])))["x"].tolist() == [1.0]


def test_an_unknown_id_is_named(tmp_path: Path) -> None:
    with RowStore(tmp_path) as store:
        assert store.positions(torch.tensor([], dtype=torch.long)).tolist() == []
        assert store.of_all(Alone()) is store
        store.add(torch.tensor([5]), {"x": torch.tensor([1.0])})
        with pytest.raises(KeyError, match="no row of id 6"):
            store.positions(torch.tensor([5, 6]))


def test_rows_have_one_form(tmp_path: Path) -> None:
    with RowStore(tmp_path) as store:
        store.add(torch.tensor([5]), {"x": torch.ones(1, 3)})
        with pytest.raises(ValueError, match=r"Rows of 'x' have shape and dtype \(\(4,\).*all must have one"):
            store.add(torch.tensor([6]), {"x": torch.ones(1, 4)})
        with pytest.raises(ValueError, match=r"fields \['y'\] after \['x'\]"):
            store.add(torch.tensor([6]), {"y": torch.ones(1, 3)})


def test_no_file_has_a_name_and_closing_gives_the_space_back(tmp_path: Path) -> None:
    store = RowStore(tmp_path)
    store.add(torch.arange(3), _fields(torch.arange(3)))
    assert list(tmp_path.iterdir()) == []
    assert len(_open_below(tmp_path)) == 3
    store.close()
    assert _open_below(tmp_path) == []


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system does not list open files")
def test_a_store_that_nobody_closes_gives_the_space_back(tmp_path: Path) -> None:
    store = RowStore(tmp_path)
    store.add(torch.arange(3), _fields(torch.arange(3)))
    with pytest.warns(ResourceWarning):
        del store
    assert _open_below(tmp_path) == []


def _open_below(folder: Path) -> list[str]:
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    return [target for link in links if os.path.lexists(link) and (target := os.readlink(link)).startswith(str(folder))]

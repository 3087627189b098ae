"""Images, captions and objects as columns that are memory-mapped and shared between processes."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamodules.cache import draft_beside, writing_to

_NAMES = ("images", "captions", "objects")


class StringColumn(Sequence[str]):
    """A memory-mapped column of strings that decodes only the rows asked for."""

    def __init__(self, array: pa.LargeStringArray) -> None:
        self._array = array

    def __len__(self) -> int:
        return len(self._array)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            strings: list[str] = self._array[index].to_pylist()
            return strings
        return str(self._array[int(index)].as_py())

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), 65536):
            yield from self[start : start + 65536]

    def take(self, rows: NDArray[np.integer[Any]]) -> list[str]:
        """Return the strings of these rows, in their order."""
        indices = np.ascontiguousarray(rows, np.int64)
        indices = pa.Array.from_buffers(pa.int64(), len(indices), [None, pa.py_buffer(indices)])
        strings: list[str] = self._array.take(indices).to_pylist()
        return strings

    def unique(self) -> tuple[list[str], NDArray[np.int64]]:
        """Return the distinct strings, and for each row the position of its string among them."""
        encoded = self._array.dictionary_encode()
        return encoded.dictionary.to_pylist(), _numpy(encoded.indices).astype(np.int64)


def _numpy(array: pa.Array) -> NDArray[Any]:
    """View numbers without copying, and without pandas, whose import `pyarrow.Array.to_numpy` would cost."""
    return np.from_dlpack(array)


@dataclass(frozen=True)
class Tables:
    """One data set as columns: N images, M captions, O objects; captions and objects are grouped by image row.

    Opened from a folder of Arrow files that are memory-mapped: a process holds the pages it touches, and processes
    share them. Pickling stores the folder alone, so a loader worker maps the same pages instead of copying rows.

    Attributes:
        folder: where the Arrow files lie.
    """

    folder: Path

    @cached_property
    def _header(self) -> dict[str, Any]:
        header: dict[str, Any] = json.loads((self.folder / "header.json").read_text())
        return header

    @cached_property
    def _columns(self) -> dict[str, pa.Table]:
        return {name: pa.ipc.open_file(pa.memory_map(str(self.folder / f"{name}.arrow"))).read_all() for name in _NAMES}

    def __getstate__(self) -> dict[str, Path]:
        return {"folder": self.folder}

    def _array(self, table: str, column: str) -> pa.Array:
        data = self._columns[table].column(column)
        return data.chunk(0) if data.num_chunks else pa.nulls(0, data.type)

    def _numbers(self, table: str, column: str) -> NDArray[Any]:
        return _numpy(self._array(table, column))

    def _strings(self, table: str, column: str) -> StringColumn:
        return StringColumn(self._array(table, column))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the C classes; position = class index."""
        return tuple(self._header["class_names"])

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits; position = split code."""
        return tuple(self._header["splits"])

    @property
    def fingerprint(self) -> str:
        """Hash of the source files that the tables were read from."""
        return str(self._header["fingerprint"])

    @cached_property
    def image_ids(self) -> NDArray[np.int64]:
        """`[N]` ids of the images, unique."""
        return self._numbers("images", "image_id")

    @cached_property
    def files(self) -> StringColumn:
        """`[N]` image files, relative to the image folder of the data set."""
        return self._strings("images", "file")

    @cached_property
    def split_codes(self) -> NDArray[np.int16]:
        """`[N]` index into `splits`."""
        return self._numbers("images", "split")

    @cached_property
    def widths(self) -> NDArray[np.int32]:
        """`[N]` widths in pixels."""
        return self._numbers("images", "width")

    @cached_property
    def heights(self) -> NDArray[np.int32]:
        """`[N]` heights in pixels."""
        return self._numbers("images", "height")

    @cached_property
    def caption_ids(self) -> NDArray[np.int64]:
        """`[M]` ids of the captions, unique."""
        return self._numbers("captions", "caption_id")

    @cached_property
    def caption_images(self) -> NDArray[np.int64]:
        """`[M]` image row of each caption, ascending."""
        return self._numbers("captions", "image")

    @cached_property
    def caption_offsets(self) -> NDArray[np.int64]:
        """`[N + 1]`: captions of image row n are rows `caption_offsets[n]` to `caption_offsets[n + 1]`."""
        return np.searchsorted(self.caption_images, np.arange(len(self.image_ids) + 1))

    @cached_property
    def texts(self) -> StringColumn:
        """`[M]` captions as written."""
        return self._strings("captions", "text")

    @cached_property
    def object_images(self) -> NDArray[np.int64]:
        """`[O]` image row of each object, ascending."""
        return self._numbers("objects", "image")

    @cached_property
    def object_offsets(self) -> NDArray[np.int64]:
        """`[N + 1]`: objects of image row n are rows `object_offsets[n]` to `object_offsets[n + 1]`."""
        return np.searchsorted(self.object_images, np.arange(len(self.image_ids) + 1))

    @cached_property
    def categories(self) -> NDArray[np.int16]:
        """`[O]` class index of each object."""
        return self._numbers("objects", "category")

    @cached_property
    def boxes(self) -> NDArray[np.float64]:
        """`[O, 4]` boxes as x, y, width, height in pixels."""
        return _numpy(self._array("objects", "box").flatten()).reshape(-1, 4)

    @cached_property
    def crowds(self) -> NDArray[np.bool_]:
        """`[O]` True where the box is a crowd region."""
        return self._numbers("objects", "crowd").view(np.bool_)

    @cached_property
    def segmentations(self) -> StringColumn:
        """`[O]` polygons or run lengths as COCO's JSON, "" where there is none."""
        return self._strings("objects", "segmentation")

    def __len__(self) -> int:
        return len(self.image_ids)

    def rows(self, *splits: str) -> NDArray[np.int64]:
        """Return the image rows of these splits, ascending; a split that the data set lacks has none."""
        codes = [self.splits.index(name) for name in splits if name in self.splits]
        return np.flatnonzero(np.isin(self.split_codes, codes))

    def captions_of(self, image_rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the caption rows of these image rows, ascending."""
        wanted = np.zeros(len(self), dtype=bool)
        wanted[image_rows] = True
        return np.flatnonzero(wanted[self.caption_images])

    @staticmethod
    def write(
        folder: Path,
        *,
        images: Mapping[str, Any],
        captions: Mapping[str, Any],
        objects: Mapping[str, Any],
        class_names: Sequence[str],
        splits: Sequence[str],
        fingerprint: str,
    ) -> Tables:
        """Write the columns below `folder` and return the opened tables.

        The folder appears whole or not at all. Where another process was quicker its tables stay, so several may
        write the same tables at once while others read them.

        Args:
            folder: where to; `discard` what is there if it is to be written again.
            images: columns image_id, file, split, width, height.
            captions: columns caption_id, image (row of the image), text; ascending by image.
            objects: columns image (row of the image), category, box (x, y, width, height), crowd (0 or 1),
                segmentation; ascending by image.
            class_names: names of the classes.
            splits: names of the splits.
            fingerprint: hash of the source files.

        Raises:
            FileExistsError: `folder` holds the tables of other source files.
            ConfigError: `folder` cannot be written.
            ValueError: captions or objects do not ascend by image, or columns differ in length.
        """
        header = {"class_names": list(class_names), "splits": list(splits), "fingerprint": fingerprint}
        columns = dict(zip(_NAMES, (images, captions, objects), strict=True))
        tables = {name: _arrow_table(name, columns[name]) for name in _NAMES}
        draft = draft_beside(folder)
        try:
            with writing_to(folder.parent):
                draft.mkdir(parents=True)
                for name, table in tables.items():
                    _write_arrow(draft / f"{name}.arrow", table)
                (draft / "header.json").write_text(json.dumps(header))
                _publish(draft, folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        written = Tables(folder)
        if written.fingerprint != fingerprint:
            raise FileExistsError(f"{folder.absolute()} holds tables of other source files.")
        return written

    def discard(self) -> None:
        """Remove the files; a process that has them mapped keeps its pages."""
        aside = draft_beside(self.folder)
        with writing_to(self.folder.parent), contextlib.suppress(FileNotFoundError):
            self.folder.rename(aside)  # one step: nobody opens tables of which half the files are gone
        shutil.rmtree(aside, ignore_errors=True)


def _publish(draft: Path, folder: Path) -> None:
    try:
        draft.rename(folder)
    except OSError:
        if not (folder / "header.json").is_file():
            raise


def _arrow_table(name: str, columns: Mapping[str, Any]) -> pa.Table:
    columns = dict(columns)
    if "box" in columns:
        sides = np.asarray(columns["box"], np.float64).ravel()
        columns["box"] = pa.FixedSizeListArray.from_arrays(pa.array(sides), 4)
    if "image" in columns and (np.diff(columns["image"]) < 0).any():
        raise ValueError(f"the column `image` of {name} must ascend")
    return pa.table(columns, schema=_SCHEMAS[name]).combine_chunks()


def _write_arrow(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema(list(columns.items()))


_SCHEMAS = {
    "images": _schema(
        image_id=pa.int64(), file=pa.large_string(), split=pa.int16(), width=pa.int32(), height=pa.int32()
    ),
    "captions": _schema(caption_id=pa.int64(), image=pa.int64(), text=pa.large_string()),
    "objects": _schema(
        image=pa.int64(),
        category=pa.int16(),
        box=pa.list_(pa.float64(), 4),
        crowd=pa.uint8(),  # Arrow packs its own booleans into bits, which numpy cannot map
        segmentation=pa.large_string(),
    ),
}

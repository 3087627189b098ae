"""Rows and columns of csv files, with errors that name the file, the line and the config key."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import AnnotationError, ConfigError, MissingPathError
from datamodules.sources import existing_file, existing_folder

_INTEGER = re.compile("-?[0-9]{1,18}")  # fits 64 bits


@dataclass(frozen=True)
class CsvColumns:
    """Columns of a csv file, as text.

    Attributes:
        path: the file.
        key: the config key that names it.
        lines: `[N]` line of each row.
        values: N values for each column.
    """

    path: Path
    key: str
    lines: NDArray[np.int64]
    values: dict[str, list[str]]

    def where(self, row: int) -> str:
        """Return the file and the line of a row, and the config key."""
        return f"{self.path.absolute()}, line {self.lines[row]} (config key `{self.key}`)"

    def integers(self, column: str, below: int | None = None) -> NDArray[np.int64]:
        """Return a column as `[N]` int64.

        Args:
            column: its name.
            below: values are 0 up to one less than this; None for any.

        Raises:
            AnnotationError: a value is something else.
        """
        texts = self.values[column]
        wanted = "an integer" if below is None else f"an integer from 0 to {below - 1}"
        odd = next((row for row, text in enumerate(texts) if not _INTEGER.fullmatch(text)), None)
        if odd is not None:
            raise AnnotationError(
                f"{self.where(odd)} has {column} {texts[odd]!r}, which must be {wanted}: mend the row."
            )
        numbers = np.array(texts, dtype=np.int64)
        if below is not None and len(wrong := np.flatnonzero((numbers < 0) | (numbers >= below))):
            raise AnnotationError(
                f"{self.where(wrong[0])} has {column} {texts[wrong[0]]}, which must be {wanted}: mend the row."
            )
        return numbers

    def unique_integers(self, column: str) -> NDArray[np.int64]:
        """Return a column of ids as `[N]` int64.

        Raises:
            AnnotationError: a value is no integer or occurs twice.
        """
        numbers = self.integers(column)
        first = np.unique(numbers, return_index=True)[1]
        if len(first) < len(numbers):
            again = int(np.setdiff1d(np.arange(len(numbers)), first)[0])
            raise AnnotationError(
                f"{self.where(again)} has {column} {numbers[again]}, as an earlier line has: ids must be unique."
            )
        return numbers


def read_csv(path: Path, key: str, columns: Sequence[str]) -> CsvColumns:
    """Read some columns of a csv file with a header; other columns are passed over.

    Args:
        path: the file.
        key: the config key that names it.
        columns: names of the columns.

    Raises:
        MissingPathError: there is no such file.
        AnnotationError: it is no csv, lacks a column or a value, or holds no row.
    """
    existing_file(path, key)
    try:
        rows = list(_rows(path, key, columns))
    except UnicodeDecodeError:
        raise AnnotationError(f"{path.absolute()} (config key `{key}`) is no text: name a csv file.") from None
    except csv.Error as error:
        raise AnnotationError(f"{path.absolute()} (config key `{key}`) is no csv ({error}): mend the file.") from None
    if not rows:
        raise AnnotationError(f"{path.absolute()} (config key `{key}`) has no row below its header: add some.")
    lines, *values = zip(*rows, strict=True)
    named = {column: list(texts) for column, texts in zip(columns, values, strict=True)}
    return CsvColumns(path, key, np.array(lines, np.int64), named)


def read_csv_below(folder: Path, name: str, key: str, columns: Sequence[str]) -> CsvColumns:
    """Read some columns of a csv file in a folder that the config names, as `read_csv` does.

    Args:
        folder: the folder.
        name: the file's name in it.
        key: the config key that names the folder.
        columns: names of the columns.

    Raises:
        MissingPathError: there is no such folder, or no such file in it.
        AnnotationError: the file is no csv, lacks a column or a value, or holds no row.
    """
    path = existing_folder(folder, key) / name
    if not path.is_file():
        raise MissingPathError(f"{folder.absolute()} holds no {name}: set `{key}` to the folder that does.")
    return read_csv(path, key, columns)


def _rows(path: Path, key: str, columns: Sequence[str]) -> Iterator[tuple[int | str, ...]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        for column in columns:
            if header.count(column) != 1:
                raise AnnotationError(
                    f"{path.absolute()}, line 1 (config key `{key}`) has {header.count(column)} columns {column!r} "
                    f"where it must have one: the header is {','.join(header)[:200]!r}."
                )
        places = [header.index(column) for column in columns]
        for cells in reader:
            if not cells:
                continue
            where = f"{path.absolute()}, line {reader.line_num} (config key `{key}`)"
            if len(cells) != len(header):
                raise AnnotationError(f"{where} has {len(cells)} values for {len(header)} columns: mend the row.")
            yield reader.line_num, *(cells[place] for place in places)


def listed_ids(path: Path, known: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the ids that the column `image_id` of a csv file of `errors` lists, `[E]` int64.

    Args:
        path: the file.
        known: `[N]` ids of the training images.

    Raises:
        MissingPathError: there is no such file.
        AnnotationError: it is no csv of this kind, or lists no image.
        ConfigError: an id is that of no training image.
    """
    table = read_csv(path, "data.init_args.errors", ["image_id"])
    ids = table.integers("image_id")
    strange = np.flatnonzero(~np.isin(ids, known))
    if len(strange):
        raise ConfigError(
            f"{table.where(strange[0])} lists image {ids[strange[0]]}, which is no training image of this data set: "
            "take the errors of a first model on its training split (`data.init_args.predict_split` train)."
        )
    return ids

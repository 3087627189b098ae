"""A finished synthetic set on disk as columns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamodules.errors import AnnotationError, ConfigError, MissingPathError
from datamodules.image_files import Listing
from datamodules.tables import StringColumn

_NUMBERS = ("image_id", "caption_id", "source_image_id", "source_caption_id")
_STRINGS = ("file_name", "text")
_MASKS = ("removed", "kept")
_MEND = "make the set with `python -m synth --config configs/synth/NAME.yaml`"


def is_finished(root: Path) -> bool:
    """Return whether the set below `root` is complete: its protocol is written last."""
    return (root / "protocol.json").is_file()


def has_split(root: Path, split: str) -> bool:
    """Return whether the set below `root` has this split."""
    return (root / split / "metadata.jsonl").is_file()


@dataclass(frozen=True)
class SyntheticSet:
    """Counterfactual pairs or queries, N rows as columns; small to pickle, shared by forked loader workers.

    Attributes:
        root: folder of the set; `files` are relative to it.
        image_ids: `[N]` int64, never the id of an original.
        caption_ids: `[N]` int64, -1 for a query, which has no caption.
        source_image_ids: `[N]` int64, image that the object was removed from.
        source_caption_ids: `[N]` int64, caption that the words were removed from, -1 for a query.
        files: `[N]` image files.
        texts: `[N]` captions, "" for a query.
        removed: `[N, C]` bool, classes taken out of the image.
        kept: `[N, C]` bool, classes left in it.
    """

    root: Path
    image_ids: NDArray[np.int64]
    caption_ids: NDArray[np.int64]
    source_image_ids: NDArray[np.int64]
    source_caption_ids: NDArray[np.int64]
    files: StringColumn
    texts: StringColumn
    removed: NDArray[np.bool_]
    kept: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.image_ids)

    def path(self, row: int) -> Path:
        """Return the image file of a row."""
        return self.root / self.files[row]

    def check_captions(self) -> None:
        """Refuse queries where pairs are needed.

        Raises:
            ConfigError: a row has no caption.
        """
        if (queries := np.flatnonzero(self.caption_ids < 0)).size:
            raise ConfigError(
                f"{self.path(int(queries[0]))} is a query without a caption, not a pair to train on (keys `synthetic`, "
                f"`train_splits`): leave its split out of training, or {_MEND} with pairs of that split."
            )

    def source_rows(self, rows: NDArray[np.int64], caption_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where the source captions of these rows stand among `caption_ids`.

        Raises:
            ConfigError: one of them is not there.
        """
        wanted = self.source_caption_ids[rows]
        order = np.argsort(caption_ids)
        place = order[np.minimum(np.searchsorted(caption_ids, wanted, sorter=order), len(order) - 1)]
        if (lost := wanted[caption_ids[place] != wanted]).size:
            raise ConfigError(
                f"Caption {lost[0]}, the source of a synthetic pair, is not trained on (keys `pair_with_source`, "
                "`train_splits`): train on the splits that the synthetic set was made from."
            )
        return place

    @staticmethod
    def read(
        root: Path,
        splits: Sequence[str],
        class_names: Sequence[str],
        originals: NDArray[np.int64],
        key: str = "synthetic",
    ) -> SyntheticSet:
        """Read these splits, in this order, those that the set lacks left out.

        Args:
            root: folder of the set.
            splits: names of the splits, which are its subfolders.
            class_names: names of the C classes; position = class index.
            originals: image ids of the original data set.
            key: key of the config that names the folder.

        Raises:
            MissingPathError: the folder, all the splits or an image are not there.
            ConfigError: the set is unfinished.
            AnnotationError: a line is malformed, names an unknown class or source, or has the image id of an original.
        """
        check_finished(root, key)
        found = [split for split in splits if has_split(root, split)]
        if not found:
            raise MissingPathError(
                f"Synthetic set {root} (key `{key}`) has none of the splits {', '.join(splits)}: {_MEND} with "
                "these splits."
            )
        rows = [row for split in found for row in _rows(root, split, class_names, key)]
        _check(root, rows, originals)
        return _columns(root, rows, len(class_names))


def check_finished(root: Path, key: str = "synthetic") -> None:
    """Refuse a set that is missing or unfinished.

    Args:
        root: folder of the set.
        key: key of the config that names it.

    Raises:
        MissingPathError: there is no such folder.
        ConfigError: its protocol is missing, so the run that made it did not end.
    """
    if not root.is_dir():
        raise MissingPathError(f"Synthetic set {root} (key `{key}`) does not exist: {_MEND}.")
    if not is_finished(root):
        raise ConfigError(
            f"Synthetic set {root} (key `{key}`) is unfinished, it has no protocol.json: {_MEND},"
            " which goes on where it was."
        )


def check_origin(root: Path, fingerprint: str, key: str = "synthetic") -> None:
    """Refuse a set of other annotations: its image ids may be there as well, and mean other images.

    Args:
        root: folder of a finished set.
        fingerprint: that of the original data set.
        key: key of the config that names the folder.

    Raises:
        ConfigError: the protocol names another fingerprint, or is no JSON; one without a fingerprint is trusted.
    """
    try:
        protocol = json.loads((root / "protocol.json").read_bytes())
        found = protocol.get("config", {}).get("data", {}).get("fingerprint", fingerprint)
    except (ValueError, AttributeError) as error:
        raise ConfigError(
            f"{root / 'protocol.json'} (key `{key}`) is no protocol of a synthetic set: {_MEND} anew."
        ) from error
    if found != fingerprint:
        raise ConfigError(
            f"Synthetic set {root} (key `{key}`) was made from other annotations than those that are set, its ids "
            f"mean other images: delete it and {_MEND}, or name another."
        )


def _rows(root: Path, split: str, class_names: Sequence[str], key: str) -> Iterator[dict[str, Any]]:
    index = {name: position for position, name in enumerate(class_names)}
    path = root / split / "metadata.jsonl"
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.isspace():
                row = _row(f"{path}:{number} (key `{key}`)", line, index)
                yield row | {"file": f"{split}/{row['file_name']}"}


def _row(where: str, line: bytes, index: dict[str, int]) -> dict[str, Any]:
    try:
        fields = json.loads(line)
        row: dict[str, Any] = {key: int(fields[key]) for key in _NUMBERS}
        row |= {key: _text(fields[key]) for key in _STRINGS}
        row |= {key: [str(name) for name in fields[key]] for key in _MASKS}
    except (ValueError, TypeError, KeyError) as error:
        problem = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise AnnotationError(f"{where} is malformed, {problem}: {_MEND} anew.") from error
    row |= {key: [_class(where, name, index) for name in row[key]] for key in _MASKS}
    return row | {"where": where}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _class(where: str, name: str, index: dict[str, int]) -> int:
    if name not in index:
        raise AnnotationError(
            f"{where} names the class {name!r}, which the data set does not have: {_MEND} from the same data set."
        )
    return index[name]


def _check(root: Path, rows: Sequence[dict[str, Any]], originals: NDArray[np.int64]) -> None:
    clashes = np.isin([row["image_id"] for row in rows], originals)
    known = np.isin([row["source_image_id"] for row in rows], originals)
    files = Listing(root)
    for row, clash, has_source in zip(rows, clashes, known, strict=True):
        where = row["where"]
        if clash:
            raise AnnotationError(f"{where} has image id {row['image_id']}, which an original image has: {_MEND} anew.")
        if not has_source:
            raise AnnotationError(
                f"{where} names the source image {row['source_image_id']}, which the data set does not have: {_MEND} "
                "from the same data set."
            )
        if row["file"] not in files:
            raise MissingPathError(f"{where} names {root / row['file']}, which does not exist: {_MEND} anew.")


def _columns(root: Path, rows: Sequence[dict[str, Any]], classes: int) -> SyntheticSet:
    image_ids, caption_ids, source_image_ids, source_caption_ids = (
        np.array([row[key] for row in rows], dtype=np.int64) for key in _NUMBERS
    )
    files, texts = (StringColumn(pa.array([row[key] for row in rows], pa.large_string())) for key in ("file", "text"))
    removed, kept = (_mask([row[key] for row in rows], classes) for key in _MASKS)
    return SyntheticSet(root, image_ids, caption_ids, source_image_ids, source_caption_ids, files, texts, removed, kept)


def _mask(members: Sequence[Sequence[int]], classes: int) -> NDArray[np.bool_]:
    mask = np.zeros((len(members), classes), dtype=bool)
    mask[np.repeat(np.arange(len(members)), [len(some) for some in members]), [c for some in members for c in some]] = (
        True
    )
    return mask

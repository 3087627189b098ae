"""Extended positives: matches beyond an image's own captions, as ECCV Caption and CxC annotate them for COCO."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import AnnotationError, ConfigError
from datamodules.sources import existing_file, integers, parsing
from datamodules.tables import Tables


@dataclass(frozen=True)
class Positives:
    """Which captions match an image, and which images match a caption; only annotated ones are named.

    The two are not each other's inverse: ECCV Caption annotated 1,261 images and 1,332 captions of COCO's test split.

    Attributes:
        i2t: image id -> ids of the captions that match it, one at least.
        t2i: caption id -> ids of the images that match it, one at least.
    """

    i2t: dict[int, list[int]]
    t2i: dict[int, list[int]]


def read_positives(stem: Path, key: str = "positives") -> Positives:
    """Read `<stem>_image_to_caption.json` and `<stem>_caption_to_image.json`, the file names of `eccv_caption`.

    Both hold one JSON object, from the id of a query (a string, as JSON has it) to the list of ids that match it.

    Args:
        stem: common beginning of the two paths, such as `data/eccv-caption/eccv`.
        key: the config key that says it.

    Raises:
        MissingPathError: one of the files is not there.
        AnnotationError: one of them is broken or of another layout; the text names the file and the entry.
    """
    return Positives(
        i2t=_read(stem.with_name(f"{stem.name}_image_to_caption.json"), key, query="image", match="caption"),
        t2i=_read(stem.with_name(f"{stem.name}_caption_to_image.json"), key, query="caption", match="image"),
    )


def read_all_positives(stems: Mapping[str, Path], tables: Tables) -> dict[str, Positives]:
    """Read several sets of annotations of one data set.

    Args:
        stems: for each name, what `read_positives` takes.
        tables: the data set that they annotate.

    Raises:
        MissingPathError: a file is not there.
        AnnotationError: a file is broken or of another layout.
        ConfigError: none of the images, or none of the captions, belongs to the data set.
    """
    read = {name: read_positives(stem, f"positives.{name}") for name, stem in stems.items()}
    for name, positives in read.items():
        for kind, queries, matches, ids in (
            ("image", positives.i2t, positives.t2i, tables.image_ids),
            ("caption", positives.t2i, positives.i2t, tables.caption_ids),
        ):
            if not _share(chain(queries, *matches.values()), ids):
                raise ConfigError(
                    f"None of the {kind} ids of {stems[name].absolute()}_*.json (config key `positives.{name}`) is in "
                    f"the annotations: set the key to positives of this data set, or remove it."
                )
    return read


def _read(path: Path, key: str, query: str, match: str) -> dict[int, list[int]]:
    with parsing(existing_file(path, key), key), path.open(encoding="utf-8") as file:
        entries = json.load(file)
    where = f"{path.absolute()} (config key `{key}`)"
    if not isinstance(entries, Mapping) or not entries:
        raise AnnotationError(
            f'{where} does not hold one or more matches: expected is {{"{query} id": [{match} ids]}}.'
        )
    for text, matches in entries.items():
        if not text.isdecimal() or str(int(text)) != text or int(text) >= 2**63:
            raise AnnotationError(
                f"{where}: the key {text!r} is no {query} id: give a 64-bit integer as it is printed."
            )
        if not isinstance(matches, list) or not matches:
            raise AnnotationError(
                f"{where}: {query} {text} must have a list of one or more {match} ids, not {json.dumps(matches)[:100]}."
            )
    return {
        int(text): integers(matches, f"{where}: {match} ids of {query} {text}").tolist()
        for text, matches in entries.items()
    }


def _share(some: Iterable[int], known: NDArray[np.int64]) -> bool:
    return bool(np.isin(known, np.fromiter(some, np.int64)).any())

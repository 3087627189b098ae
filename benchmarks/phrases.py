"""Phrase matching of real captions against a pipeline with all its components: same phrases first, then seconds.

`python benchmarks/phrases.py` matches the 24,949 captions of `../shared/data/coco-captions-val2017`, or of another file
in COCO's layout (`--captions`). Both sides feed the same rules through `datamodules.mentions`, as a data module does,
from language models that are loaded already. The second run is a new matcher that finds the answers in the cache.
`--scale 0.1` is a quick look.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import spacy
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datamodules.mentions import mentions
from datamodules.phrases import CocoMatcher, SpacyChunker
from datamodules.phrases.chunkers import Parse, split_words
from datamodules.tables import Tables

CAPTIONS = Path(__file__).resolve().parents[2] / "shared/data/coco-captions-val2017/captions_val2017.json"
ROUNDS = 3


class PlainChunker(SpacyChunker):
    """Tags and noun chunks as the pipeline gives them, with all the components that it enables."""

    @cached_property
    def _pipeline(self) -> Any:
        return spacy.load(self._installed()[0])

    def parse(self, captions: Iterable[str]) -> Iterator[Parse]:
        """Yield one `Parse` per caption, in order."""
        cut = list(map(split_words, captions))
        for (words, spans), doc in zip(cut, self._pipeline.pipe(self._doc(words) for words, _ in cut), strict=True):
            chunks = [(chunk.start, min(chunk.end, len(words))) for chunk in doc.noun_chunks]
            tags = [token.tag_ for token in doc][: len(words)]
            yield Parse(words, spans, tags, [(start, end) for start, end in chunks if start < end])


def read(path: Path, scale: float, folder: Path) -> Tables:
    """Write the first captions of a file in COCO's layout as tables."""
    annotations = json.loads(path.read_text())["annotations"]
    annotations = annotations[: int(len(annotations) * scale)]
    ids, owners = np.unique([each["image_id"] for each in annotations], return_inverse=True)
    order = np.argsort(owners, kind="stable")
    return Tables.write(
        folder,
        images={
            "image_id": ids,
            "file": [""] * len(ids),
            "split": np.zeros(len(ids), np.int16),
            "width": np.ones(len(ids), np.int32),
            "height": np.ones(len(ids), np.int32),
        },
        captions={
            "caption_id": [annotations[place]["id"] for place in order],
            "image": owners[order],
            "text": [annotations[place]["caption"] for place in order],
        },
        objects={"image": [], "category": [], "box": [], "crowd": [], "segmentation": []},
        class_names=CocoMatcher().class_names,
        splits=["val"],
        fingerprint="captions",
    )


def timed(call: Callable[[], NDArray[np.bool_]]) -> tuple[float, NDArray[np.bool_]]:
    """Return the seconds and the result of a call."""
    start = time.perf_counter()
    found = call()
    return time.perf_counter() - start, found


def measure(tables: Tables, matchers: dict[str, CocoMatcher], folder: Path) -> dict[str, list[float]]:
    """Return seconds of each side in turn, and of a second run after ours, which all must name the same classes."""
    seconds: dict[str, list[float]] = {name: [] for name in (*matchers, "second run")}
    for number in range(ROUNDS):
        found = []
        for name, matcher in matchers.items():
            cache = folder / f"{number} {name}"
            taken, named = timed(lambda: mentions(tables, matcher, cache))  # noqa: B023
            seconds[name].append(taken)
            found.append(named)
        taken, named = timed(lambda: mentions(tables, CocoMatcher(), cache))  # noqa: B023
        seconds["second run"].append(taken)
        assert all(np.array_equal(named, other) for other in found), "the sides name other classes"
    return seconds


def main() -> None:
    """Compare the phrases of all captions, then print seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="share of the captions")
    parser.add_argument("--captions", type=Path, default=CAPTIONS, help="a file in COCO's layout")
    options = parser.parse_args()
    matchers = {"all components": CocoMatcher(PlainChunker()), "ours": CocoMatcher()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tables = read(options.captions, options.scale, folder / "tables")
        plain, ours = (matcher.phrases(list(tables.texts)) for matcher in matchers.values())
        assert plain == ours, "the sides find other phrases"
        seconds = {side: sorted(taken)[ROUNDS // 2] for side, taken in measure(tables, matchers, folder).items()}
    captions, found = len(tables.texts), sum(map(len, ours))
    print(f"equal: {found:,} phrases of {captions:,} captions; ", end="")
    print(f"{SpacyChunker().version}, numpy {version('numpy')}, Python {platform.python_version()}")
    for side, taken in seconds.items():
        print(f"{side:<16}{taken:>8.2f} s (median of {ROUNDS}){captions / taken:>12,.0f} captions/s")
    print(f"ratio           {seconds['all components'] / seconds['ours']:8.2f}")


if __name__ == "__main__":
    main()

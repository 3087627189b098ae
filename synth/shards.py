"""What each rank has finished, one line at a time: nothing that stands there is lost with the run that wrote it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from synth.rules import Rule


@dataclass(frozen=True)
class Outcome:
    """What became of one synthetic image, whose file is written if any of its captions is kept.

    Attributes:
        file_name: name of the image in the folder of its split.
        texts: the captions kept, by the id of their source caption; -1 and "" for a query.
        dropped: the rules against the others.
    """

    file_name: str
    texts: Mapping[int, str] = field(default_factory=dict)
    dropped: Mapping[int, Rule] = field(default_factory=dict)

    def as_line(self) -> str:
        """Return the outcome as a line of JSON."""
        dropped = {caption: rule.value for caption, rule in self.dropped.items()}
        return json.dumps({"file_name": self.file_name, "texts": dict(self.texts), "dropped": dropped}) + "\n"

    @staticmethod
    def from_line(line: bytes) -> Outcome:
        """Return the outcome that `as_line` gave.

        Raises:
            ValueError: if the line is damaged.

        Example:
            >>> Outcome.from_line(Outcome("7.png", {3: "A dog"}, {4: Rule.STILL_NAMED}).as_line().encode()).texts
            {3: 'A dog'}
        """
        rules = {rule.value: rule for rule in Rule}
        try:
            row = json.loads(line)
            texts = {int(caption): str(text) for caption, text in row["texts"].items()}
            dropped = {int(caption): rules[rule] for caption, rule in row["dropped"].items()}
            return Outcome(str(row["file_name"]), texts, dropped)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("no line of a shard") from error


class Shard:
    """The file that one rank appends its outcomes to.

    Args:
        folder: the shards of one split.
        rank: whose shard it is; a line torn when an earlier run was killed is cut off.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"rank-{rank}.jsonl"
        if path.exists():
            os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
        self._file = path.open("a", encoding="utf-8")

    def write(self, outcome: Outcome) -> None:
        """Append one outcome and hand it to the system, so that the death of this process cannot take it back."""
        self._file.write(outcome.as_line())
        self._file.flush()

    def close(self) -> None:
        """Close the file; what it could not hold, `write` has told."""
        with suppress(OSError):
            self._file.close()


def read(folder: Path, images: Path) -> dict[str, Outcome]:
    """Return all that is finished, by file name, from the shards of however many ranks.

    Torn and damaged lines count for nothing, nor does an outcome whose image is missing or empty: that work is to be
    done again. Where an image stands in two lines, a kept caption wins.

    Args:
        folder: the shards of one split.
        images: the folder of its images.
    """
    there = _files(images)
    found: dict[str, Outcome] = {}
    for path in sorted(folder.glob("rank-*.jsonl")):
        for outcome in _outcomes(path):
            lost = outcome.texts and outcome.file_name not in there
            if not lost and (outcome.texts or outcome.file_name not in found):
                found[outcome.file_name] = outcome
    return found


def _files(folder: Path) -> set[str]:
    """Return the names of the files that are not empty, which a crash of the whole machine can leave behind."""
    if not folder.is_dir():
        return set()
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if entry.stat().st_size}


def _outcomes(path: Path) -> Iterator[Outcome]:
    with path.open("rb") as lines:
        for line in lines:
            try:
                yield Outcome.from_line(line if line.endswith(b"\n") else b"")
            except ValueError:
                continue

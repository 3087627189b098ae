"""What a synthesis kept and what each rule rejected, for people and for `protocol.json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synth.rules import CANDIDATE_RULES, IMAGE_RULES, Rule

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class SplitCounts:
    """The counts of one written split.

    Attributes:
        images: images looked at.
        kept: counterfactuals written.
        dropped: images that gave none, by the rule that the best of their attempts failed.
        candidates: classes judged as candidates for removal, over all images.
        rejected: candidates that each rule of selection rejected.
    """

    images: int
    kept: int
    dropped: Mapping[Rule, int] = field(default_factory=dict)
    candidates: int = 0
    rejected: Mapping[Rule, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the counts as JSON, every rule with its count."""
        dropped = {rule.value: self.dropped.get(rule, 0) for rule in IMAGE_RULES}
        rejected = {rule.value: self.rejected.get(rule, 0) for rule in CANDIDATE_RULES}
        numbers = {"images": self.images, "kept": self.kept, "candidates": self.candidates}
        return {**numbers, "dropped": dropped, "rejected": rejected}

    @staticmethod
    def from_json(counts: Mapping[str, Any]) -> SplitCounts:
        """Return the counts that `as_json` gave."""
        rules = {rule.value: rule for rule in Rule}
        dropped, rejected = ({rules[key]: n for key, n in counts[by].items()} for by in ("dropped", "rejected"))
        return SplitCounts(counts["images"], counts["kept"], dropped, counts["candidates"], rejected)


@dataclass(frozen=True)
class Summary:
    """The outcome of a synthesis.

    Attributes:
        output: folder of the set.
        splits: counts of every written split.
        made: False where the finished set was there before.
    """

    output: Path
    splits: Mapping[str, SplitCounts]
    made: bool = True

    def table(self) -> Table:
        """Return the closing table: what was kept, and what was rejected by which rule."""
        from rich.table import Table

        table = Table(title=f"{self.output}" if self.made else f"{self.output} (was already there)")
        table.add_column("")
        for name in self.splits:
            table.add_column(name, justify="right")
        counts = self.splits.values()
        table.add_row("images looked at", *_numbers(split.images for split in counts))
        table.add_row("kept", *(f"{split.kept:,} ({split.kept / max(split.images, 1):.1%})" for split in counts))
        for rule in IMAGE_RULES:
            _add(table, f"dropped: {rule.text}", [split.dropped.get(rule, 0) for split in counts])
        table.add_section()
        table.add_row("candidate classes", *_numbers(split.candidates for split in counts))
        for rule in CANDIDATE_RULES:
            _add(table, f"rejected: {rule.text}", [split.rejected.get(rule, 0) for split in counts])
        return table

    def show(self) -> None:
        """Print the closing table to stderr, where the progress was."""
        from rich.console import Console

        Console(stderr=True).print(self.table())


def _numbers(counts: Iterable[int]) -> list[str]:
    return [f"{count:,}" for count in counts]


def _add(table: Table, label: str, counts: list[int]) -> None:
    if any(counts):
        table.add_row(label, *_numbers(counts))

"""What a synthesis kept and what each rule rejected, for people and for `protocol.json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from synth.rules import CANDIDATE_RULES, IMAGE_RULES, Rule
from synth.tally import FILE, Tally

if TYPE_CHECKING:
    from rich.table import Table

_NARROW = 7  # letters of a line above a column of numbers


@dataclass(frozen=True)
class SplitCounts:
    """The counts of one written split.

    Attributes:
        images: images looked at.
        used: images that gave a counterfactual.
        kept: counterfactuals written.
        dropped: images that gave none, by the rule that the best of their attempts failed.
        candidates: classes judged as candidates for removal, over all images.
        rejected: candidates that each rule of selection rejected.
        tally: the same by class and pair of classes.
    """

    images: int
    used: int
    kept: int
    dropped: Mapping[Rule, int] = field(default_factory=dict)
    candidates: int = 0
    rejected: Mapping[Rule, int] = field(default_factory=dict)
    tally: Tally = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the counts as JSON, every rule with its count; the tally has a table of its own."""
        dropped = {rule.value: self.dropped.get(rule, 0) for rule in IMAGE_RULES}
        rejected = {rule.value: self.rejected.get(rule, 0) for rule in CANDIDATE_RULES}
        numbers = {"images": self.images, "used": self.used, "kept": self.kept, "candidates": self.candidates}
        return {**numbers, "dropped": dropped, "rejected": rejected}

    @staticmethod
    def from_json(counts: Mapping[str, Any], tally: Tally) -> SplitCounts:
        """Return the counts that `as_json` gave, with their tally."""
        rules = {rule.value: rule for rule in Rule}
        dropped, rejected = ({rules[key]: n for key, n in counts[by].items()} for by in ("dropped", "rejected"))
        images, used, kept = (counts[key] for key in ("images", "used", "kept"))
        return SplitCounts(images, used, kept, dropped, counts["candidates"], rejected, tally)


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
        from rich.text import Text

        table = Table(title=Text(f"{self.output}" if self.made else f"{self.output} (was already there)"))
        table.add_column("")
        for name in self.splits:
            table.add_column(name, justify="right")
        counts = self.splits.values()
        table.add_row("images looked at", *_numbers(split.images for split in counts))
        table.add_row("images used", *(f"{each.used:,} ({each.used / max(each.images, 1):.1%})" for each in counts))
        table.add_row("kept", *_numbers(split.kept for split in counts))
        for rule in IMAGE_RULES:
            _add(table, f"dropped: {rule.text}", [split.dropped.get(rule, 0) for split in counts])
        table.add_section()
        table.add_row("candidate classes", *_numbers(split.candidates for split in counts))
        for rule in CANDIDATE_RULES:
            _add(table, f"rejected: {rule.text}", [split.rejected.get(rule, 0) for split in counts])
        return table

    def class_table(self, most: int = 10) -> Table:
        """Return the classes, and the pairs of classes, with the largest counts of all splits, in 80 columns."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        total = sum((Counter(split.tally) for split in self.splits.values()), Counter[tuple[str, str, str]]())
        classes, pairs = (_largest(total, alone, most) for alone in (True, False))
        rules = [rule for rule in CANDIDATE_RULES if any(total[*key, rule.value] for key in classes + pairs)]
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
        table.title = f"The {most} largest classes and pairs; all are in {FILE}"
        table.caption = "Right of kept: candidates rejected." if rules else None
        for column in ("class", "beside"):
            table.add_column(column, overflow="fold")
        for column in ("kept", *(rule.text for rule in rules)):
            table.add_column(fill(column, _NARROW), justify="right", vertical="bottom", min_width=_NARROW)
        outcomes = ("kept", *(rule.value for rule in rules))
        for keys in (classes, pairs):
            table.add_section()
            for key in keys:
                table.add_row(*map(Text, key), *_numbers(total[*key, outcome] for outcome in outcomes))
        return table

    def show(self) -> None:
        """Print the closing tables to stderr, where the progress was; nothing on ranks after the first."""
        from rich.console import Console

        if not self.splits:
            return
        console = Console(stderr=True)
        console.print(self.table())
        if any(split.tally for split in self.splits.values()):
            console.print(self.class_table())


def _largest(total: Tally, alone: bool, most: int) -> list[tuple[str, str]]:
    sizes: Counter[tuple[str, str]] = Counter()
    for (name, other, _), count in sorted(total.items()):
        if alone == (other == ""):
            sizes[name, other] += count
    return [key for key, _ in sizes.most_common(most)]


def _numbers(counts: Iterable[int]) -> list[str]:
    return [f"{count:,}" for count in counts]


def _add(table: Table, label: str, counts: list[int]) -> None:
    if any(counts):
        table.add_row(label, *_numbers(counts))

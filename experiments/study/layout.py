"""A table as Markdown and LaTeX, and what goes into its cells."""

from __future__ import annotations

import re
from dataclasses import dataclass

from experiments.study.summary import Difference, Estimate, Share

NOTHING = "-"
"""What a cell says that has no number."""

_MARKDOWN = re.compile(r"([\\|*_`<])")
_LATEX = {
    "\\": r"\textbackslash{}",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    "\n": " ",
}


@dataclass(frozen=True)
class Table:
    r"""Text in rows and columns.

    Attributes:
        title: what it is called.
        columns: their names; the first two are of text, the others of numbers.
        rows: as many cells each as there are columns; rows of one first cell belong together.
        notes: sentences that stand below, about all of it.
        findings: sentences that stand below them, about single rows.

    Example:
        >>> table = Table("T", ("Model", "Training", "R@1"), (("A", "D", "1.0"), ("A", "D'", "-2.0")), ("All of it.",))
        >>> print(table.markdown())
        **T**
        <BLANKLINE>
        | Model | Training | R@1 |
        |:--|:--|--:|
        | A | D | 1.0 |
        |  | D' | -2.0 |
        <BLANKLINE>
        All of it.
        <BLANKLINE>
        >>> print(table.latex().splitlines()[7])
         & D' & $-$2.0 \\
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()

    def markdown(self) -> str:
        """Return the table with its title above and its sentences below, as GitHub reads it."""
        rule = "|".join([":--"] * 2 + ["--:"] * (len(self.columns) - 2))
        rows = [_markdown_row(self.columns), f"|{rule}|", *map(_markdown_row, self._once())]
        findings = [f"- {_for_markdown(sentence)}" for sentence in self.findings]
        parts = [[f"**{_for_markdown(self.title)}**"], rows, [" ".join(map(_for_markdown, self.notes))], findings]
        return "\n\n".join("\n".join(lines) for lines in parts if any(lines)) + "\n"

    def latex(self) -> str:
        """Return the table as the packages `booktabs` and `graphicx` set it, with its sentences as caption."""
        body = []
        for number, row in enumerate(self._once()):
            if number and row[0]:
                body.append(r"\midrule")
            body.append(_latex_row(row))
        caption = " ".join(map(_for_latex, (f"{self.title}.", *self.notes, *self.findings)))
        columns = "ll" + "r" * (len(self.columns) - 2)
        head = [r"\begin{table}", r"\resizebox{\linewidth}{!}{%", rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
        middle = [_latex_row(self.columns), r"\midrule", *body, r"\bottomrule"]
        return "\n".join((*head, *middle, r"\end{tabular}}", rf"\caption{{{caption}}}", r"\end{table}", ""))

    def _once(self) -> list[tuple[str, ...]]:
        """Return the rows, the first cell left out where the row above has the same."""
        above = ("", *(row[0] for row in self.rows))
        return [("", *row[1:]) if row[0] == before else row for row, before in zip(self.rows, above, strict=False)]


def number(value: float | None, digits: int = 1) -> str:
    """Return a number as text.

    Example:
        >>> number(12.34), number(-0.04), number(None)
        ('12.3', '0.0', '-')
    """
    return NOTHING if value is None else f"{round(value, digits) + 0.0:.{digits}f}"


def signed(value: float | None) -> str:
    """Return a number with its sign.

    Example:
        >>> signed(3.21), signed(-0.04), signed(None)
        ('+3.2', '0.0', '-')
    """
    text = number(value)
    return f"+{text}" if value is not None and round(value, 1) > 0 else text


def interval(estimate: Estimate | None) -> str:
    """Return a mean with its interval.

    Example:
        >>> interval(Estimate(50.0, 48.21, 52.0, None, 1)), interval(Estimate(50.0, None, None, None, 1))
        ('50.0 [48.2, 52.0]', '50.0')
    """
    if estimate is None:
        return NOTHING
    ends = "" if estimate.low is None else f" [{number(estimate.low)}, {number(estimate.high)}]"
    return number(estimate.mean) + ends


def change(difference: Difference | None) -> str:
    """Return a difference with its interval, as `+3.2 [+1.0, +5.4]`."""
    if difference is None:
        return NOTHING
    return f"{signed(difference.difference)} [{signed(difference.low)}, {signed(difference.high)}]"


def p_value(difference: Difference | None) -> str:
    """Return the corrected p-value of a difference; small ones as `<0.001`."""
    if difference is None:
        return NOTHING
    return "<0.001" if difference.p_holm < 0.001 else number(difference.p_holm, 3)


def share(found: Share | None) -> str:
    """Return a share of a gap with its interval.

    Example:
        >>> share(Share(82.4, 70.0, 95.0)), share(None)
        ('82 % [70, 95]', '-')
    """
    if found is None:
        return NOTHING
    middle, *ends = (number(value, 0) for value in found)
    return f"{middle} % [{', '.join(ends)}]"


def _markdown_row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(map(_for_markdown, cells))} |"


def _for_markdown(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def _latex_row(cells: tuple[str, ...]) -> str:
    return " & ".join(map(_for_latex, cells)) + r" \\"


def _for_latex(text: str) -> str:
    escaped = "".join(_LATEX.get(mark, mark) for mark in text)
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", escaped)  # a minus, not a hyphen

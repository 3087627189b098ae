"""The commands of tables: from options to cells that are run, and files that say what they found."""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cli import OptionsParser
from datamodules.errors import ConfigError
from experiments.study.cells import Cell, cells_of
from experiments.study.lines import Line, check_kept
from experiments.study.paper import paper
from experiments.study.results import Results, load
from experiments.study.runner import run
from experiments.study.settings import SHIPPED, Settings, read
from experiments.study.tables import Form, labels_of, render
from synth.finished import positive, writing_results

_SIZED = "scenes"  # the data whose size one can choose


def study(
    form: Form,
    rows: Callable[[Settings], Sequence[str]],
    arguments: Sequence[str],
    draw: Callable[[Sequence[Line], Path], None] = lambda _, __: None,
) -> int:
    """Run what a table needs, and write it.

    Args:
        form: of the table.
        rows: names of its rows.
        arguments: what stands behind the name of the experiment.
        draw: draws the rows into a folder, where there is a figure.

    Returns:
        0, or 1 where a cell failed.

    Raises:
        SystemExit: after one sentence, if an option is misspelled.
        UserError: settings, data or cells cannot be used.
    """
    parser = StudyParser(form.name, form.title)
    parser.add_argument(
        "--wandb", type=_project, metavar="PROJECT", help="also log the table, curves and retrieved captions there"
    )
    options = parser.parse_args(arguments)
    asked = plan(options, rows)
    settings, work, to, cells = asked.settings, asked.work, asked.to, asked.cells
    table = to / f"{form.name}.csv"
    check_kept(table, [(cell.model, cell.row.name) for cell in cells])
    failed = asked.run(options.jobs, options.wandb)
    found = load(work, cells)
    check_kept(table, [(cell.model, cell.row.name) for cell in cells if cell.name not in found.missing])
    with writing_results(to):
        shown = _write(form, settings, cells, found, to)
        draw(shown, to)
    print(f"{form.title}: {to}/{form.name}.md, .csv, .tex")
    if options.wandb:
        _log(options.wandb, table, settings, cells, work)
    return 1 if failed else 0


@dataclass(frozen=True)
class Plan:
    """What a study is asked for.

    Attributes:
        settings: of the study.
        work: folder of data, synthetic sets and cells.
        to: folder of what is written.
        cells: by model, row and seed.
    """

    settings: Settings
    work: Path
    to: Path
    cells: list[Cell]

    def run(self, jobs: int | None, wandb: str | None = None) -> list[str]:
        """Run what is not finished, and return a sentence for every cell that failed, which is also told.

        Args:
            jobs: commands at a time; None for what suits the machine.
            wandb: project of Weights & Biases that trainings log to; None for none.

        Raises:
            UserError: data or cells cannot be used.
        """
        whole = sorted(self.cells, key=lambda cell: cell.seed)  # tables of all models and rows first
        failed = run(whole, self.work, jobs, wandb)
        for sentence in failed:
            sys.stderr.write(f"error: {sentence}\n")
        return failed


def plan(options: Namespace, rows: Callable[[Settings], Sequence[str]]) -> Plan:
    """Return what the options of a `StudyParser` ask for, with a folder to write to.

    Args:
        options: as parsed.
        rows: names of the rows.

    Raises:
        UserError: settings cannot be used, or the folder cannot be written.
    """
    path = options.settings or _shipped(options.dataset, options.size)
    work = options.work or Path("studies") / path.stem
    settings = read(path)
    to = options.to or Path("results") / settings.name
    with writing_results(to):  # before the work, that it is not lost
        to.mkdir(parents=True, exist_ok=True)
    names, models = rows(settings), list(dict.fromkeys(options.models or settings.models))
    cells = cells_of(settings, models, names, options.seeds, work)
    cells.sort(key=lambda cell: (list(settings.models).index(cell.model), names.index(cell.row.name), cell.seed))
    return Plan(settings, work, to, cells)


class StudyParser(OptionsParser):
    """Options that say which cells of which study are needed.

    Args:
        name: of the experiment.
        title: of what it writes.
        epilog: what else there is to say.
    """

    def __init__(self, name: str, title: str, epilog: str | None = None) -> None:
        super().__init__(
            prog=f"python -m experiments {name}",
            description=f"{title}. Runs what it needs; what is finished is not run again.",
            epilog=epilog,
        )
        shipped = sorted({path.stem.removesuffix("-small").removesuffix("-full") for path in SHIPPED.glob("*.yaml")})
        self.add_argument("--dataset", choices=shipped, default=_SIZED, help=f"default: {_SIZED}")
        self.add_argument("--size", choices=("small", "full"), default="small", help="of Scenes; default: small")
        self.add_argument("--settings", type=Path, metavar="FILE", help="a yaml of your own, in place of these two")
        self.add_argument("--models", nargs="+", metavar="NAME", help="of the settings; default: all of them")
        self.add_argument("--seeds", type=positive, default=1, metavar="N", help="seeds 0 to N - 1; default: 1")
        self.add_argument("--jobs", type=positive, metavar="N", help="trainings at a time; default: as the machine is")
        self.add_argument("--to", type=Path, metavar="FOLDER", help="to write to; default: results/SETTINGS")
        self.add_argument("--work", type=Path, metavar="FOLDER", help="of data and runs; default: studies/SETTINGS")


def _write(form: Form, settings: Settings, cells: Sequence[Cell], found: Results, to: Path) -> list[Line]:
    about = {"dataset": settings.dataset, "settings": settings.name}
    return render(form, found, labels_of(cells), paper(form.name, settings.dataset), about, to)


def _project(text: str) -> str:
    if not 0 < len(text) <= 128 or set(text) & set("/\\#?%:"):
        raise ArgumentTypeError(
            f"{text!r} is no name of a project of Weights & Biases: give 1 to 128 characters without / \\ # ? % :, and "
            "the team in WANDB_ENTITY."
        )
    return text


def _shipped(dataset: str, size: str) -> Path:
    if dataset == _SIZED:
        return SHIPPED / f"{dataset}-{size}.yaml"
    if size != "small":
        raise ConfigError(f"`--size` is {size}, but {dataset} has one size: leave it out.")
    return SHIPPED / f"{dataset}.yaml"


def _log(project: str, table: Path, settings: Settings, cells: Sequence[Cell], work: Path) -> None:
    from wandb.errors import Error

    from experiments.study.wandb_log import log_study

    try:
        log_study(project, f"{table.stem}-{settings.name}", table, cells, work)
    except Error as error:
        raise ConfigError(
            f"Weights & Biases did not take the table (`--wandb {project}`: {error}); {table} holds it: run the same "
            "command again to log it, which trains nothing anew."
        ) from error

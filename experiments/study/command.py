"""The commands of tables: from options to cells that are run, and files that say what they found."""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
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
    options = _parser(form).parse_args(arguments)
    path = options.settings or _shipped(options.dataset, options.size)
    work = options.work or Path("studies") / path.stem
    settings = read(path)
    to = options.to or Path("results") / settings.name
    with writing_results(to):  # before the work, that it is not lost
        to.mkdir(parents=True, exist_ok=True)
    names = rows(settings)
    models = list(dict.fromkeys(options.models or settings.models))
    cells = cells_of(settings, models, names, options.seeds, work)
    table = to / f"{form.name}.csv"
    check_kept(table, [(cell.model, cell.row.name) for cell in cells])
    cells.sort(key=lambda cell: (list(settings.models).index(cell.model), names.index(cell.row.name), cell.seed))
    failed = run(sorted(cells, key=lambda cell: cell.seed), work, options.jobs, options.wandb)  # whole tables first
    for sentence in failed:
        sys.stderr.write(f"error: {sentence}\n")
    found = load(work, cells)
    check_kept(table, [(cell.model, cell.row.name) for cell in cells if cell.name not in found.missing])
    with writing_results(to):
        shown = _write(form, settings, cells, found, to)
        draw(shown, to)
    print(f"{form.title}: {to}/{form.name}.md, .csv, .tex")
    if options.wandb:
        _log(options.wandb, table, settings, cells, work)
    return 1 if failed else 0


def _write(form: Form, settings: Settings, cells: Sequence[Cell], found: Results, to: Path) -> list[Line]:
    about = {"dataset": settings.dataset, "settings": settings.name}
    return render(form, found, labels_of(cells), paper(form.name, settings.dataset), about, to)


def _parser(form: Form) -> OptionsParser:
    parser = OptionsParser(
        prog=f"python -m experiments {form.name}",
        description=f"{form.title}. Runs what it needs; what is finished is not run again.",
    )
    shipped = sorted({path.stem.removesuffix("-small").removesuffix("-full") for path in SHIPPED.glob("*.yaml")})
    parser.add_argument("--dataset", choices=shipped, default=_SIZED, help=f"default: {_SIZED}")
    parser.add_argument("--size", choices=("small", "full"), default="small", help="of Scenes; default: small")
    parser.add_argument("--settings", type=Path, metavar="FILE", help="a yaml of your own, in place of these two")
    parser.add_argument("--models", nargs="+", metavar="NAME", help="of the settings; default: all of them")
    parser.add_argument("--seeds", type=positive, default=1, metavar="N", help="seeds 0 to N - 1; default: 1")
    parser.add_argument("--jobs", type=positive, metavar="N", help="trainings at a time; default: as the machine is")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="of the table; default: results/SETTINGS")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="of data and runs; default: studies/SETTINGS")
    parser.add_argument(
        "--wandb", type=_project, metavar="PROJECT", help="also log the table, curves and retrieved captions there"
    )
    return parser


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

"""`python -m experiments figure3`: Figure 3 of the paper, of a study or of two runs of one's own.

For some queries it shows the first captions before and after, for the original image and for the one from which an
object was removed, as a page (`figure3.html`) and a sheet (`figure3.png`). Words that name what the picture does not
show are red, those that name what it shows are green. Both pictures are ranked by the plain embeddings; the ranking of
the synthetic ones is that of `train.py test`.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.errors import ConfigError
from datamodules.loaders import gallery
from datamodules.shown import shown_classes
from experiments.encoding import embed_images, embed_texts
from experiments.figure3_drawing import ON_SHEET, Line, Picture, page, sheet
from experiments.options import load_model
from experiments.report.drawn import draw, pictures
from experiments.report.options import RunsParser
from experiments.report.tested import STATES, Asked, Run, caption_rows, read_runs, states, words
from experiments.study.command import StudyParser, plan
from experiments.study.lines import CONTROL
from metrics.search import top_k as search
from synth.finished import positive, writing_results


def main(arguments: list[str]) -> int:
    """Draw the figure.

    Args:
        arguments: what stands behind `python -m experiments figure3`.

    Raises:
        SystemExit: after one sentence, if an option or a key is misspelled.
        UserError: results, checkpoints or data are not there or broken, or do not belong together.
    """
    own = any(one.partition("=")[0] in ("--run", "--against", "--data") for one in arguments)
    return _of_runs(arguments) if own else _of_study(arguments)


def _of_runs(arguments: list[str]) -> int:
    parser = RunsParser("figure3", "Show what two models retrieve for images and their counterfactuals.", two=True)
    _add_shown(parser)
    parser.add_argument(
        "--ckpt", nargs=2, metavar="FILE", help="checkpoints (or configs) of the two; default: as the results say"
    )
    parser.add_argument("--to", type=Path, default=Path("figure3"), metavar="FOLDER", help="default: figure3")
    options, keys = parser.parse_known_args(arguments)
    _draw(options, keys)
    return 0


def _of_study(arguments: list[str]) -> int:
    """Draw D alone against D + D' for every model and seed of a study, whose seed also draws the queries."""
    other = "With `--run FOLDER --against FOLDER --data CONFIG.yaml` it is of two runs of your own."
    parser = StudyParser("figure3", "Figure 3: what D alone and D + D' retrieve, word by word", other)
    _add_shown(parser)
    options = parser.parse_args(arguments)
    asked = plan(options, lambda _: (CONTROL, "synthetic"))
    failed = asked.run(options.jobs)
    trained = {(cell.model, cell.seed): cell for cell in asked.cells if cell.row.name == "synthetic"}
    for before in (cell for cell in asked.cells if cell.row.name == CONTROL):
        both = before, trained[before.model, before.seed]
        found = [cell.results(asked.work) for cell in both]
        if None in found:
            continue  # it failed, which was told
        runs = {"run": found[0], "against": found[1], "data": before.data(asked.work), "ckpt": None}
        names = [f"{asked.settings.model(cell.model).label}, {cell.row.label}" for cell in both]
        place = {"to": asked.to / "figure3" / f"{before.model}-seed{before.seed}", "seed": before.seed, "names": names}
        _draw(Namespace(**{**vars(options), **runs, **place}), [])
    return 1 if failed else 0


def _draw(options: Namespace, keys: list[str]) -> None:
    options.reranked = False
    runs = read_runs(options)
    checkpoints = [_checkpoint(run, given) for run, given in zip(runs, options.ckpt or (None, None), strict=True)]
    asked = Asked.load(options.data, keys, runs)
    chosen = _choose(runs, options)
    found = [
        _retrieved(run, checkpoint, asked, chosen, options.top_k)
        for run, checkpoint in zip(runs, checkpoints, strict=True)
    ]
    drawn = [picture for place, query in enumerate(chosen) for picture in _pictures(asked, found, place, query)]
    with writing_results(options.to):
        options.to.mkdir(parents=True, exist_ok=True)
        (options.to / "figure3.html").write_text(page([run.name for run in runs], drawn), encoding="utf-8")
        sheet([run.name for run in runs], drawn).save(options.to / "figure3.png")
    cut = f" (its first {ON_SHEET} of {len(drawn)} pictures)" if len(drawn) > ON_SHEET else ""
    print(f"Figure 3: {options.to}/figure3.html, figure3.png{cut}")


def _add_shown(parser: ArgumentParser) -> None:
    parser.add_argument("--queries", type=positive, default=6, metavar="N", help="to show; default: 6")
    parser.add_argument(
        "--state", choices=STATES, help="of the queries to draw from; default: as many of each as can be"
    )
    parser.add_argument(
        "--top_k", type=positive, default=5, metavar="K", help="captions to show, at most those of the test; default: 5"
    )


def _checkpoint(run: Run, given: str | None) -> str:
    """Return the checkpoint of a run or, where nothing was trained, its config.

    Raises:
        ConfigError: it is not where the results say, or they do not say.
    """
    told = given or str(run.found.about.get("checkpoint") or run.nearest("config.yaml") or "")
    beside = run.folder.parent / Path(told).name  # where the results lie with it after both were moved
    if told and not Path(told).is_file() and beside.is_file():
        return str(beside)
    if not Path(told).is_file():
        raise ConfigError(f"The checkpoint {told or 'of'} {run.folder} is not there: give both with `--ckpt`.")
    return told


def _choose(runs: list[Run], options: Namespace) -> list[int]:
    """Return the places of the queries to show.

    Raises:
        ConfigError: there is none in the state that is asked for.
    """
    became = states(runs)
    places = [place for place, state in enumerate(became) if options.state in (None, state)]
    if not places:
        raise ConfigError(f"`--state` {options.state}: no query of {runs[1].name} is {options.state}; leave it out.")
    return [places[index] for index in draw([became[place] for place in places], options.queries, options.seed)]


def _retrieved(
    run: Run, checkpoint: str, asked: Asked, chosen: list[int], top_k: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the caption rows `[N, K]` that are first for the source images, and for the synthetic ones.

    Raises:
        ConfigError: the gallery is not the one of the results.
    """
    data, tables = asked.data, asked.data.tables
    everything = run.found.about.get("stage") != "val" or data.val_gallery == "all"
    captions = gallery(tables, asked.split, everything, data.eval_captions)[0]
    if len(captions) != run.found.about["gallery"]:
        raise ConfigError(
            f"{run.found.path} is of a gallery of {run.found.about['gallery']} captions, the data give "
            f"{len(captions)}: give with `--data` the config that the run was tested with."
        )
    model = load_model(checkpoint)
    texts = embed_texts(model, ["{}"], tables.texts.take(captions)).cpu()
    sources = np.unique(asked.sources[chosen])
    images, rows = embed_images(model, data, sources)
    if len(rows) < len(sources):
        raise ConfigError(f"Image {np.setdiff1d(sources, rows)[0]} of a query cannot be read: replace its file.")
    shown = min(top_k, run.retrieved.shape[1], len(captions))  # as many for both pictures
    ids = torch.from_numpy(tables.caption_ids[captions])
    best = captions[search(images, texts, shown, ids=ids).rows.numpy()]
    order = np.argsort(rows)
    places = order[np.searchsorted(rows, asked.sources[chosen], sorter=order)]
    synthetic = run.retrieved[chosen, :shown]
    return best[places], caption_rows(asked, run, synthetic.ravel()).reshape(synthetic.shape)


def _pictures(
    asked: Asked, found: list[tuple[NDArray[np.int64], NDArray[np.int64]]], place: int, query: int
) -> list[Picture]:
    """Return the original picture of a query and the synthetic one, with the captions of both runs."""
    names = asked.data.tables.class_names
    made, source = pictures(asked, query)
    removed = asked.made.removed[asked.rows[query]]
    shown = shown_classes(asked.data.tables)[asked.sources[query]]
    headings = ("original", f"without {', '.join(np.array(names)[removed])}")
    drawn = []
    for which, (path, there) in enumerate(((source, shown), (made, shown & ~removed))):
        right, wrong = (set(np.flatnonzero(mask).tolist()) for mask in (there, ~there))
        lines = [[Line.of(caption, wrong, right) for caption in words(asked, rows[which][place])] for rows in found]
        drawn.append(Picture(path, headings[which], lines))
    return drawn

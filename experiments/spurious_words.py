"""`python -m experiments spurious_words --ckpt A --data CONFIG.yaml --words FILE`: what a model's errors align with.

The model is asked zero-shot which class an image shows. Of data whose images have one class each, it is the class whose
prompt is most similar. Of data with boxes, every class is a question of its own: as many images are taken to show it as
do, those most similar to its prompt. Then each word is scored by how it pulls toward the class, see
`metrics.spurious_words.word_pull`, and all are listed by class, the strongest first.
"""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from datamodules import RetrievalDataModule
from datamodules.errors import ConfigError, MissingPathError
from datamodules.grouped import GroupedDataModule
from datamodules.loaders import rows_of_splits
from experiments.encoding import embed_images, embed_texts
from experiments.options import Data, ExperimentParser, load_model, print_table, write_csv
from experiments.subjects import class_indices, grouped_rows
from lightning_modules.messages import a_few
from metrics.spurious_words import word_pull
from metrics.statistics import holm
from synth.finished import positive, writing_results

IntArray: TypeAlias = NDArray[np.int64]
FloatArray: TypeAlias = NDArray[np.float32]
_LIKE_A_FILE = re.compile(r"[/\\]|\.\w+$")
_COLUMNS = ("class", "word", "AUC, %", "low", "high", "p", "p, Holm", "errors")


class Question(NamedTuple):
    """Which images show a class, and which the model takes to show it.

    Attributes:
        name: of the class.
        labels: `[N]` int64, the true class.
        predictions: `[N]` int64, the class that the model gives.
        target: the class in question.
    """

    name: str
    labels: IntArray
    predictions: IntArray
    target: int


class Row(NamedTuple):
    """One word for one class; see `metrics.spurious_words.WordPull`. `p_holm` is corrected for the words of a class."""

    name: str
    word: str
    auc: float
    low: float
    high: float
    p_value: float
    p_holm: float
    errors: int


def main(arguments: list[str]) -> int:
    """Rank words, write all and print the strongest of each class.

    Args:
        arguments: what stands behind `python -m experiments spurious_words`.

    Raises:
        SystemExit: after one sentence, if an option or a key is misspelled.
        UserError: data, checkpoint or words are not there or broken, or a value cannot work.
    """
    options, data = _parser().read(arguments)
    with writing_results(options.to):  # before the work, that it is not lost
        options.to.parent.mkdir(parents=True, exist_ok=True)
        options.to.open("a", encoding="utf-8").close()
    rows = rank(data, options)
    with writing_results(options.to):
        write_csv(options.to, [Row._fields, *rows])
    print_table(_COLUMNS, _strongest(rows, options.top))
    asked = options.classes or _class_names(data)
    if left_out := [name for name in dict.fromkeys(asked) if name not in {row.name for row in rows}]:
        print(
            f"Without words: {a_few(left_out, 10)}. No other word was given, or the model calls all images of each "
            "true class by the class, or none, so that there are no two to compare."
        )
    print(f"AUC above 50 %: images that are taken for the class are more like the word. All words: {options.to}")
    return 0


def _parser() -> ExperimentParser:
    parser = ExperimentParser("spurious_words", "Rank words by how a model's zero-shot errors align with them.")
    parser.add_argument("--ckpt", required=True, metavar="FILE", help="checkpoint of a run, or its config")
    parser.add_argument(
        "--words",
        nargs="+",
        metavar="WORD",
        help="candidates, or a file with one a line; default: the classes or attributes that the data name",
    )
    parser.add_argument("--top", type=positive, default=3, metavar="N", help="words to print of a class; default: 3")
    parser.add_argument(
        "--resamples", type=positive, default=10_000, metavar="N", help="permutations of a p-value; default: 10000"
    )
    parser.add_argument("--to", type=Path, default=Path("spurious_words.csv"), metavar="FILE", help="csv to write")
    return parser


def rank(data: Data, options: Namespace) -> list[Row]:
    """Score every word for every class.

    Args:
        data: prepared.
        options: those of the command.

    Returns:
        Rows by class, the word that pulls most toward it first. The name of a class is no candidate for itself, and a
        class that no image is mistaken for, nor one of it for another, has no rows.

    Raises:
        ConfigError: a class or the split is unknown, or there are no words.
    """
    words = read_words(options.words, data)
    asked = class_indices(_class_names(data), options.classes)
    model = load_model(options.ckpt)
    if isinstance(data, RetrievalDataModule):
        images, rows = embed_images(model, data, rows_of_splits(data.tables, "--split", options.split))
    else:
        images, rows = embed_images(model, data, grouped_rows(data, options.split))
    classes, candidates = (
        (images @ embed_texts(model, options.prompt, names).cpu().T).numpy() for names in (_class_names(data), words)
    )
    questions = (
        _presence(data, rows, classes) if isinstance(data, RetrievalDataModule) else _classes(data, rows, classes)
    )
    found = [_scored(questions(int(place)), words, candidates, options) for place in asked]
    return [row for rows_of_class in found for row in rows_of_class]


def read_words(given: Sequence[str] | None, data: Data) -> list[str]:
    """Return the candidates: those given, those of the file given, or the classes or attributes that the data name.

    Raises:
        ConfigError: there are none, or the file is no text.
        MissingPathError: what looks like a file is none.
    """
    if given is None:
        return _own_words(data)
    if len(given) == 1 and Path(given[0]).is_file():
        try:
            given = Path(given[0]).read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise ConfigError(f"`--words` {given[0]} is no text in UTF-8: give a file with a word a line.") from error
    elif len(given) == 1 and _LIKE_A_FILE.search(given[0]):
        raise MissingPathError(
            f"`--words` is {given[0]}, but {Path(given[0]).absolute()} is no file: give words or one."
        )
    words = [word.strip() for word in given if word.strip()]
    if not words:
        raise ConfigError("`--words` holds no word: give some, or a file with one a line.")
    return list(dict.fromkeys(words))


def _own_words(data: Data) -> list[str]:
    """Return the attributes, or the classes that some image shows: a model may not know the words of others."""
    if not isinstance(data, RetrievalDataModule):
        return list(data.attribute_names)
    return [data.tables.class_names[place] for place in np.unique(data.tables.categories)]


def _class_names(data: Data) -> Sequence[str]:
    return data.tables.class_names if isinstance(data, RetrievalDataModule) else data.label_names


def _presence(data: RetrievalDataModule, rows: IntArray, scores: FloatArray) -> Callable[[int], Question]:
    """Ask of each class whether an image shows it; as many images as do are taken to, those most similar to it."""
    tables = data.tables
    shown = np.zeros((len(tables), len(tables.class_names)), dtype=bool)
    shown[tables.object_images, tables.categories] = True

    def ask(place: int) -> Question:
        labels = shown[rows, place]
        order = np.argsort(-scores[:, place], kind="stable")
        taken = np.zeros_like(labels)
        taken[order[: labels.sum()]] = True
        return Question(tables.class_names[place], labels.astype(np.int64), taken.astype(np.int64), 1)

    return ask


def _classes(data: GroupedDataModule, rows: IntArray, scores: FloatArray) -> Callable[[int], Question]:
    """Ask which class an image shows; it is the one that it is most similar to."""
    labels, predictions = data.table.labels[rows], scores.argmax(axis=1)
    return lambda place: Question(data.label_names[place], labels, predictions, place)


def _scored(question: Question, words: Sequence[str], similarities: FloatArray, options: Namespace) -> list[Row]:
    mine = [place for place, word in enumerate(words) if word.casefold() != question.name.casefold()]
    pull = word_pull(similarities[:, mine], *question[1:], resamples=options.resamples, seed=options.seed)
    columns = zip(*(values.tolist() for values in (*pull[:4], holm(pull.p_value))), strict=True)
    rows = [
        Row(question.name, words[place], auc, low, high, p_value, p_holm, pull.errors)
        for place, (auc, low, high, p_value, p_holm) in zip(mine, columns, strict=True)
    ]
    return sorted((row for row in rows if row.auc == row.auc), key=lambda row: -row.auc)


def _strongest(rows: Sequence[Row], top: int) -> list[list[str]]:
    """Return the first rows of each class, as text."""
    by_class = (list(group) for _, group in groupby(rows, key=attrgetter("name")))
    return [_cells(row) for group in by_class for row in group[:top]]


def _cells(row: Row) -> list[str]:
    shares = (f"{100 * value:.1f}" for value in (row.auc, row.low, row.high))
    return [row.name, row.word, *shares, f"{row.p_value:.4f}", f"{row.p_holm:.4f}", str(row.errors)]

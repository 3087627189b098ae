"""Classes and their spurious partners, for the training of a retrieval model: read, put into prompts, looked up."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from datamodules.batch import Tokens
from datamodules.errors import AnnotationError, ConfigError, MissingPathError
from lightning_modules.arguments import check_range
from lightning_modules.losses import SpuriousPairsLoss
from lightning_modules.losses.spurious_aware import prototypes
from lightning_modules.messages import near
from lightning_modules.prompts import checked_templates, tokenize_prompts

NamePairs: TypeAlias = list[list[str]]


def read_pairs(given: str | Sequence[Sequence[str]], count: int) -> NamePairs:
    """Return pairs of names of classes.

    Args:
        given: the pairs themselves, or a csv file whose columns `a` and `b` hold them, such as the `images_pairs.csv`
            that `python -m synth stats` writes, the most spurious first.
        count: how many of the file's pairs are taken, the first ones.

    Raises:
        MissingPathError: there is no such file.
        AnnotationError: it lacks a column or a name, or holds no pair.
        ConfigError: what is given is not pairs of two different names.

    Example:
        >>> read_pairs([["dog", "frisbee"]], count=5)
        [['dog', 'frisbee']]
    """
    pairs = [list(pair) for pair in given] if not isinstance(given, str) else _read(Path(given), count)
    for pair in pairs:
        if len(set(pair)) != 2 or len(pair) != 2 or not all(isinstance(name, str) and name for name in pair):
            raise ConfigError(f"`model.init_args.spurious_pairs` holds {pair}: a pair is two different classes.")
    if not pairs:
        raise ConfigError("`model.init_args.spurious_pairs` is empty: give pairs of classes, or null for no such term.")
    return pairs


def _read(path: Path, count: int) -> NamePairs:
    if not path.is_file():
        raise MissingPathError(
            f"`model.init_args.spurious_pairs` is {path}, but {path.absolute()} is no file: `python -m synth stats` "
            "writes `images_pairs.csv` with the pairs of a data set."
        )
    try:
        with path.open(newline="", encoding="utf-8") as file:
            found = _first_pairs(path, csv.DictReader(file), count)
    except (UnicodeDecodeError, csv.Error) as error:
        raise AnnotationError(
            f"{path} (key `model.init_args.spurious_pairs`) is no csv file in UTF-8 ({error}): take the "
            "`images_pairs.csv` of `python -m synth stats`."
        ) from error
    if not found:
        raise AnnotationError(f"{path} (key `model.init_args.spurious_pairs`) holds no pair below its first line.")
    return found


def _first_pairs(path: Path, rows: csv.DictReader[str], count: int) -> NamePairs:
    if missing := {"a", "b"} - set(rows.fieldnames or ()):
        raise AnnotationError(
            f"{path} (key `model.init_args.spurious_pairs`) has no column {' and '.join(sorted(missing))} in its first "
            "line: take the `images_pairs.csv` of `python -m synth stats`."
        )
    return [[row["a"], row["b"]] for row in islice(rows, count)]


class SpuriousTerms(nn.Module):
    """The terms of spurious pairs for a batch of a retrieval model.

    With t the prototype of a class (the direction of the mean of its prompts), `spurious` is `SpuriousPairsLoss` and
    `spurious_language` the mean of `t_c @ t_p` over the pairs (c, p). A term of weight 0 is not computed.

    Args:
        pairs: names of the classes of P pairs.
        templates: sentences with a place for a name.
        weights: of the terms, by their names.

    Attributes:
        pairs: as above.
        names: of the K classes that any pair has.
        tokens: of their K * T prompts, after `prepare`.
    """

    tokens: Tokens
    _places: Tensor

    def __init__(self, pairs: NamePairs, templates: Sequence[str], weights: Mapping[str, float]) -> None:
        super().__init__()
        self.pairs, self.templates = pairs, checked_templates(templates, "spurious_templates")
        self.names = sorted({name for pair in pairs for name in pair})
        self.weights = {name: weight for name, weight in weights.items() if weight}
        self.loss = SpuriousPairsLoss()
        places = torch.tensor([[self.names.index(name) for name in pair] for pair in pairs])
        self.register_buffer("_places", places, persistent=False)

    def prepare(self, data: Any, tokenize: Callable[[list[str]], Tokens]) -> None:
        """Take prompts, and what the training images of a data module show.

        Args:
            data: has `tables.class_names` and `shown_classes()`, as `RetrievalDataModule` has.
            tokenize: maps texts to tokens.

        Raises:
            ConfigError: the data knows no objects, or a pair has a class that it does not know.
        """
        if not hasattr(data, "shown_classes"):
            raise ConfigError(
                f"`model.init_args.spurious_pairs` needs to know what images show, of which {type(data).__name__} says "
                "nothing: take data with annotated objects, or give null."
            )
        known = list(data.tables.class_names)
        for name in self.names:
            if name not in known:
                raise ConfigError(
                    f"`model.init_args.spurious_pairs` names {name!r}, which is no class of the data{near(name, known)}"
                )
        self.tokens = tokenize_prompts(tokenize, self.names, self.templates)
        ids, shown = (torch.from_numpy(array) for array in data.shown_classes())
        # No buffers: DDP would send those to all ranks at every step.
        self._table = ids, shown[:, [known.index(name) for name in self.names]]

    def forward(self, images: Tensor, prompts: Tensor, scale: Tensor, image_ids: Tensor) -> dict[str, Tensor]:
        """Return the terms whose weight is not 0, each without its weight.

        Args:
            images: `[B, D]` unit rows; under DDP B may differ between ranks.
            prompts: `[K * T, D]` unit rows, the embeddings of `tokens`.
            scale: scalar, the inverse temperature.
            image_ids: `[B]` int64, all of training images.

        Raises:
            ValueError: an image is none of those that `prepare` was told of.
        """
        texts = prototypes(prompts.view(len(self.names), len(self.templates), -1))
        terms = {}
        if "spurious" in self.weights:
            terms["spurious"] = self.loss(images, texts, scale, self._shown(image_ids), self._places)
        if "spurious_language" in self.weights:
            first, second = self._places.T
            terms["spurious_language"] = (texts[first] * texts[second]).sum(dim=1).mean()
        return terms

    def _shown(self, image_ids: Tensor) -> Tensor:
        self._table = self._table[0].to(image_ids.device), self._table[1].to(image_ids.device)
        ids, shown = self._table
        places = torch.searchsorted(ids, image_ids.contiguous()).clamp(max=len(ids) - 1)
        if (unknown := image_ids[ids[places] != image_ids]).numel():
            raise ValueError(f"Image {int(unknown[0])} is no training image of the data: what it shows is not known.")
        return shown[places]

    def weighted(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Return the sum of the terms times their weights."""
        return torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()


def build_spurious_terms(
    given: str | Sequence[Sequence[str]] | None, count: int, templates: Sequence[str], weights: Mapping[str, float]
) -> SpuriousTerms | None:
    """Return the terms that a config asks for, None where it gives no pairs.

    Args:
        given: the pairs or their file, see `read_pairs`.
        count: of the file's pairs.
        templates: of the prompts.
        weights: by their keys, `spurious_weight` and `spurious_language_weight`.

    Raises:
        ConfigError: weights without pairs, pairs without weights, or a weight is negative.
        UserError: the pairs cannot be read.
    """
    check_range(0, **weights)
    if (given is None) == any(weights.values()):
        raise ConfigError(
            f"`model.init_args.spurious_pairs` is {given} and its weights are "
            f"{', '.join(f'`{key}` {weight}' for key, weight in weights.items())}: give pairs and a weight, or neither."
        )
    if given is None:
        return None
    named = {key.removesuffix("_weight"): weight for key, weight in weights.items()}
    return SpuriousTerms(read_pairs(given, count), templates, named)

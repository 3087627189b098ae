"""Captions as words, and the vocabulary of a model that learns its words from scratch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from datamodules.errors import ConfigError, MissingPathError

PAD, START, END, UNKNOWN = range(4)
_SPECIAL = 4
_CLITIC = r"'(?:s|m|d|re|ve|ll)\b"
_WORD = re.compile(
    rf"""
      \d+(?:[.,:]\d+)+     # 3.5, 1,000, 10:30
    | \w+(?:[-']\w+)*      # black-and-white, o'clock, dog's
    | {_CLITIC}             # of a word that ends elsewhere: dog 's
    | \.{{2,}} | -{{2,}}
    | [^\w\s]
    """,
    re.VERBOSE,
)
_PARTS = re.compile(rf"(.+?)(n't|{_CLITIC})")


def split_words(caption: str) -> Iterator[str]:
    """Yield the lower-case words and marks of punctuation of a caption.

    The rules are those of the Penn Treebank where captions need them: `n't` and clitics such as `'s` are words of their
    own, numbers, compounds with hyphens and words such as "o'clock" stay whole, and so do `...` and `--`; any other
    mark is a word. Unlike there, a full stop always ends a word ("street.the", "u.s."), quotation marks keep their
    form, a slash separates, and "cannot" stays whole.

    Example:
        >>> list(split_words("Don't pet the dog's black-and-white ball, it's 3.5 in. wide..."))
        ['do', "n't", 'pet', 'the', 'dog', "'s", 'black-and-white', 'ball', ',', 'it', "'s", '3.5', 'in', '.', 'wide',
         '...']
    """
    for found in _WORD.finditer(caption.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")):
        word = found.group()
        parts = _PARTS.fullmatch(word) if "'" in word else None
        yield from parts.groups() if parts else (word,)


@dataclass(frozen=True)
class Vocabulary:
    """The words that a model knows, and captions as their ids.

    The ids are those of Faghri et al. 2018 (VSE++): 0 for padding, 1 and 2 before and after each caption, 3 for words
    that are not known, and from 4 on `words`.

    Attributes:
        words: the words that are known, each once.
        max_words: words of a caption that are looked at.

    Raises:
        ConfigError: there is no word, or one stands there twice.

    Example:
        >>> vocabulary = Vocabulary(("a", "dog"))
        >>> vocabulary.tokenize(["A dog", "A hot dog", ""])
        tensor([[1, 4, 5, 2, 0],
                [1, 4, 3, 5, 2],
                [1, 2, 0, 0, 0]])
    """

    words: tuple[str, ...]
    max_words: int = 100

    def __post_init__(self) -> None:
        if not self.words:
            raise ConfigError("`model.init_args.vocabulary` holds no word.")
        if len(self.words) > len(set(self.words)):
            word = next(word for word, count in Counter(self.words).items() if count > 1)
            raise ConfigError(f"`model.init_args.vocabulary` holds {word!r} more than once.")

    def __len__(self) -> int:
        return _SPECIAL + len(self.words)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: place for place, word in enumerate(self.words, start=_SPECIAL)}

    def tokenize(self, captions: str | Sequence[str]) -> Tensor:
        """Return B captions, or one, as `[B, L]` int64, L that of the longest."""
        captions = [captions] if isinstance(captions, str) else captions
        if not captions:
            return torch.empty(0, 0, dtype=torch.long)
        return pad_sequence([self._tokens(caption) for caption in captions], batch_first=True, padding_value=PAD)

    def _tokens(self, caption: str) -> Tensor:
        words = islice(split_words(caption), self.max_words)
        return torch.tensor([START, *(self._ids.get(word, UNKNOWN) for word in words), END])


def count_words(captions: Iterable[str], min_count: int) -> tuple[str, ...]:
    """Return the words that occur `min_count` times or more, the most frequent first, equal ones by the alphabet.

    Raises:
        ConfigError: there is none.

    Example:
        >>> count_words(["a dog", "a cat", "a dog and a cat"], min_count=2)
        ('a', 'cat', 'dog')
    """
    counts = Counter(word for caption in captions for word in split_words(caption))
    words = sorted((word for word, count in counts.items() if count >= min_count), key=lambda one: (-counts[one], one))
    if not words:
        raise ConfigError(
            f"None of the {len(counts)} words of the training captions occurs {min_count} times or more: lower "
            "`model.init_args.min_count`."
        )
    return tuple(words)


def read_words(path: str | Path) -> tuple[str, ...]:
    """Read a file of words, one a line, empty lines aside.

    Raises:
        MissingPathError: there is no such file.
        ConfigError: it is no text.
    """
    if not Path(path).is_file():
        raise MissingPathError(
            f"`model.init_args.vocabulary` is {path}, but {Path(path).absolute()} is no file; give one with a word a "
            "line, or null for the words of the training captions."
        )
    try:
        return tuple(filter(None, map(str.strip, Path(path).read_text(encoding="utf-8").splitlines())))
    except UnicodeDecodeError as error:
        raise ConfigError(f"`model.init_args.vocabulary` is {path}, which is no text in UTF-8.") from error

"""Tokenizers of transformers for captions, and how they travel inside a checkpoint."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from datamodules.errors import ConfigError
from lightning_modules.messages import gist


@dataclass(frozen=True)
class CaptionTokenizer:
    """Turns captions into tokens, all padded to one length.

    Attributes:
        tokenizer: of transformers.
        max_length: tokens of a caption, the special ones among them; what is longer is cut.
    """

    tokenizer: Any
    max_length: int

    def __call__(self, captions: list[str]) -> dict[str, Tensor]:
        """Return `input_ids` and `attention_mask`, `[B, max_length]` int64 each; at least one token of a row counts."""
        found = self.tokenizer(
            captions, padding="max_length", truncation=True, max_length=self.max_length, return_tensors="pt"
        )
        mask = found["attention_mask"]
        mask[mask.sum(dim=1) == 0, 0] = 1  # an empty caption of a tokenizer without special tokens
        return {"input_ids": found["input_ids"], "attention_mask": mask}


def build_tokenizer(source: str | Mapping[str, str]) -> Any:
    """Load a tokenizer of transformers.

    Args:
        source: folder or hub id, or what `pack_tokenizer` returned.

    Raises:
        ConfigError: there is none, or it has no token that padding could be.
    """
    from transformers import AutoTokenizer

    with unpacked(source) as place:
        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(place)
        except (OSError, TypeError, ValueError, KeyError) as error:
            raise ConfigError(
                f"`model.init_args.tokenizer: {place}` is no folder or id of a tokenizer that transformers can load: "
                f"{gist(error)}"
            ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise ConfigError(f"`model.init_args.tokenizer: {source}` has neither a token for padding nor one for the end.")
    return tokenizer


def pack_tokenizer(tokenizer: Any) -> dict[str, str] | None:
    """Return the files of a tokenizer as name -> content, plain values that a checkpoint can hold.

    Args:
        tokenizer: of transformers, or anything else that has its `save_pretrained` and writes text.

    Returns:
        None where it has no `save_pretrained`, as tokenizers that are a part of their library.

    Raises:
        ConfigError: it writes other files than text.
    """
    if not hasattr(tokenizer, "save_pretrained"):
        return None
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        try:
            return {file.name: file.read_text(encoding="utf-8") for file in sorted(Path(folder).iterdir())}
        except UnicodeDecodeError as error:
            raise ConfigError(
                "The tokenizer (`model.init_args.tokenizer`) has a binary file, which no checkpoint could hold; take "
                "one that has a `tokenizer.json`."
            ) from error


@contextmanager
def unpacked(source: str | Mapping[str, str]) -> Iterator[str]:
    """Give the folder or hub id of a tokenizer; packed files lie in a folder while the block runs.

    Raises:
        ConfigError: a packed file would lie elsewhere.

    Example:
        >>> with unpacked({"tokenizer.json": "{}"}) as folder:
        ...     print((Path(folder) / "tokenizer.json").read_text())
        {}
    """
    if isinstance(source, str):
        yield source
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, content in source.items():
            if Path(name).name != name:
                raise ConfigError(f"`model.init_args.tokenizer` holds a file {name!r}, which is no plain name.")
            (Path(folder) / name).write_text(content, encoding="utf-8")
        yield folder

"""What one synthesis is told to do, and how a yaml becomes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import ConfigError, MissingPathError
from datamodules.phrases import PhraseMatcher
from datamodules.synthetic_set import SyntheticSet
from datamodules.tables import Tables
from synth.captions import CaptionStrategy, NounPhraseRemoval
from synth.fills import Fill, TeleaFill
from synth.selection import SelectionConfig

if TYPE_CHECKING:
    from datamodules import RetrievalDataModule

MAX_CLASSES = 256
RUN = ".run"
"""Folder in the output that an unfinished set has and a finished one has not."""
SYNTHETIC_ID_BASE = 2**40


class Source(Protocol):
    """What the synthesis needs of a data module: its tables, what its captions name, and its images.

    `datamodules.matched.MatchedCaptions` has the methods that read captions, for a matcher of words. The methods return
    Any because jsonargparse, to accept a class, wants annotations that are equal, not compatible.
    """

    @property
    def tables(self) -> Tables:
        """Images, captions and objects; there after `prepare_data`."""

    @property
    def matcher(self) -> PhraseMatcher:
        """Finds the classes that a caption names."""

    @property
    def cache_dir(self) -> Path | None:
        """Folder for what is found once, see `datamodules.cache.cache_root`."""

    @property
    def max_unreadable(self) -> int:
        """How many images may be unreadable before the run stops."""

    def prepare_data(self) -> Any:
        """Read the annotation files."""

    def mentions(self) -> Any:
        """Return `[M, C]` bool, True where a caption names a class."""

    def phrases(self, rows: NDArray[np.int64]) -> Any:
        """Return the noun phrases of each of these captions of the data set."""

    def named(self, texts: Sequence[str], sources: NDArray[np.int64]) -> Any:
        """Return `[R, C]` bool for R new captions; `sources` has the caption rows that they were edited from, or -1."""

    def named_in(self, made: SyntheticSet, *, edited: bool) -> Any:
        """Return `[N, C]` bool for the captions of a finished set."""

    def read_image(self, row: int) -> Any:
        """Return the image of a row as a PIL image in RGB; raise `UnreadableImageError` if it is none."""


@dataclass(frozen=True)
class SynthesisConfig:
    """One synthesis: from a data set to a folder of counterfactual pairs and queries.

    Attributes:
        data: data set to read: a data module by its name, or whatever is a `Source` by its class path.
        output: folder to write; it is complete when it has a `protocol.json`.
        pairs: for each split to write with captions (for training), the splits of the data set that it comes from.
        queries: for each split to write without captions (for ODmAP), the splits that it comes from.
        selection: what may be removed.
        fill: what stands where an object stood.
        caption: what writes the captions of pairs.
        dilation: pixels by which every removed region grows on each side.
        feather: width in pixels of the band inside the region in which fill and source are blended; 0 is none.
        captions_per_image: `one` caption of an image, drawn by seed, gives a pair, or `all` that can give one each;
            they share an image where they lose the same classes.
        queries_per_image: `one` removal of an image, drawn by seed, gives a query, or `all` distinct ones do.
        seed: decides which classes, captions and images are drawn; the order and the workers do not.
        max_images: images to look at for each written split, drawn by seed; all by default.
        workers: processes that read images, and fill them where the fill needs no GPU; 0 works in the main process.
        batch_size: images that a fill or a captioner on a GPU takes at once.
        trainer: options of Lightning's Trainer for the stage that fills, such as `devices` and `num_nodes`.
    """

    data: RetrievalDataModule | Source
    output: Path
    pairs: dict[str, list[str]] = field(default_factory=dict)
    queries: dict[str, list[str]] = field(default_factory=dict)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    fill: Fill = field(default_factory=TeleaFill)
    caption: CaptionStrategy = field(default_factory=NounPhraseRemoval)
    dilation: int = 0
    feather: int = 0
    captions_per_image: Literal["one", "all"] = "one"
    queries_per_image: Literal["one", "all"] = "one"
    seed: int = 0
    max_images: int | None = None
    workers: int = 0
    batch_size: int = 8
    trainer: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        least = {"dilation": 0, "feather": 0, "seed": 0, "max_images": 1, "workers": 0, "batch_size": 1}
        for key, lowest in least.items():
            value = getattr(self, key)
            if value is not None and value < lowest:
                raise ConfigError(f"`{key}` is {value}; give {lowest} or more.")
        for key in ("captions_per_image", "queries_per_image"):
            if getattr(self, key) not in ("one", "all"):
                raise ConfigError(f"`{key}` is {getattr(self, key)!r}; give one or all.")
        if self.captions_per_image == "all" and self.caption.needs_image:
            raise ConfigError(
                f"`captions_per_image` is all, but {type(self.caption).__name__} of `caption` sees the image alone and "
                "would write the same for each; give one."
            )
        _check_splits(self.pairs, self.queries)

    @property
    def splits(self) -> dict[str, list[str]]:
        """The splits to write, with the splits of the data set that each comes from."""
        return {**self.pairs, **self.queries}


def _check_splits(pairs: dict[str, list[str]], queries: dict[str, list[str]]) -> None:
    if not pairs and not queries:
        raise ConfigError(
            "`pairs` and `queries` are both empty; name a split to write, as in `pairs: {train: [train]}`."
        )
    for name, sources in [*pairs.items(), *queries.items()]:
        if not name.replace("_", "").replace("-", "").isalnum():
            raise ConfigError(
                f"`pairs` or `queries` has a split {name!r}; it names a folder: use letters, digits, _ and -."
            )
        if not sources:
            raise ConfigError(f"Split `{name}` of `pairs` or `queries` comes from no split; list at least one.")
    if twice := sorted(pairs.keys() & queries.keys()):
        raise ConfigError(f"`pairs` and `queries` both write a split `{twice[0]}`; rename one.")


@contextmanager
def writing_to(output: Path) -> Iterator[None]:
    """Turn what the system says about a folder that cannot be written into a sentence about the config.

    Raises:
        ConfigError: the block met an OSError.
    """
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"`output` {output} cannot be written ({error.strerror or error}); make room or name another folder."
        ) from error


def check_output(output: Path) -> None:
    """Make sure that a folder can be written: it is missing, empty, or holds a set that a run began.

    Folders above a relative path are made. Those above an absolute path must be there: a missing one is more often a
    slip or a disk that is not mounted.

    Raises:
        MissingPathError: if a folder above an absolute path is missing.
        ConfigError: if something else lies there, or no folder can be made there.
    """
    if not output.is_absolute():
        with writing_to(output):
            output.parent.mkdir(parents=True, exist_ok=True)
    if not output.parent.is_dir():
        raise MissingPathError(
            f"`output` is {output}, but there is no folder {output.parent}; create it or mend the path."
        )
    if not output.exists() or (output / RUN).is_dir():
        return
    if not output.is_dir() or any(output.iterdir()):
        raise ConfigError(f"`output` is {output}, which exists and is no synthetic set; delete it or name another.")


def check_source(config: SynthesisConfig) -> None:
    """Make sure that a data set has what its config asks for.

    Raises:
        ConfigError: for a split that the data set lacks, a data set without boxes, or ids beyond the scheme.
    """
    tables = config.data.tables
    for name, sources in config.splits.items():
        for source in sources:
            if source not in tables.splits:
                known = ", ".join(tables.splits)
                raise ConfigError(f"Split `{name}` is to come from `{source}`, but the data set has {known}.")
    if not len(tables.categories):
        raise ConfigError("The data set of `data` has no boxes, so no object can be removed; name its annotation file.")
    ids = np.concatenate([tables.image_ids, tables.caption_ids])
    if len(tables.class_names) > MAX_CLASSES or ids.min() < 0 or ids.max() >= SYNTHETIC_ID_BASE:
        raise ConfigError(
            f"`data` needs image and caption ids from 0 to {SYNTHETIC_ID_BASE - 1} and up to {MAX_CLASSES} classes; it "
            f"has ids from {ids.min()} to {ids.max()} and {len(tables.class_names)} classes; number them anew."
        )


def load(arguments: Path | str | Sequence[str]) -> SynthesisConfig:
    """Read a synthesis from a yaml file, or from command line arguments.

    Args:
        arguments: path of a yaml, or arguments such as `["--config", "configs/synth/scenes.yaml", "--seed", "1"]`.

    Raises:
        SystemExit: after one sentence, if a key or a class is misspelled.
        UserError: if a value cannot work.
    """
    from cli import FriendlyParser
    from datamodules import CocoDataModule, Flickr30kDataModule, ScenesDataModule  # noqa: F401 (names for configs)

    if isinstance(arguments, (str, Path)):
        arguments = ["--config", str(arguments)]
    parser = FriendlyParser(
        prog="python -m synth",
        description="Make counterfactual image-text pairs from a data set.",
        epilog="Other commands: python -m synth {stats,sheet,detect} --help.",
    )
    parser.add_argument("--config", action="config", help="yaml with any of the keys below; later ones win")
    parser.add_class_arguments(SynthesisConfig)
    namespace = parser.parse_args(list(arguments))
    values = parser.instantiate(namespace).as_dict()
    del values["config"]
    return SynthesisConfig(**values)

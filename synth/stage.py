"""The fill stage: reads images, fills them, has captions written from them, and writes down each one that is done."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from datamodules.errors import AnnotationError, ConfigError, UnreadableImageError, UserError
from synth.captioning import checked, request
from synth.config import SynthesisConfig, writing_to
from synth.fills import Mask, NetworkFill, Pixels, feathered
from synth.plan import Plan
from synth.regions import region_mask
from synth.rules import Rule
from synth.shards import Outcome, Shard
from synth.workspace import shard_folder, whole

if TYPE_CHECKING:
    import torch
    from rich.progress import TaskID
    from torch.utils.data import DataLoader

    from synth.progress import Meter


@dataclass(frozen=True, slots=True)
class Unit:
    """One image to make, with the counterfactuals that share it.

    Attributes:
        split: the split to write.
        file_name: name of the image in the folder of the split.
        plans: counterfactuals of one source image and one removal.
    """

    split: str
    file_name: str
    plans: tuple[Plan, ...]


@dataclass(frozen=True)
class _Opened:
    """An image on its way: read, and filled where the fill needs no GPU."""

    unit: Unit
    image: Pixels
    mask: Mask
    filled: Pixels | None


@dataclass(frozen=True)
class _Failed:
    unit: Unit
    error: UserError


_Item: TypeAlias = _Opened | _Failed | tuple[Unit, Outcome]


@dataclass(frozen=True)
class _Work:
    """The images as a data set for a loader: to get one is to do what a worker process can do for it."""

    config: SynthesisConfig
    units: Sequence[Unit]

    def __len__(self) -> int:
        return len(self.units)

    def __getitem__(self, index: int) -> _Item:
        unit = self.units[index]
        try:
            opened = _open(self.config, unit)
            if self.config.fill.on_device or self.config.caption.needs_image:
                return opened
            return unit, _save(self.config, opened, [plan.text for plan in unit.plans])
        except UserError as error:  # returned, since a loader would bury its one sentence in a worker's traceback
            return _Failed(unit, error)


def _open(config: SynthesisConfig, unit: Unit) -> _Opened:
    tables, plan = config.data.tables, unit.plans[0]
    image = config.data.read_image(plan.row)
    size = (int(tables.widths[plan.row]), int(tables.heights[plan.row]))
    if image.size != size:
        raise AnnotationError(
            f"Image {tables.files[plan.row]} has {image.width} x {image.height} pixels, but its annotation says "
            f"{size[0]} x {size[1]}; mend the annotation file or the image."
        )
    opened = _Opened(unit, np.asarray(image), region_mask(plan.removal, size, config.dilation), None)
    return opened if config.fill.on_device else _fill(config, [opened])[0]


def _fill(config: SynthesisConfig, opened: Sequence[_Opened]) -> list[_Opened]:
    filled = config.fill.batch([each.image for each in opened], [each.mask for each in opened])
    return [
        _Opened(each.unit, each.image, each.mask, feathered(each.image, pixels, each.mask, config.feather))
        for each, pixels in zip(opened, filled, strict=True)
    ]


def _save(config: SynthesisConfig, opened: _Opened, answers: Sequence[str | Rule]) -> Outcome:
    """Write an image that a caption goes with; return what became of it.

    Args:
        config: the synthesis.
        opened: the image, filled.
        answers: for each of its plans, the new caption or the rule against it.
    """
    from PIL import Image

    unit = opened.unit
    named = dict(zip(_caption_ids(config, unit), answers, strict=True))
    texts = {key: answer for key, answer in named.items() if isinstance(answer, str)}
    if texts and opened.filled is not None:
        with writing_to(config.output), whole(config.output / unit.split / unit.file_name) as draft:
            Image.fromarray(opened.filled).save(draft, format="PNG")
    return Outcome(unit.file_name, texts, {key: rule for key, rule in named.items() if isinstance(rule, Rule)})


def _caption_ids(config: SynthesisConfig, unit: Unit) -> list[int]:
    ids = config.data.tables.caption_ids
    return [int(ids[plan.caption]) if plan.caption >= 0 else -1 for plan in unit.plans]


def check_unreadable(config: SynthesisConfig, rows: Collection[int], last: object = None) -> None:
    """End a run that cannot read more images than its data set allows.

    Raises:
        UnreadableImageError: it cannot; the text has `last`, the error of the last of them.
    """
    limit = config.data.max_unreadable
    if len(rows) > limit:
        raise UnreadableImageError(
            f"{len(rows)} images cannot be read, more than `max_unreadable` {limit} of `data` allows; replace the "
            f"files or raise the limit{'' if last is None else f'; the last is: {last}'}"
        )


@contextmanager
def workers_watched(config: SynthesisConfig) -> Iterator[None]:
    """Turn what a loader says of a worker process that was killed into a sentence about the config.

    Raises:
        ConfigError: one was, as the system does where memory runs out.
    """
    try:
        yield
    except RuntimeError as error:
        if not re.match(r"DataLoader worker \(pid.*(killed by signal|exited unexpectedly)", str(error)):
            raise
        also = "`workers` or `batch_size`" if config.fill.on_device or config.caption.needs_image else "`workers`"
        raise ConfigError(
            f"One of the processes that `workers` {config.workers} asks for was killed, most likely because memory ran "
            f"out; lower {also} and start the run again, and it goes on."
        ) from error


class Stage:
    """Makes images that are planned, on one of several ranks or alone; a context manager while it writes.

    Args:
        config: the synthesis.
        units: the images to make, of all ranks.
        unreadable: source images, by row, that an earlier run could not read.
        meter: where the progress is shown.
        bars: the task of each split on it.
    """

    def __init__(
        self,
        config: SynthesisConfig,
        units: Sequence[Unit],
        unreadable: set[int],
        meter: Meter,
        bars: Mapping[str, TaskID],
    ) -> None:
        self._config, self._units, self._unreadable = config, units, unreadable
        self._meter, self._bars = meter, bars
        self._shards: dict[str, Shard] = {}
        self._open = ExitStack()

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def on_device(self) -> bool:
        """Whether a network runs in this stage."""
        return self._config.fill.on_device or self._config.caption.needs_image

    def loader(self, rank: int, world: int) -> DataLoader[_Item]:
        """Return the loader of one rank's share: every image is in exactly one share, shares may differ by one."""
        import cv2
        from torch import Generator
        from torch.utils.data import DataLoader

        if self._config.workers:
            cv2.setNumThreads(1)  # a forked worker would wait for ever on OpenCV's threads, which live here alone
        return DataLoader(
            _Work(self._config, self._units[rank::world]),  # type: ignore[arg-type]  # a sequence will do
            batch_size=self._config.batch_size if self.on_device else 1,
            num_workers=self._config.workers,
            collate_fn=_as_it_is,
            generator=Generator(),  # its own: a run that makes its set first shall train like one that finds it
        )

    def start(self, rank: int, world: int, device: torch.device | str) -> None:
        """Open the shards of a rank, and move what computes to its device."""
        self._world = world
        with writing_to(self._config.output):
            for split in self._config.splits:
                shard = Shard(shard_folder(self._config.output, split), rank)
                self._open.callback(shard.close)
                self._shards[split] = shard
        self._threads = self._open.enter_context(ThreadPoolExecutor())  # which encode images beside each other
        if isinstance(self._config.fill, NetworkFill):
            self._config.fill.to(device)
        if self._config.caption.needs_image:
            self._config.caption.to(device)

    def step(self, batch: Sequence[_Item]) -> None:
        """Finish a batch of the loader and write down each image of it.

        Raises:
            UserError: an image does not fit its annotation, too many cannot be read, or the output cannot be written.
        """
        self._finish([item for item in batch if isinstance(item, _Opened)])
        for item in batch:
            if isinstance(item, _Failed):
                self._record(item.unit, self._tolerate(item))
            elif isinstance(item, tuple):
                self._record(*item)

    def _finish(self, opened: Sequence[_Opened]) -> None:
        if not opened:
            return
        import torch

        try:
            filled = _fill(self._config, opened) if self._config.fill.on_device else opened
            answers = self._answers(filled)
        except torch.OutOfMemoryError as error:
            size = self._config.batch_size
            raise ConfigError(f"The GPU has no memory for {size} images at once; lower `batch_size`.") from error
        saved = self._threads.map(_save, [self._config] * len(filled), filled, answers)
        for each, outcome in zip(filled, saved, strict=True):
            self._record(each.unit, outcome)

    def _answers(self, filled: Sequence[_Opened]) -> list[list[str | Rule]]:
        """Return the captions of each image: those planned, or written now and read by the data set."""
        config = self._config
        if not config.caption.needs_image:
            return [[plan.text for plan in each.unit.plans] for each in filled]
        pairs = [(each, plan) for each in filled for plan in each.unit.plans if plan.caption >= 0]
        texts = config.data.tables.texts
        asked = [request(config, plan, texts[plan.caption], image=each.filled) for each, plan in pairs]
        written = config.caption.write(asked) if asked else []
        read = iter(checked(config, [plan for _, plan in pairs], written))
        return [[next(read) if plan.caption >= 0 else "" for plan in each.unit.plans] for each in filled]

    def _tolerate(self, failed: _Failed) -> Outcome:
        """Name and count an unreadable image; any other error, or one too many, ends the run."""
        if not isinstance(failed.error, UnreadableImageError):
            raise failed.error
        self._unreadable.add(failed.unit.plans[0].row)
        check_unreadable(self._config, self._unreadable, failed.error)
        self._meter.say(str(failed.error))
        dropped = dict.fromkeys(_caption_ids(self._config, failed.unit), Rule.UNREADABLE)
        return Outcome(failed.unit.file_name, dropped=dropped)

    def _record(self, unit: Unit, outcome: Outcome) -> None:
        with writing_to(self._config.output):
            self._shards[unit.split].write(outcome)
        self._meter.advance(self._bars[unit.split], self._world)  # shown by one rank, which is as fast as the others


def _as_it_is(items: Any) -> Any:
    return items

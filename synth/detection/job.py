"""Runs a detector over images, and writes what it found as a COCO instances file."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.cache import hash_of
from datamodules.errors import ConfigError, UnreadableImageError
from synth import workspace
from synth.config import RUN, check_output, writing_to
from synth.detection.boxes import Record, instances, record
from synth.detection.config import DetectionConfig
from synth.detection.photos import Photo, Photos, find, opened
from synth.detection.report import Detected
from synth.progress import Meter


def detect(config: DetectionConfig) -> Detected:
    """Write the boxes of all images, go on with an unfinished run, or do nothing where the same file is there already.

    Boxes are cut at the border and written in pixels of the stored image, to the hundredth; those of no area, and those
    of a label that is no class, are dropped. What is found in a batch is on disk before the next one, in a folder
    `<output>.unfinished` that the end removes. A batch in which an image could not be read is looked at again by the
    next run.

    Returns:
        What was found.

    Raises:
        UserError: if the images, the captions, the detector or the output cannot be used as they are, or too many
            images cannot be read.
    """
    if not config.output.is_file():  # before anything is written beside it
        _check_file(config.output)
        _class_of(config)
    photos = find(config.images, config.captions, config.output)
    made_with = _identity(config, photos)
    if finished := _finished(config, made_with, photos):
        return finished
    class_of = _class_of(config)
    work = config.output.with_name(f"{config.output.name}.unfinished")
    with workspace.claimed(work):
        if finished := _finished(config, made_with, photos):
            return finished
        workspace.begin(work, made_with)
        records = _look(config, photos.photos, class_of, work / RUN / "batches.jsonl")
        workspace.write_whole(config.output, json.dumps(instances(config.class_names, made_with, records)))
        workspace.clear(work)
    return Detected.read(config.output, photos.karpathy, config.images)


def _identity(config: DetectionConfig, photos: Photos) -> dict[str, Any]:
    """Return as JSON everything that decides what the file holds."""
    detector = config.detector
    kind = type(detector)
    named = {
        "detector": {
            "class_path": f"{kind.__module__}.{kind.__qualname__}",
            "version": detector.version,
            **detector.identity(),
        },
        "images": {"number": len(photos.photos), "hash": hash_of(photos.photos)},
        "classes": hash_of(config.class_names),
        "renamed": config.renamed,
        "batch_size": config.batch_size,
    }
    plain: dict[str, Any] = json.loads(json.dumps(named, default=str))
    return plain


def _finished(config: DetectionConfig, made_with: dict[str, Any], photos: Photos) -> Detected | None:
    """Return what an earlier run of this config found, None where none has ended.

    Raises:
        ConfigError: if the output was made otherwise, or is no file of this command.
    """
    if not config.output.is_file():
        return None
    try:
        found = Detected.read(config.output, photos.karpathy, config.images)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"`output` {config.output} is there, but was not written by this command; delete it or name another."
        ) from error
    if told := workspace.difference(found.made_with, made_with):
        raise ConfigError(f"`output` {config.output} was made with {told}; name another `output` or delete that file.")
    return found


def _check_file(output: Path) -> None:
    """Make sure before a long run that a file can be written at its end.

    Raises:
        MissingPathError: if a folder above an absolute path is missing.
        ConfigError: if a folder lies there.
    """
    if output.is_dir():
        raise ConfigError(f"`output` is {output}, which is a folder; name the json file to write in it.")
    check_output(output)


def _class_of(config: DetectionConfig) -> NDArray[np.int64]:
    """Load the detector; return `[L]`, for each of its labels the class that is called so, -1 where none is."""
    config.detector.load()
    labels, names = list(config.detector.labels), config.class_names
    for what, wanted, known in (("label", config.renamed.keys(), labels), ("class", config.renamed.values(), names)):
        for name in wanted:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=2)
                hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known[:3])}, ..."
                raise ConfigError(f"`renamed` has a {what} {name!r}, which there is not; {hint}")
    numbers = {_plain(name): number for number, name in enumerate(names)}
    classes = [numbers.get(_plain(config.renamed.get(label, label)), -1) for label in labels]
    if max(classes, default=-1) < 0:
        raise ConfigError(
            f"None of the {len(labels)} labels of `detector` ({', '.join(labels[:3])}, ...) is one of the {len(names)} "
            f"classes of `matcher` ({', '.join(names[:3])}, ...); say with `renamed` which class each label is."
        )
    return np.array(classes)


def _plain(name: str) -> str:
    """Return a name without what detectors write differently.

    Example:
        >>> _plain("Dining_Table") == _plain("dining table")
        True
    """
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split())


def _look(config: DetectionConfig, photos: Sequence[Photo], class_of: NDArray[np.int64], log: Path) -> list[Record]:
    """Look at the batches that the log has not yet, write each down, and return the records of all, in order."""
    batches = [photos[start : start + config.batch_size] for start in range(0, len(photos), config.batch_size)]
    done = _logged(log)
    todo = [(number, batch) for number, batch in enumerate(batches) if number not in done]
    unreadable: list[str] = []
    with Meter() as meter, ExitStack() as files:
        with writing_to(config.output):
            file = files.enter_context(log.open("a", encoding="utf-8"))
        bar = meter.add("detect", len(photos), len(photos) - sum(len(batch) for _, batch in todo))
        for number, read in opened(config.images, todo, config.workers):
            done[number] = record(config.detector, batches[number], read, class_of)
            with writing_to(config.output):
                file.write(json.dumps({"batch": number, **done[number]}) + "\n")
                file.flush()
            _tolerate(config, unreadable, done[number]["unreadable"], meter)
            meter.advance(bar, len(read))
    return [done[number] for number in range(len(batches))]


def _logged(log: Path) -> dict[int, Record]:
    """Return the batches that an earlier run has finished, and cut off a line that was torn when it was killed."""
    if not log.exists():
        return {}
    whole, _, _ = log.read_bytes().rpartition(b"\n")
    with writing_to(log):
        os.truncate(log, len(whole) + 1 if whole else 0)
    records = []
    for line in whole.splitlines():
        with suppress(ValueError):  # a crash of the whole machine can leave zeros in the middle
            records.append(json.loads(line))
    return {record.pop("batch"): record for record in records if not record["unreadable"]}


def _tolerate(config: DetectionConfig, unreadable: list[str], new: Mapping[str, str], meter: Meter) -> None:
    """Name and count images that cannot be read.

    Raises:
        UnreadableImageError: there are more of them than may be.
    """
    unreadable += new
    for error in new.values():
        meter.say(error)
    if len(unreadable) > config.max_unreadable:
        raise UnreadableImageError(
            f"{len(unreadable)} images of `images` {config.images} cannot be read, more than `max_unreadable` "
            f"{config.max_unreadable} allows; replace the files or raise the limit; the first are "
            f"{', '.join(unreadable[:5])}."
        )

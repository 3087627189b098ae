"""One image of Flickr30k Entities: its sentences and its boxes, which speak of the same chains."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from datamodules.entities.annotations import Annotation, read_annotation
from datamodules.entities.sentences import UNANNOTATED, Sentence, read_sentences
from datamodules.errors import AnnotationError, MissingPathError
from datamodules.sources import existing_folder

_FOLDERS = {"Sentences": ".txt", "Annotations": ".xml"}


class Record(NamedTuple):
    """The annotation of one image."""

    sentences: list[Sentence]
    annotation: Annotation


def record_files(entities: Path, name: str | None = None) -> list[str]:
    """Return the files of an image, sentences and annotation, or those of all images that are there, in order.

    Args:
        entities: folder of the data set; the files are relative to it.
        name: file name of the image without its ending.

    Raises:
        MissingPathError: files of all images are asked for, and one of the two folders is not there or has none.
    """
    if name is not None:
        return [f"{folder}/{name}{ending}" for folder, ending in _FOLDERS.items()]
    found = []
    for folder, ending in _FOLDERS.items():
        names = sorted(os.listdir(existing_folder(entities / folder, "entities")))
        files = [f"{folder}/{each}" for each in names if each.endswith(ending)]
        if not files:
            where = (entities / folder).absolute()
            raise MissingPathError(f"{where} (config key `entities`) holds no *{ending}: unpack annotations.zip there.")
        found += files
    return found


def read_record(entities: Path, name: str, captions: int, *, strict: bool) -> Record:
    """Read and check one image.

    Args:
        entities: folder of the data set.
        name: file name of the image without its ending.
        captions: how many captions the image has elsewhere.
        strict: whether sentences and boxes must speak of the same chains.

    Raises:
        AnnotationError: a file is broken, or the two contradict each other or the number of captions.
    """
    text, xml = (entities / file for file in record_files(entities, name))
    sentences = read_sentences(text)
    if len(sentences) != captions:
        raise AnnotationError(
            f"{text.absolute()} (config key `entities`) has {len(sentences)} lines, but the image has {captions} "
            "captions (config key `karpathy`): take both files of the same release."
        )
    record = Record(sentences, read_annotation(xml))
    if strict:
        _check_chains(record, text, xml)
    return record


def _check_chains(record: Record, text: Path, xml: Path) -> None:
    """Compare the chains of both files."""
    mend = "mend the file, or set `strict_chains` to false where a part of the annotation is known to be missing."
    boxed = {chain for one in record.annotation.objects for chain in one.chains}
    said = {entity.chain for sentence in record.sentences for entity in sentence.entities}
    for number, sentence in enumerate(record.sentences, 1):
        for entity in sentence.entities:
            if entity.chain not in {*boxed, UNANNOTATED}:
                phrase = sentence.text[entity.start : entity.end]
                raise AnnotationError(
                    f"{text.absolute()} (config key `entities`), line {number}: the chain {entity.chain} of {phrase!r} "
                    f"is not in {xml.absolute()}: {mend}"
                )
    for one in record.annotation.objects:
        for chain in one.chains:
            if chain not in said - {UNANNOTATED}:
                raise AnnotationError(
                    f"{xml.absolute()} (config key `entities`), line {one.line}: an object has the chain {chain}, "
                    f"which is in no line of {text.absolute()}: {mend}"
                )


def types_of_chains(sentences: list[Sentence]) -> dict[int, set[str]]:
    """Return the types of each chain, all that any of the sentences gives it.

    Example:
        >>> from datamodules.entities.sentences import parse_sentence
        >>> lines = "[/EN#1/people A man] runs", "[/EN#1/other One] of [/EN#0/notvisual them] runs"
        >>> found = types_of_chains([parse_sentence(line) for line in lines])
        >>> {chain: sorted(types) for chain, types in found.items()}
        {1: ['other', 'people']}
    """
    found: dict[int, set[str]] = {}
    for sentence in sentences:
        for entity in sentence.entities:
            if entity.chain != UNANNOTATED:
                found.setdefault(entity.chain, set()).update(entity.types)
    return found

"""From a Karpathy json, Flickr30k Entities and a folder of images to tables and annotated phrases."""

from __future__ import annotations

import os
from array import array
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.cache import cache_root, content_hash, contents_hash, hash_of
from datamodules.entities.annotations import Object
from datamodules.entities.phrases import AnnotatedPhrases
from datamodules.entities.record import Record, read_record, record_files, types_of_chains
from datamodules.entities.unrelated import Unrelated
from datamodules.errors import MissingPathError
from datamodules.image_files import Listing, locate
from datamodules.karpathy import KarpathyColumns, read_karpathy
from datamodules.parsed_once import Columns, parsed_once
from datamodules.sources import existing_file, existing_folder
from datamodules.tables import Tables

VERSION = 2
"""Changes whenever the same files would give other tables or phrases."""

_EVALUATED = ("val", "test")


def read_entities(
    karpathy: Path,
    entities: Path,
    image_root: Path,
    class_names: Sequence[str],
    unrelated: Path | None = None,
    cache_dir: Path | None = None,
    *,
    strict: bool = True,
) -> tuple[Tables, AnnotatedPhrases]:
    """Return the tables of Flickr30k and the annotated phrases of its captions.

    Images, splits and ids are those of Karpathy's file; the captions are the sentences of Flickr30k Entities without
    their brackets, to whose characters the phrases refer. An object is a box with one of the classes: a box of several
    chains, or of a chain that is called different things in different sentences, is an object of each of the classes.

    The first call parses and writes tables and phrases below the cache folder, under names that are the hash of the
    files' content, the class names and `VERSION`; later calls map the tables.

    Args:
        karpathy: json in the layout of `dataset_flickr30k.json`.
        entities: folder with `Sentences/NAME.txt` and `Annotations/NAME.xml` for each image `NAME.jpg`.
        image_root: folder of the images.
        class_names: types that are classes, at most 8; position = class index.
        unrelated: list of captions that do not describe their image, see `Unrelated`. They are left out, but for those
            of the splits val and test, where recall counts them as published figures do; these name no class. None of
            them says what a box is.
        cache_dir: cache folder, see `cache.cache_root`.
        strict: whether sentences and boxes must speak of the same chains; otherwise a chain may lack boxes or phrases.

    Raises:
        MissingPathError: a file, folder, record or image is not there.
        AnnotationError: a file is broken or contradicts itself or another.
        ConfigError: the cache folder cannot be written.
    """
    root = existing_folder(image_root, "image_root").resolve()
    sources = [existing_file(karpathy, "karpathy")]
    sources += [] if unrelated is None else [existing_file(unrelated, "unrelated")]
    cache = cache_root(cache_dir)
    hashes = [content_hash(path, cache) for path in sources]
    records = record_files(entities)  # by name as well: which image a record is of is said by nothing else
    hashes.append(hash_of(records, contents_hash(entities, records, cache)))
    fingerprint = hash_of("entities", VERSION, list(class_names), strict, hashes)
    phrases = cache / "phrases" / f"{fingerprint}.npz"
    parse = partial(_parse, karpathy, entities, root, class_names, unrelated, phrases, strict)
    tables = parsed_once(parse, cache, fingerprint, root, class_names, [phrases])
    return tables, AnnotatedPhrases.load(phrases)


def _parse(
    karpathy: Path,
    entities: Path,
    root: Path,
    class_names: Sequence[str],
    unrelated: Path | None,
    phrases: Path,
    strict: bool,
) -> Columns:
    """Return the columns of the tables, and write the annotated phrases."""
    read, listed = read_karpathy(karpathy, coco_ids=False), Unrelated(unrelated)
    files = locate(root, read.folders, read.names, read.image_ids)
    names = [os.path.splitext(name)[0] for name in read.names]
    _require_records(entities, names)
    collected = _Collected({name: index for index, name in enumerate(class_names)})
    counts = np.bincount(read.caption_images).tolist()
    for name, count, code in zip(names, counts, read.split_codes.tolist(), strict=True):
        record = read_record(entities, name, count, strict=strict)
        collected.add(record, listed.of(name, count), drop=read.splits[code] not in _EVALUATED)
    collected.phrases().save(phrases)
    return collected.columns(read, files)


def _require_records(entities: Path, names: Sequence[str]) -> None:
    listing = Listing(entities)
    files = [file for name in names for file in record_files(entities, name)]
    lost = [file for file in files if file not in listing]
    if lost:
        raise MissingPathError(
            f"{len(lost)} of the {len(files)} files that the images (config key `karpathy`) need are not below "
            f"{entities.absolute()} (config key `entities`), first {lost[0]}: unpack all of annotations.zip there."
        )


@dataclass
class _Collected:
    """The columns of captions, phrases and objects in the making, image by image."""

    classes: dict[str, int]
    sizes: list[tuple[int, int]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    caption_images: array[int] = field(default_factory=lambda: array("q"))
    kept: array[int] = field(default_factory=lambda: array("b"))
    offsets: array[int] = field(default_factory=lambda: array("q", [0]))
    starts: array[int] = field(default_factory=lambda: array("i"))
    ends: array[int] = field(default_factory=lambda: array("i"))
    masks: array[int] = field(default_factory=lambda: array("B"))
    object_images: array[int] = field(default_factory=lambda: array("q"))
    categories: array[int] = field(default_factory=lambda: array("h"))
    boxes: array[float] = field(default_factory=lambda: array("d"))

    def add(self, record: Record, unrelated: Collection[int], *, drop: bool) -> None:
        """Add an image; its unrelated captions are dropped, or else stay and have no phrases."""
        image = len(self.sizes)
        for index, sentence in enumerate(record.sentences):
            odd = index in unrelated
            self.kept.append(not (odd and drop))
            if odd and drop:
                continue
            for entity in () if odd else sentence.entities:
                self.starts.append(entity.start)
                self.ends.append(entity.end)
                self.masks.append(sum(1 << index for index in self._classes(entity.types)))
            self.texts.append(sentence.text)
            self.caption_images.append(image)
            self.offsets.append(len(self.masks))
        related = [sentence for index, sentence in enumerate(record.sentences) if index not in unrelated]
        self._add_objects(record.annotation.objects, types_of_chains(related), image)
        self.sizes.append((record.annotation.width, record.annotation.height))

    def _add_objects(self, objects: Sequence[Object], types: Mapping[int, set[str]], image: int) -> None:
        for one in objects:
            named = self._classes(set().union(*(types.get(chain, ()) for chain in one.chains)))
            for box in one.boxes:
                for category in named:
                    self.object_images.append(image)
                    self.categories.append(category)
                    self.boxes.extend(box)

    def _classes(self, types: Collection[str]) -> list[int]:
        return sorted({self.classes[name] for name in types if name in self.classes})

    def phrases(self) -> AnnotatedPhrases:
        """Return the phrases of the captions that were kept."""
        columns = (np.array(column) for column in (self.offsets, self.starts, self.ends, self.masks))
        return AnnotatedPhrases(*columns)

    def columns(self, read: KarpathyColumns, files: list[str]) -> Columns:
        """Return the columns of the tables."""
        sizes = np.array(self.sizes, np.int32)
        images = {"image_id": read.image_ids, "file": files, "split": read.split_codes}
        caption_ids = read.caption_ids[np.array(self.kept, np.bool_)]
        objects: dict[str, Any] = {
            "image": np.array(self.object_images),
            "category": np.array(self.categories),
            "box": np.array(self.boxes),
            "crowd": np.zeros(len(self.categories), np.uint8),
            "segmentation": [""] * len(self.categories),
        }
        return Columns(
            images=images | {"width": sizes[:, 0], "height": sizes[:, 1]},
            captions={"caption_id": caption_ids, "image": np.array(self.caption_images), "text": self.texts},
            objects=objects,
            splits=read.splits,
        )

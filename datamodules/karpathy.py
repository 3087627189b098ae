"""Captions and splits from a json in the layout of Karpathy's `dataset_coco.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import AnnotationError
from datamodules.sources import column, integers, is_text, parsing, require_unique, strings

_LAYOUT = (
    'expected is {"images": [{"filepath", "filename", "cocoid", "split", "sentences": [{"raw", "sentid"}, ...]}, ...]}'
)


@dataclass(frozen=True)
class KarpathyColumns:
    """N images and M captions in the order of the file.

    Attributes:
        image_ids: `[N]` COCO ids.
        folders: N folders relative to the image root, "" where the file names none.
        names: N file names.
        splits: names of the splits in the order in which they appear.
        split_codes: `[N]` index into `splits`.
        caption_ids: `[M]` ids.
        caption_images: `[M]` image row, ascending.
        texts: M captions as written.
    """

    image_ids: NDArray[np.int64]
    folders: list[str]
    names: list[str]
    splits: tuple[str, ...]
    split_codes: NDArray[np.int16]
    caption_ids: NDArray[np.int64]
    caption_images: NDArray[np.int64]
    texts: list[str]


def read_karpathy(path: Path, *, coco_ids: bool) -> KarpathyColumns:
    """Read and check the file.

    Args:
        path: the json.
        coco_ids: images must carry `cocoid`, because boxes refer to it; otherwise `imgid` will do (Flickr30k).

    Raises:
        AnnotationError: the json is broken, of another layout, or contradicts itself.
    """
    images = _images(path)
    image = f"{path.absolute()}: image"
    id_key = "cocoid" if coco_ids or "cocoid" in images[0] else "imgid"
    image_ids = integers(column(images, id_key, image), f"{image} ids")
    require_unique(image_ids, f"{image} id")
    splits = strings(column(images, "split", image), f"{image} splits")
    codes = {name: code for code, name in enumerate(dict.fromkeys(splits))}
    caption_images, sentences = _sentences(images, image_ids, path)
    caption_ids = _caption_ids(sentences, path)
    return KarpathyColumns(
        image_ids=image_ids,
        folders=[str(entry.get("filepath") or "") for entry in images],
        names=strings(column(images, "filename", image), f"{image} file names"),
        splits=tuple(codes),
        split_codes=np.array([codes[name] for name in splits], np.int16),
        caption_ids=caption_ids,
        caption_images=caption_images,
        texts=_texts(sentences, caption_ids, image_ids[caption_images], path),
    )


def _images(path: Path) -> list[dict[str, Any]]:
    with parsing(path, "karpathy"), path.open(encoding="utf-8") as file:
        data = json.load(file)
    images = data.get("images") if isinstance(data, Mapping) else None
    if not isinstance(images, list) or not images:
        raise AnnotationError(
            f"{path.absolute()} (config key `karpathy`) has no list of images under the key `images`: {_LAYOUT}."
        )
    for key in ("filename", "split", "sentences"):
        if not isinstance(images[0], Mapping) or key not in images[0]:
            raise AnnotationError(
                f"{path.absolute()} (config key `karpathy`) is not in Karpathy's layout, its first image lacks the key "
                f"`{key}`: {_LAYOUT}."
            )
    return images


def _sentences(
    images: Sequence[Mapping[str, Any]], image_ids: NDArray[np.int64], path: Path
) -> tuple[NDArray[np.int64], list[Any]]:
    groups = column(images, "sentences", f"{path.absolute()}: image")
    for image_id, group, entry in zip(image_ids, groups, images, strict=True):
        if not isinstance(group, list) or not group:
            raise AnnotationError(
                f"{path.absolute()}: image {image_id} has no caption (key `sentences`): add one or remove the image."
            )
        own = entry.get("imgid")
        if any(isinstance(s, Mapping) and s.get("imgid", own) != own for s in group):
            raise AnnotationError(
                f"{path.absolute()}: image {image_id} (`imgid` {own}) holds a caption whose `imgid` is another: move "
                "the caption to its image or mend its `imgid`."
            )
    counts = [len(group) for group in groups]
    return np.repeat(np.arange(len(images)), counts), list(chain.from_iterable(groups))


def _caption_ids(sentences: Sequence[Any], path: Path) -> NDArray[np.int64]:
    """Return the `sentid` of every caption, or running numbers where the file has none."""
    if not any(isinstance(sentence, Mapping) and "sentid" in sentence for sentence in sentences):
        return np.arange(len(sentences))
    caption = f"{path.absolute()}: caption"
    ids = integers(column(sentences, "sentid", caption), f"{caption} ids")
    require_unique(ids, f"{caption} id")
    return ids


def _texts(
    sentences: Sequence[Any], caption_ids: NDArray[np.int64], image_ids: NDArray[np.int64], path: Path
) -> list[str]:
    texts = column(sentences, "raw", f"{path.absolute()}: caption")
    for row, text in enumerate(texts):
        if not is_text(text):
            raise AnnotationError(
                f"{path.absolute()}: caption {caption_ids[row]} of image {image_ids[row]} has no text, or one with "
                f"half a character (key `raw`, {text!r:.80}): write it or remove the caption."
            )
    return texts

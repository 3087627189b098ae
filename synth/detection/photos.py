"""Which images a detection looks at, the ids by which boxes refer to them, and their pixels."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np

from datamodules.errors import AnnotationError, ConfigError, MissingPathError, UnreadableImageError
from datamodules.image_files import locate
from datamodules.karpathy import read_karpathy
from datamodules.sources import existing_file, existing_folder
from synth.detection.captions import karpathy_file, numbered
from synth.fills import Pixels

Read: TypeAlias = Pixels | UnreadableImageError
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}


class Photo(NamedTuple):
    """An image file.

    Attributes:
        image_id: its id.
        file: its path below the folder of images, with slashes.
    """

    image_id: int
    file: str


class Photos(NamedTuple):
    """The images to look at, and the file that has their captions and splits.

    Attributes:
        photos: the images in the order of that file, or by name where there is none.
        karpathy: a json in Karpathy's layout that a data module reads; None without captions.
    """

    photos: list[Photo]
    karpathy: Path | None


def find(images: Path, captions: Path | None, output: Path) -> Photos:
    """Return the images of a data set.

    Captions that no data module reads as they are, a table or a json without COCO's ids, are written in Karpathy's
    layout beside the output.

    Args:
        images: folder of the images.
        captions: see `DetectionConfig`; None for all images below the folder.
        output: the instances file that is to be written.

    Raises:
        MissingPathError: a file, folder or image is not there.
        AnnotationError: the captions are broken or contradict themselves.
        ConfigError: the folder holds no image, or the captions cannot be written.
    """
    root = existing_folder(images, "images").resolve()
    if captions is None:
        return Photos(_all(root), None)
    with _own_keys():
        karpathy = karpathy_file(existing_file(captions, "captions"), root, output)
        read = read_karpathy(karpathy, coco_ids=True)
        files = locate(root, read.folders, read.names, read.image_ids)
    return Photos(list(map(Photo, read.image_ids.tolist(), files)), karpathy)


@contextmanager
def _own_keys() -> Iterator[None]:
    """Let errors of the readers name the options of this command, which are called otherwise than a data module's."""
    try:
        yield
    except (AnnotationError, MissingPathError) as error:
        text = str(error).replace("`karpathy`", "`captions`").replace("`image_root`", "`images`")
        raise type(error)(text) from error


def _all(root: Path) -> list[Photo]:
    paths = (path for path in root.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
    files = sorted(path.relative_to(root).as_posix() for path in paths)
    if not files:
        raise ConfigError(f"`images` is {root}, which holds no image ({', '.join(sorted(_SUFFIXES))}); mend the path.")
    return list(map(Photo, numbered(files), files))


def opened(
    images: Path, batches: Iterable[tuple[int, Sequence[Photo]]], workers: int
) -> Iterator[tuple[int, list[Read]]]:
    """Yield the pixels of each numbered batch of images, or why one cannot be read, and read on meanwhile.

    Args:
        images: folder of the images.
        batches: numbers and images.
        workers: threads that read.
    """
    with ThreadPoolExecutor(workers) as pool:
        coming: deque[tuple[int, list[Future[Read]]]] = deque()
        for number, batch in batches:
            coming.append((number, [pool.submit(_open, images / photo.file) for photo in batch]))
            if len(coming) > 1:
                yield _arrived(*coming.popleft())
        while coming:
            yield _arrived(*coming.popleft())


def _arrived(number: int, coming: Sequence[Future[Read]]) -> tuple[int, list[Read]]:
    return number, [future.result() for future in coming]


def _open(path: Path) -> Read:
    from datamodules.images import open_rgb

    try:
        return np.asarray(open_rgb(path))
    except UnreadableImageError as error:
        return error

"""Read images as RGB; count, name and survive those that cannot be read, up to a limit."""

from __future__ import annotations

import struct
import warnings
import zlib
from hashlib import blake2b
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datamodules.errors import ConfigError, UnreadableImageError

_NAMED = 5
_WIDTH = 1024
# What Pillow's decoders raise for files that are missing, cut short, corrupt or far too large.
_FAILURES = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


def open_rgb(path: Path) -> Image.Image:
    """Return the decoded image in RGB, whatever its mode (grey, palette, CMYK, with alpha).

    An EXIF orientation is not applied: COCO's boxes and sizes refer to the pixels as stored.

    Raises:
        UnreadableImageError: the file is missing, empty, cut short or no image.
    """
    try:
        with Image.open(path) as image:
            return _of_8_bits(image).convert("RGB")
    except _FAILURES as error:
        raise UnreadableImageError(f"Image {path} cannot be read ({error}): replace the file.") from error


def _of_8_bits(image: Image.Image) -> Image.Image:
    """Return grey of 16 bits by its upper 8, since `convert` would make white of all from 255; others as they are."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))


class Reader(Protocol):
    """Reads what a processor takes of each image: the image itself, or features that were computed of it."""

    @property
    def exceeded(self) -> bool:
        """Whether so much cannot be read that the run has to stop."""

    def expect(self, image_ids: NDArray[np.int64], /) -> None:
        """Refuse images, before any is read, that are known to be missing."""

    def read(self, path: Path, image_id: int, /) -> Any:
        """Return what the processor takes, or None where it cannot be read."""

    def check(self) -> None:
        """Stop the run where too much cannot be read."""


class ImageReader:
    """Reads images and tolerates `max_unreadable` files that cannot be read.

    The count is shared by all loader workers of a process, forked or spawned, and a file counts once however often it
    is drawn. A worker never raises: the process that iterates the loader calls `check`, so that the user sees one
    sentence and no traceback of a worker.

    Args:
        max_unreadable: how many distinct files may be unreadable before `check` raises.

    Raises:
        ConfigError: `max_unreadable` is negative.
    """

    def __init__(self, max_unreadable: int) -> None:
        if max_unreadable < 0:
            raise ConfigError(f"max_unreadable is {max_unreadable}: give 0 or more images (key `max_unreadable`).")
        self.max_unreadable = max_unreadable
        context = get_context("spawn")  # its locks and memory also survive a fork; those of "fork" refuse a spawn
        self._keys = context.Array("Q", max_unreadable + 1)
        self._names = context.Array("c", _NAMED * _WIDTH, lock=False)
        self._count = context.Value("i", 0, lock=False)
        self._known: set[Path] = set()

    def expect(self, image_ids: NDArray[np.int64]) -> None:
        """Do nothing: whether a file can be read is seen when it is read."""

    def read(self, path: Path, image_id: int | None = None) -> Image.Image | None:
        """Return the image in RGB, or None, with a warning that names the file, where it cannot be read."""
        if path in self._known:
            return None
        try:
            return open_rgb(path)
        except UnreadableImageError as error:
            self._known.add(path)
            if self._note(path):
                limit = f"{self.unreadable} of at most {self.max_unreadable} (key `max_unreadable`)"
                warnings.warn(f"{error} Unreadable so far: {limit}.", stacklevel=2)
            return None

    def _note(self, path: Path) -> bool:
        """Count the file unless another worker has; beyond one more than the limit nothing changes."""
        name = str(path).encode()
        key = int.from_bytes(blake2b(name, digest_size=8).digest())
        with self._keys.get_lock():
            count = self._count.value
            if count > self.max_unreadable or key in self._keys[:count]:
                return False
            self._keys[count] = key
            if count < _NAMED:
                self._names[count * _WIDTH : (count + 1) * _WIDTH] = name[-_WIDTH:].ljust(_WIDTH, b"\0")
            self._count.value = count + 1
        return True

    @property
    def unreadable(self) -> int:
        """Number of distinct files that could not be read so far."""
        return int(self._count.value)

    @property
    def exceeded(self) -> bool:
        """Whether more files than allowed could not be read."""
        return self.unreadable > self.max_unreadable

    def check(self) -> None:
        """Stop the run where too many files could not be read.

        Raises:
            UnreadableImageError: the limit is exceeded; the text names the count, the first files and the key.
        """
        if not self.exceeded:
            return
        named = range(min(self.unreadable, _NAMED))
        names = [self._names[i * _WIDTH : (i + 1) * _WIDTH].rstrip(b"\0").decode(errors="replace") for i in named]
        raise UnreadableImageError(
            f"{self.unreadable} image(s) cannot be read, more than the {self.max_unreadable} that key `max_unreadable` "
            f"allows: replace the files or raise the limit; the first are {', '.join(names)}."
        )

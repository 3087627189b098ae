"""The list of captions that do not describe their image (`UNRELATED_CAPTIONS` of Flickr30k Entities)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from datamodules.errors import AnnotationError

_ENDINGS = (".jpg", ".jpeg", ".png")  # a file name would be that of no image, and its line would do nothing


class Unrelated:
    """Captions that do not describe their image.

    Args:
        path: a file with an image and the number of a sentence, counted from 1, on each line, and comments behind #;
            None for no such captions.

    Raises:
        AnnotationError: a line is of another form, or the file is not text.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lines: dict[str, dict[int, int]] = {}
        for line, text in enumerate([] if path is None else _lines(path), 1):
            words = text.split()
            if not words or words[0].startswith("#"):
                continue
            if len(words) != 2 or not words[1].isdecimal() or int(words[1]) < 1 or words[0].lower().endswith(_ENDINGS):
                wanted = "the name of an image, without its ending, and the number of a sentence, from 1"
                raise self._fault(line, f"{text!r} is not {wanted}")
            self._lines.setdefault(words[0], {})[int(words[1]) - 1] = line

    def of(self, name: str, sentences: int) -> Mapping[int, int]:
        """Return the unrelated captions of an image, counted from 0, each with its line in the file.

        Args:
            name: file name of the image without its ending.
            sentences: how many sentences the image has.

        Raises:
            AnnotationError: the file names a sentence that the image has not.
        """
        found = self._lines.get(name, {})
        for index, line in found.items():
            if index >= sentences:
                raise self._fault(line, f"image {name} has {sentences} sentences, not {index + 1}")
        return found

    def _fault(self, line: int, what: str) -> AnnotationError:
        path = None if self._path is None else self._path.absolute()
        return AnnotationError(f"{path} (config key `unrelated`), line {line}: {what}: mend or remove the line.")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise AnnotationError(
            f"{path.absolute()} (config key `unrelated`) is not text: set the file UNRELATED_CAPTIONS of Flickr30k "
            "Entities."
        ) from error

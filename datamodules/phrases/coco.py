"""COCO's 80 classes."""

from __future__ import annotations

from pathlib import Path

from datamodules.phrases.chunkers import Chunker
from datamodules.phrases.matcher import WordListMatcher


class CocoMatcher(WordListMatcher):
    """Finds the noun phrases of captions and the classes of COCO that they name, by the list in `coco_words.yaml`.

    Args:
        chunker: cuts captions into words and noun chunks; spaCy's by default.

    Example:
        >>> matcher = CocoMatcher()
        >>> caption = "Two dogs fighting over a frisbee"
        >>> for start, end, classes in matcher.phrases([caption])[0]:
        ...     print(caption[start:end], [matcher.class_names[index] for index in classes])
        Two dogs ['dog']
        a frisbee ['frisbee']
    """

    def __init__(self, chunker: Chunker | None = None) -> None:
        super().__init__(Path(__file__).with_name("coco_words.yaml"), chunker)

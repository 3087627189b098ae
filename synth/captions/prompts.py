"""Prompts: "a photo of a dog and a cat" for whatever classes are left (paper, section 3.3)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np

from datamodules.errors import ConfigError, MissingPathError
from synth.captions.base import CaptionRequest, CaptionStrategy
from synth.captions.grammar import has_no_singular, number_word, plural, with_article
from synth.rules import Rule

_IMAGENET = "imagenet"
_LINK = r"(?:of|with|in|on|at|by|from|for|that|which|is|are|shows|\w+ing)\b"  # what no adjective looks like
_SLOT = re.compile(
    rf"(?P<before>(?:.*[^\w-])?)(?P<determiner>a|an|the|my|one|many) (?P<adjectives>(?:(?!{_LINK})[\w-]+ )*)(?=\{{\}})",
    re.IGNORECASE,
)

_MISREAD = (
    *("sculpture", "drawing", "painting", "sketch"),  # of a dog: no dog is there
    *("plastic", "origami", "toy", "cartoon"),  # dog: no dog either, and a toy bear is a teddy bear
    *("plushie", "hard to see"),  # a teddy bear beside what is meant; "see orange" is a colour
)


class PromptCaptions(CaptionStrategy):
    """Names the kept classes in a template, drawn among many by the seed of the pair.

    The template says which determiner each name gets: "a photo of a {}" makes "a photo of a dog and an apple", "the
    toy {}" makes "the toy dog and the apple", and "A photo of {}" makes "A photo of dog and apple", as the paper prints
    it. "a" becomes "an" where it must; "scissors", "broccoli" and "people" go without; "many" takes plurals.

    Args:
        templates: "imagenet" for CLIP's 80 templates, which open_clip holds; or templates of your own, each with `{}`
            where the names go; or the path of a text file with one template per line.
        joining: what stands before the last name: " and " makes "a, b and c".
        counts: whether to say how many there are: "two dogs and a cat".
        without: words; CLIP's templates with one of them are left out. A matcher of phrases reads that "a painting of a
            dog" shows no dog and "a plushie dog" is a teddy bear, and such captions would be dropped: by default 60
            templates are left. An empty list takes all 80.

    Raises:
        MissingPathError: if there is no such file.
        ConfigError: if there is no template, or one has no `{}` or more than one.

    Example:
        >>> request = CaptionRequest("", [], frozenset({1}), frozenset({0, 2}), ("dog", "cat", "apple"), {0: 2})
        >>> PromptCaptions(["a bad photo of a {}."]).write([request])
        ['a bad photo of a dog and an apple.']
        >>> PromptCaptions(["a bad photo of a {}."], counts=True).write([request])
        ['a bad photo of two dogs and an apple.']
    """

    name: ClassVar[str] = "prompts"
    version: ClassVar[int] = 3

    def __init__(
        self,
        templates: str | list[str] = _IMAGENET,
        joining: str = " and ",
        counts: bool = False,
        without: Sequence[str] = _MISREAD,
    ) -> None:
        self.templates = templates if templates == _IMAGENET else _own(templates)
        self.joining = joining
        self.counts = counts
        self.without = list(without)

    def write(self, requests: Sequence[CaptionRequest]) -> list[str | Rule]:
        """Return a prompt for each request, or `NO_KEPT_WORD` where no class is kept."""
        templates = imagenet_templates(tuple(self.without)) if isinstance(self.templates, str) else self.templates
        return [self._prompt(request, templates) if request.kept else Rule.NO_KEPT_WORD for request in requests]

    def _prompt(self, request: CaptionRequest, templates: Sequence[str]) -> str:
        template = templates[int(np.random.default_rng(request.seed).integers(len(templates)))]
        kept = sorted(request.kept)
        counts = [request.counts.get(index, 1) if self.counts else None for index in kept]
        return fill_in(template, [request.class_names[index] for index in kept], counts, self.joining)


def fill_in(template: str, names: Sequence[str], counts: Sequence[int | None], joining: str = " and ") -> str:
    """Put class names into a template, each with the determiner that the template has before its slot.

    Args:
        template: a text with `{}`.
        names: at least one class name.
        counts: how many there are of each; None says nothing about it.
        joining: what stands before the last name.

    Example:
        >>> fill_in("a photo of the clean {}.", ["dog", "cat", "bus"], [3, 1, None])
        'a photo of the three clean dogs, the cat and the bus.'
        >>> fill_in("a photo of many {}.", ["person", "skis"], [None, None])
        'a photo of many people and many skis.'
    """
    slot = _SLOT.match(template)
    determiner, adjectives = (slot["determiner"], slot["adjectives"]) if slot else ("", "")
    own = [adjectives, *[""] * (len(names) - 1)]
    phrases = list(map(_phrase, [determiner.lower()] * len(names), own, names, counts))
    listed = joining.join(filter(None, [", ".join(phrases[:-1]), phrases[-1]]))
    if determiner[:1].isupper():
        listed = listed[:1].upper() + listed[1:]
    start = slot["before"] if slot else template[: template.index("{}")]
    return start + listed + template[template.index("{}") + 2 :]


def _phrase(determiner: str, adjectives: str, name: str, count: int | None) -> str:
    if count is not None and determiner not in ("the", "my"):
        determiner = "a"
    many = count is not None and count > 1
    words = adjectives + (plural(name) if many or determiner == "many" else name)
    if many:
        words = f"{number_word(count or 1)} {words}"
    elif determiner in ("a", "an"):
        return with_article(words)
    bare = determiner == "a" or (determiner == "one" and has_no_singular(name))
    return words if bare else f"{determiner} {words}".lstrip()


@cache
def imagenet_templates(without: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the 80 templates that CLIP was prompted with on ImageNet, with `{}` for the name; open_clip holds them.

    Args:
        without: words, as a tuple; templates with one of them are left out.

    Raises:
        ConfigError: if that leaves none.
    """
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

    unwanted = re.compile("|".join(rf"\b{re.escape(word)}\b" for word in without) or "(?!)")
    texts = tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)
    if left := tuple(text for text in texts if not unwanted.search(text)):
        return left
    raise ConfigError("`without` of PromptCaptions leaves out every template; name fewer words.")


def _own(templates: str | Sequence[str]) -> list[str]:
    """Return templates of a file or list, each of which must have one slot."""
    source = "`templates` of PromptCaptions"
    if isinstance(templates, str):
        source, path = f"`templates` of PromptCaptions, {templates},", Path(templates)
        if not path.is_file():
            raise MissingPathError(f"{source} is no file; give `{_IMAGENET}`, a list, or a file with one per line.")
        templates = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not templates:
        raise ConfigError(f"{source} has no template; give at least one, as in `a photo of a {{}}.`.")
    for number, template in enumerate(templates, 1):
        if template.count("{}") != 1:
            raise ConfigError(
                f"{source} has {template!r} as number {number}, with {template.count('{}')} slots; write `{{}}` once, "
                f"where the class names go."
            )
    return list(templates)

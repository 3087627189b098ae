"""Prompts: names put into sentences, so that an image-text model can tell what an image shows without a classifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from datamodules.batch import Tokens
from datamodules.errors import ConfigError


def clip_templates() -> list[str]:
    """Return the 80 templates that CLIP's authors use for ImageNet, as open_clip holds them, with a place for a name.

    Example:
        >>> templates = clip_templates()
        >>> len(templates), templates[0]
        (80, 'a bad photo of a {}.')
    """
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    return [template("{}") for template in OPENAI_IMAGENET_TEMPLATES]


def checked_templates(templates: Sequence[str], key: str = "templates") -> list[str]:
    """Return the templates, which `model.init_args` has under this key.

    Raises:
        ConfigError: there is none, or one has no place for a name, or other braces.

    Example:
        >>> checked_templates(["a photo of a {}."])
        ['a photo of a {}.']
    """
    for template in templates:
        if template.count("{}") != 1 or set("{}") & set(template.replace("{}", "")):
            raise ConfigError(
                f"`model.init_args.{key}` holds {template!r}: a template has `{{}}` once, where the name goes, as "
                "in 'a photo of a {}.'"
            )
    if not templates:
        raise ConfigError(f"`model.init_args.{key}` is empty: give templates, such as 'a photo of a {{}}.'")
    return list(templates)


def checked_names(key: str, names: Sequence[str], least: int = 2) -> list[str]:
    """Return the names that prompts are made of.

    Raises:
        ConfigError: there are fewer than `least`, one is empty, or one comes twice.

    Example:
        >>> checked_names("classes", ["landbird", "waterbird"])
        ['landbird', 'waterbird']
    """
    if isinstance(names, str) or len(names) < least or len(set(names)) < len(names) or not all(names):
        raise ConfigError(
            f"`model.init_args.{key}` is {names!r}: give {least} or more different names, in the order of indices."
        )
    return list(names)


def tokenize_prompts(tokenize: Callable[[list[str]], Tokens], names: Sequence[str], templates: Sequence[str]) -> Tokens:
    """Return the tokens of K names in T templates.

    Args:
        tokenize: maps texts to tokens `[N, ...]`.
        names: K names.
        templates: T sentences with a place for a name.

    Returns:
        `[K * T, ...]`, the templates of the first name first.

    Example:
        >>> import torch
        >>> tokenize_prompts(lambda texts: torch.tensor([[len(text)] for text in texts]), ["a", "abc"], ["{}", "{}!"])
        tensor([[1],
                [2],
                [3],
                [4]])
    """
    return tokenize([template.format(name) for name in names for template in templates])

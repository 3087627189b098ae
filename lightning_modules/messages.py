"""Words that messages to users are made of, and the silence of libraries that would say the same at length."""

from __future__ import annotations

import difflib
import pickle
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from safetensors import SafetensorError

UNREADABLE_WEIGHTS = (IndexError, OSError, RuntimeError, SafetensorError, ValueError, pickle.UnpicklingError)
"""What transformers lets through where a file of weights is damaged, by the format of the file."""


def gist(error: BaseException) -> str:
    r"""Return the first two lines of another library's message, or the name of the error where it says nothing.

    Example:
        >>> gist(ValueError("Field 'width':\n  expected int, got str\nsee our documentation"))
        "Field 'width': expected int, got str"
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300] or type(error).__name__


def near(name: str, known: Collection[str], otherwise: str = ".") -> str:
    """Return "; did you mean ...?" where known names are near to a name that is not known, else `otherwise`.

    Example:
        >>> near("resnet5O", ["resnet50", "vgg19"]), near("x", ["resnet50"])
        ('; did you mean resnet50?', '.')
    """
    found = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(found)}?" if found else otherwise


def a_few(names: Sequence[str], count: int = 3) -> str:
    """Return the first names, and how many there are more.

    Example:
        >>> a_few(["a", "b", "c", "d", "e"])
        'a, b, c and 2 more'
    """
    rest = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + rest


def misfit(error: BaseException) -> str:
    r"""Tell in short what `load_state_dict` of torch complains of at length; "" where the error is another.

    Example:
        >>> misfit(RuntimeError('Error(s) in loading state_dict for CLIP:\n\tMissing key(s) in state_dict: "a", "b"'))
        'it lacks a, b'
    """
    if not str(error).startswith("Error(s) in loading state_dict"):
        return ""
    lines = [line.strip() for line in str(error).splitlines()]
    found = []
    for start, words in (("Missing", "it lacks"), ("Unexpected", "it has too much:")):
        if names := [name for line in lines if line.startswith(start) for name in re.findall(r'"([^"]+)"', line)]:
            found.append(f"{words} {a_few(names)}")
    if shapes := re.findall(r"size mismatch for ([\w.]+):", str(error)):
        found.append(f"of another shape: {a_few(shapes)}")
    return "; ".join(found)


@contextmanager
def no_load_report() -> Iterator[None]:
    """Keep transformers from printing a table of the weights that do not fit; what matters of it is an error here."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)

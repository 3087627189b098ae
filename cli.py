"""What every command of the project shares: a parser that answers a mistake in one sentence, and a quiet exit."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import select
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn, TextIO

from jsonargparse import ArgumentParser

from datamodules.errors import UserError

_UNKNOWN_KEY = re.compile(r"(?:does not accept option|Option|unrecognized arguments:) '?-{0,2}([\w.]+)")
_UNKNOWN_CLASS = re.compile(r"(?:Expected a dot import path string: |has no attribute ')([\w.]+)")
_FOUND_CLASS = re.compile(r"given class_path '(?:\w+\.)*(\w+)'")
_UNKNOWN_CHOICE = re.compile(r"Expected a typing\.Literal\[(.*?)\]\. Got value: (\S+)")
_UNKNOWN_COMMAND = re.compile(r"invalid choice: '(\w+)'")
_NOISE = re.compile(
    r"(- )?Does not validate against any of the Union subtypes|Subtypes: .*|Errors:|Given value.*|"
    r"- Expected a <class 'NoneType'>|- Expected a path but .*"
)
_PLAINER = {
    r"Expected a dot import path string: (\S+)": r"no class is named \1",
    r"Problem with given class_path '([^']+)':": r"in class \1,",
    r"Parser key \"([^\"]+)\":": r"key `\1`:",
    r"Expected an? <class '(?:\w+\.)*(\w+)'>. Got value: (.*)": r"expected \1, got \2",
    _UNKNOWN_CHOICE.pattern: r"expected one of \1, got \2",
    r"Option '([^']+)' is not accepted": r"there is no key `\1`",
    r"Subcommand '(\w+)' does not accept option '([^']+)'": r"`\1` has no key `\2`",
}


class FriendlyErrors:
    """Mixed into an argument parser: errors become one sentence with the nearest known name, and no usage wall."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Leave with status 2 after one sentence; a nested parser passes its sentence to the parser around it."""
        message = _with_suggestion(message, self)
        if not self.exit_on_error:  # type: ignore[attr-defined]
            super().error(message, ex)  # type: ignore[misc]
        sys.stderr.write(f"error: {one_sentence(message)}\n")
        raise SystemExit(2)


class FriendlyParser(FriendlyErrors, ArgumentParser):
    """jsonargparse's parser with friendly errors; option names must be given in full."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})


class OptionsParser(FriendlyErrors, argparse.ArgumentParser):
    """argparse's parser likewise, for commands whose options are no keys of a config."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **kwargs})


def friendly(main: Callable[[], int]) -> int:
    """Run a command; a mistake of the user's ends it with one sentence and status 1 instead of a traceback.

    A reader of its output that has seen enough, as `head` does, ends it without a word.

    Example:
        >>> from datamodules.errors import ConfigError
        >>> def main() -> int:
        ...     raise ConfigError("`ratio` is -1, it must be 0 or more.")
        >>> friendly(main)
        1
    """
    try:
        try:
            return _told(main)
        finally:
            sys.stdout.flush()  # here, where the reader's end is no traceback yet
    except BrokenPipeError:
        gone = [stream for stream in (sys.stdout, sys.stderr) if _has_no_reader(stream)]
        if not gone:
            raise
        for stream in gone:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return 141  # as a shell says of a command that its pipe ended


def _has_no_reader(stream: TextIO) -> bool:
    """Whether nobody reads the pipe that a stream writes to, as behind `| head`."""
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _told(main: Callable[[], int]) -> int:
    try:
        return main()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    except Exception as error:
        mistake = _user_error_behind(error)
        if mistake is None:
            raise
        sys.stderr.write(f"error: {mistake}\n")
        return 1


def _user_error_behind(error: BaseException | None) -> UserError | None:
    """Find the user's mistake that an error was raised from: jsonargparse wraps what a class raises as it is built."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__
    return error


def one_sentence(message: str) -> str:
    r"""Drop jsonargparse's type listings from a message and say the rest in plainer words.

    Example:
        >>> one_sentence('Parser key "model":\n  Subtypes: [A]\n  Errors:\n    - Option \'widht\' is not accepted')
        'key `model`: there is no key `widht`'
    """
    lines = [line.strip() for line in message.splitlines()]
    kept = [line.removeprefix("- ") for line in lines if line and not _NOISE.fullmatch(line)]
    found = {f"Expected a dot import path string: {name}" for name in _FOUND_CLASS.findall(message)}
    kept = [line for line in kept if line not in found]  # one type of a union knew the name, another did not
    sentence = " ".join(dict.fromkeys(kept)).replace(" did you mean", "; did you mean")
    for pattern, plainer in _PLAINER.items():
        sentence = re.sub(pattern, plainer, sentence)
    return sentence


def _with_suggestion(message: str, parser: Any) -> str:
    if "did you mean" in message:
        return message
    if found := _UNKNOWN_CHOICE.search(message):
        near = _nearest(found[2], re.findall(r"'([^']*)'", found[1]))
        return f"{message.rstrip()}\ndid you mean {' or '.join(near)}?" if near else message
    for pattern, names in ((_UNKNOWN_KEY, _keys), (_UNKNOWN_CLASS, _class_names), (_UNKNOWN_COMMAND, _commands)):
        if found := pattern.search(message):
            word, known = found.group(1), set(names(parser))
            near = _nearest(word, known) or _nearest(word.split(".")[0], known) or _nearest(word.split(".")[-1], known)
            return f"{message.rstrip()}\ndid you mean {' or '.join(near)}?" if near else message
    return message


def _nearest(word: str, names: Iterable[str]) -> list[str]:
    by_lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(word.lower(), by_lower, n=2)
    return [by_lower[name] for name in near]


def _commands(parser: Any) -> dict[str, Any]:
    """Return the parsers of the subcommands by name, none where the parser has no subcommands."""
    choices = [action.choices for action in parser._actions if isinstance(action.choices, dict)]
    return choices[0] if choices else {}


def _actions(parser: Any) -> Iterator[Any]:
    yield from parser._actions
    for inner in _commands(parser).values():
        yield from inner._actions


def _keys(parser: Any) -> set[str]:
    return {action.dest for action in _actions(parser) if action.dest not in ("help", "==SUPPRESS==")}


def _class_names(parser: Any) -> set[str]:
    bases = {base for action in _actions(parser) for base in _types(getattr(action, "_typehint", None))}
    return {cls.__name__ for base in bases for cls in _subclasses(base)}


def _types(hint: Any) -> Iterator[type]:
    if isinstance(hint, type):
        yield hint
    for inner in getattr(hint, "__args__", ()):
        yield from _types(inner)


def _subclasses(base: type[Any]) -> Iterator[type]:
    if base.__module__ in ("builtins", "typing"):
        return
    yield base
    for cls in base.__subclasses__():
        yield from _subclasses(cls)

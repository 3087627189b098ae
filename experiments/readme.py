"""`python -m experiments readme`: put the tables below `results` into README.md, or check that they stand there.

A table's place in the README is a comment with the path of its file, and one that ends it:

    <!-- results/scenes-small/table1.md -->
    <!-- end of results/scenes-small/table1.md -->
"""

from __future__ import annotations

import re
from pathlib import Path

from cli import OptionsParser
from datamodules.errors import ConfigError, MissingPathError

_BEGIN = re.compile(r"<!-- (results/\S+) -->")
_PLACE = re.compile(r"<!-- (results/\S+) -->\n(.*?)<!-- end of \1 -->", re.DOTALL)


def main(arguments: list[str]) -> int:
    """Fill the places of a page, or check them.

    Args:
        arguments: what stands behind `python -m experiments readme`.

    Raises:
        MissingPathError: the page, or a file that it names, is not there.
        ConfigError: there is no place, one has no end, or with `--check`, the page does not hold what the files do.
    """
    parser = OptionsParser(prog="python -m experiments readme", description="Put tables of results into a page.")
    parser.add_argument("--page", type=Path, default=Path("README.md"), metavar="FILE", help="default: README.md")
    parser.add_argument("--check", action="store_true", help="change nothing, and fail where the page is out of date")
    options = parser.parse_args(arguments)
    text = _read(options.page)
    _check_places(options.page, text)
    stale: list[str] = []
    filled = _PLACE.sub(lambda found: _filled(found, options.page, stale), text)
    if options.check and stale:
        raise ConfigError(
            f"{options.page} does not hold what {' and '.join(stale)} say: run `python -m experiments readme`."
        )
    if not options.check:
        options.page.write_text(filled, encoding="utf-8")
    print(f"{options.page}: {len(_PLACE.findall(text))} tables, {len(stale)} of them changed.")
    return 0


def _check_places(page: Path, text: str) -> None:
    if not _BEGIN.search(text):
        raise ConfigError(
            f"{page} has no place for a table: write `<!-- results/NAME.md -->` and `<!-- end of results/NAME.md -->` "
            "where one belongs."
        )
    whole = [path for path, _ in _PLACE.findall(text)]
    if endless := [path for path in _BEGIN.findall(text) if path not in whole]:
        raise ConfigError(
            f"{page}: the place of {endless[0]} has no end: write `<!-- end of {endless[0]} -->` on a line below it."
        )


def _filled(found: re.Match[str], page: Path, stale: list[str]) -> str:
    path, there = found.groups()
    held = _read(page.parent / path)
    if there.strip() != held.strip():
        stale.append(path)
    return f"<!-- {path} -->\n\n{held.strip()}\n\n<!-- end of {path} -->"


def _read(path: Path) -> str:
    if not path.is_file():
        raise MissingPathError(
            f"{path} is no file: give the page with `--page`, and make tables by the commands first."
        )
    return path.read_text(encoding="utf-8")

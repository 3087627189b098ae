"""What the page about maps tells users to run is there, and the table of scores names what is written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from datamodules.errors import MissingPathError
from experiments.__main__ import main
from experiments.maps import Row

PROJECT = Path(__file__).parents[1]
PAGE = (PROJECT / "docs" / "maps.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^python -m experiments (.+)$", PAGE, re.M)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_ask_for_what_is_there(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = re.search(r"--data (\S+)", command)[1]
    assert (PROJECT / config).is_file()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingPathError, match=rf"{config} is to be read for its `data`"):
        main(command.split())  # every other word of the command was understood


def test_the_scores_that_are_explained_are_written() -> None:
    explained = set(re.findall(r"^\| `(\w+)` \| ", PAGE, re.M))
    assert explained
    assert explained <= set(Row._fields)

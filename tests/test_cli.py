"""Mistakes on the command line and in a yaml: one sentence, the wrong word, the nearest right one, no usage wall."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from cli import FriendlyParser, friendly
from datamodules.errors import ConfigError, MissingPathError

PROJECT = Path(__file__).parents[1]


class Model:
    def __init__(self, lr: float = 1.0) -> None:
        self.lr = lr


class Wide(Model):
    def __init__(self, width: int = 3, lr: float = 2.0, shape: Literal["round", "square"] = "round") -> None:
        super().__init__(lr)
        self.width, self.shape = width, shape


@pytest.fixture
def parser() -> FriendlyParser:
    fit = FriendlyParser()
    fit.add_argument("--config", action="config")
    fit.add_subclass_arguments(Model, "model")
    fit.add_argument("--trainer.max_epochs", type=int, default=1)
    top = FriendlyParser()
    top.add_subcommands().add_subcommand("fit", fit)
    return top


WIDE = f"class_path: {__name__}.Wide"


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("trainer: {max_epoch: 3}", ["`fit` has no key `trainer.max_epoch`", "did you mean trainer.max_epochs?"]),
        ("modle: {class_path: Wide}", ["no key `modle.class_path`", "did you mean model?"]),
        ("model: {class_path: Wied}", ["key `model`", "no class is named Wied", "did you mean Wide?"]),
        (f"model: {{{WIDE}, init_args: {{widht: 3}}}}", ["there is no key `widht`", "did you mean width?"]),
        (f"model: {{{WIDE}, init_args: {{width: x}}}}", ["key `width`", "expected int, got x"]),
        (
            f"model: {{{WIDE}, init_args: {{shape: sqare}}}}",
            ["key `shape`", "expected one of 'round', 'square', got sqare", "did you mean square?"],
        ),
        ("trainer: {max_epochs: many}", ["key `trainer.max_epochs`", "expected int, got many"]),
        ("a: [1\nb: 2", ["line 2, column 2"]),
    ],
)
def test_a_mistake_in_a_yaml(parser, tmp_path: Path, capsys, yaml: str, words: list[str]) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml)
    _assert_one_sentence(parser, ["fit", "--config", str(path)], words, capsys)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fit", "--trainer.max_epoch", "3"], ["--trainer.max_epoch", "did you mean trainer.max_epochs?"]),
        (["fti"], ["'fti'", "did you mean fit?"]),
        ([], ["one of {fit}"]),
        (["fit", "--config", "absent.yaml"], ["key `config`", "absent.yaml"]),
        (["fit", "--model", "Wied"], ["no class is named Wied", "did you mean Wide?"]),
    ],
)
def test_a_mistake_on_the_command_line(parser, capsys, arguments: list[str], words: list[str]) -> None:
    _assert_one_sentence(parser, arguments, words, capsys)


def _assert_one_sentence(parser: FriendlyParser, arguments: list[str], words: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as exit_info:
        parser.parse_args(arguments)
    printed = capsys.readouterr()
    assert exit_info.value.code == 2
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert "usage" not in printed.err + printed.out
    for word in words:
        assert word in printed.err


def test_defaults_of_a_subclass_are_its_own(parser, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(f"model: {{{WIDE}}}")
    config = parser.parse_args(["fit", "--config", str(path)])
    assert config.fit.model.init_args.lr == 2.0


def test_a_user_error_ends_with_its_sentence(capsys) -> None:
    def main() -> int:
        raise MissingPathError("`data.init_args.image_root` is /nowhere, which does not exist.")

    assert friendly(main) == 1
    assert capsys.readouterr().err == "error: `data.init_args.image_root` is /nowhere, which does not exist.\n"


def test_a_user_error_that_was_wrapped_ends_with_its_sentence(capsys) -> None:
    def main() -> int:
        try:
            raise ConfigError("`pretrained` is no tag.")
        except ConfigError as error:
            raise ValueError("Does not validate against any of the Union subtypes") from error

    assert friendly(main) == 1
    assert capsys.readouterr().err == "error: `pretrained` is no tag.\n"


def test_a_bug_keeps_its_traceback() -> None:
    def main() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        friendly(main)


COMMAND = """
import sys
from cli import FriendlyParser, friendly
from datamodules.errors import ConfigError
def main():
    {body}
    return 0
sys.exit(friendly(main))
"""


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("print('a line')", ""),
        ("print('a line\\n' * 99_999)", ""),
        ("FriendlyParser(prog='x').parse_args(['--help'])", ""),
        ("print('a line'); raise ConfigError('`ratio` is -1.')", "error: `ratio` is -1.\n"),
    ],
)
def test_a_reader_that_has_seen_enough_ends_a_command_quietly(body: str, said: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [sys.executable, "-c", COMMAND.format(body=body)],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
        env={**os.environ, "PYTHONUNBUFFERED": ""},  # so that the text is still held back when the command ends
        check=False,
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, said)


def test_a_pipe_that_breaks_elsewhere_keeps_its_traceback(monkeypatch) -> None:
    def main() -> int:
        raise BrokenPipeError

    with open(os.devnull, "w") as there:
        monkeypatch.setattr(sys, "stdout", there)
        monkeypatch.setattr(sys, "stderr", there)
        with pytest.raises(BrokenPipeError):
            friendly(main)

"""`python -m experiments NAME ...`: run an experiment; without a name, list them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module

from cli import friendly
from datamodules.errors import ConfigError
from experiments.study.settings import known

EXPERIMENTS = {
    "table1": "ODmAP of every model: D alone, D + D', and trained on data without a correlation",
    "table2": "recall of the same, in both directions",
    "table3": "caption strategies and fills",
    "figure3": "what two models retrieve for images and their counterfactuals, word by word",
    "figure4": "recall and ODmAP by the ratio of synthetic to original pairs",
    "beyond": "what the paper does not try, on the same footing as Table 1",
    "readme": "puts the tables of results into README.md, or checks them",
    "report": "one run, or two compared, as a page that opens from disk",
    "maps": "where models look for a text, drawn side by side and scored against boxes or masks",
    "spurious_words": "which words a model's errors align with",
}
"""What each module of this package that has a `main` finds out."""


def main(arguments: list[str]) -> int:
    """Run the experiment that the arguments begin with.

    Args:
        arguments: what stands behind `python -m experiments`.

    Raises:
        ConfigError: there is no such experiment.
        UserError: as the experiment says.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print("python -m experiments NAME ...; `python -m experiments NAME --help` has the options.\n")
        print("\n".join(f"{name:16}{purpose}" for name, purpose in EXPERIMENTS.items()))
        return 0
    if arguments[0] not in EXPERIMENTS:
        raise ConfigError(f"There is no experiment `{arguments[0]}`, {known(arguments[0], EXPERIMENTS)}")
    run: Callable[[list[str]], int] = import_module(f"experiments.{arguments[0]}").main
    return run(arguments[1:])


if __name__ == "__main__":
    raise SystemExit(friendly(partial(main, sys.argv[1:])))

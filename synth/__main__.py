"""`python -m synth --config configs/synth/NAME.yaml [--seed 1 ...]`: make a synthetic set, or look at one.

python -m synth --config ...         make the set, or go on with it
python -m synth stats --config ...   how classes co-occur before and after adding the set
python -m synth sheet --config ...   a page of sources and counterfactuals side by side
python -m synth detect --images ...  boxes from a detector, for images that have captions but no boxes
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module

from cli import friendly
from datamodules.errors import ConfigError

_VERBS = {"stats": "synth.stats_cli", "sheet": "synth.sheet_cli", "detect": "synth.detection.cli"}


def main(arguments: list[str]) -> int:
    """Run the verb that the arguments begin with; without one, make the set and print what was kept and rejected."""
    if arguments and not arguments[0].startswith("-"):
        if arguments[0] not in _VERBS:
            raise ConfigError(
                f"There is no command `{arguments[0]}`; known: {', '.join(_VERBS)}, or none to make a set."
            )
        verb: Callable[[list[str]], int] = import_module(_VERBS[arguments[0]]).main
        return verb(arguments[1:])
    from synth import load, run

    run(load(arguments)).show()
    return 0


if __name__ == "__main__":
    raise SystemExit(friendly(partial(main, sys.argv[1:])))

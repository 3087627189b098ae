"""`python -m synth --config configs/synth/NAME.yaml [--seed 1 ...]`: make a synthetic set."""

from __future__ import annotations

import sys

from cli import friendly
from synth import load, run


def main() -> int:
    """Read the config from the command line, make the set, print what was kept and rejected."""
    run(load(sys.argv[1:])).show()
    return 0


if __name__ == "__main__":
    raise SystemExit(friendly(main))

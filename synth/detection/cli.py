"""`python -m synth detect --images FOLDER --detector YoloxDetector ...`: boxes for a data set that has none."""

from __future__ import annotations


def main(arguments: list[str]) -> int:
    """Write the instances file and say what it holds.

    Args:
        arguments: what stands behind `python -m synth detect`.

    Raises:
        SystemExit: after one sentence, if a key or a class is misspelled or a needed one is missing.
        UserError: a value cannot work, or too many images cannot be read.
    """
    from synth.detection.config import load
    from synth.detection.job import detect

    detect(load(arguments)).show()
    return 0

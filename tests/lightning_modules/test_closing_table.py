"""The closing table shows what was logged, and the two reference rows."""

from __future__ import annotations

import io

from rich.console import Console

from lightning_modules.callbacks.closing_table import print_scores

SCORES = {
    "val/i2t/R@1": 7.31,
    "val/i2t/R@5": 20.0,
    "val/t2i/R@1": 5.5,
    "val/t2i/R@5": 18.25,
    "val/rsum": 51.06,
    "val/ODmAP@1": 43.21,
    "val/ODmAP@5": 38.0,
    "val/ODmAP/queries": 120.0,
    "val/ODmAP/gallery": 1500.0,
    "val/random/ODmAP@1": 22.6,
    "val/random/ODmAP@5": 13.1,
    "val/own_captions/ODmAP@1": 58.0,
    "val/own_captions/ODmAP@5": 40.0,
    "train/loss": 1.0,
}


def _printed(rows: dict[str, dict[str, float]]) -> list[str]:
    page = io.StringIO()
    print_scores("val", rows, Console(width=100, file=page))
    return page.getvalue().splitlines()


def _row(lines: list[str], name: str) -> str:
    return next(line for line in lines if name in line)


def test_rows_hold_the_scores_of_their_own_epoch() -> None:
    lines = _printed({"epoch 9 (last)": {**SCORES, "val/rsum": 50.0}, "epoch 7 (best)": SCORES})
    assert "i2t R@1/5" in _row(lines, "rsum")
    assert "7.3 20.0" in _row(lines, "epoch 7")
    assert "51.1" in _row(lines, "epoch 7")
    assert "50.0" in _row(lines, "epoch 9")
    assert "43.2 38.0" in _row(lines, "epoch 9")
    assert "22.6 13.1" in _row(lines, "random ranking")
    assert "58.0 40.0" in _row(lines, "own captions")
    assert any("120 queries, gallery of 1,500 captions" in line for line in lines)


def test_without_queries_there_is_no_odmap() -> None:
    lines = _printed({"this model": {key: value for key, value in SCORES.items() if "ODmAP" not in key}})
    assert "ODmAP" not in "\n".join(lines)
    assert "7.3 20.0" in _row(lines, "this model")

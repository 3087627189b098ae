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
    "val/hallucinated@1": 44.4,
    "val/hallucinated@5": 33.3,
    "val/hubs/distinct@1": 75.0,
    "val/i2t/median_rank": 12.0,
    "val/t2i/median_rank": 1234.0,
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
    assert "44.4 33.3" in _row(lines, "epoch 7")
    assert any("120 queries, gallery of 1,500 captions, 90 of them first for a query" in line for line in lines)
    assert any("median rank 12 (i2t), 1,234 (t2i)" in line for line in lines)
    assert not any("95 %" in line or "folds" in line for line in lines)


def test_intervals_and_folds_stand_below_their_row() -> None:
    more = {"val/ODmAP@1/low": 40.04, "val/ODmAP@5/low": 35.0, "val/ODmAP@1/high": 46.0, "val/ODmAP@5/high": 41.0}
    more |= {"val/folds/i2t/R@1": 9.9, "val/folds/i2t/R@5": 29.0, "val/folds/rsum": 88.8}
    lines = _printed({"this model": SCORES | more})
    assert "40.0 35.0" in _row(lines, "95 % from")
    assert "46.0 41.0" in _row(lines, "95 % to")
    assert "9.9 29.0" in _row(lines, "mean over folds")
    assert "88.8" in _row(lines, "mean over folds")


def test_re_ranked_scores_stand_below_those_of_the_embeddings() -> None:
    again = {f"val/reranked/{name}": value for name, value in {"i2t/R@1": 11.1, "i2t/R@5": 31.0, "rsum": 99.9}.items()}
    again |= {"val/reranked/ODmAP@1": 61.7, "val/reranked/ODmAP@5": 60.0}
    ends = {"val/reranked/i2t/R@1/low": 10.2, "val/reranked/i2t/R@5/low": 30.0}
    lines = _printed({"this model": SCORES | again | ends})
    for cells in ("11.1 31.0", "61.7 60.0", "99.9"):
        assert cells in _row(lines, "re-ranked")
    assert "7.3 20.0" in _row(lines, "this model")
    assert "10.2 30.0" in lines[lines.index(_row(lines, "re-ranked")) + 1]


def test_without_queries_there_is_no_odmap() -> None:
    needs_queries = ("ODmAP", "hallucinated", "hubs")
    lines = _printed({"this model": {k: v for k, v in SCORES.items() if not any(word in k for word in needs_queries)}})
    assert "ODmAP" not in "\n".join(lines)
    assert "7.3 20.0" in _row(lines, "this model")


def test_a_model_without_recall_has_a_row_for_every_score() -> None:
    lines = _printed(
        {
            "epoch 9 (last)": {"val/worst_group": 61.25, "val/group/0-1": 70.0, "train/loss": 1.0},
            "epoch 7 (best)": {"val/worst_group": 64.5, "val/group/0-1": 68.0, "train/loss": 2.0},
        }
    )
    assert _row(lines, "worst_group").split() == ["│", "worst_group", "│", "61.2", "│", "64.5", "│"]
    assert _row(lines, "group/0-1").split()[3::2] == ["70.0", "68.0"]
    assert _row(lines, "epoch 7").index("epoch 9") < _row(lines, "epoch 9").index("epoch 7")
    assert "train/loss" not in "\n".join(lines)
    assert "rsum" not in "\n".join(lines)

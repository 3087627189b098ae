"""One evaluation pass: what each metric is given, the names of the scores, and the tables behind them."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from datamodules.batch import RetrievalBatch
from datamodules.errors import ConfigError
from lightning_modules.evaluation import RetrievalEvaluation
from lightning_modules.query_tables import intervals
from metrics import AnnotatedRetrieval, ODmAP, ODmAPBaselines, RetrievalRecall

CUTS = (1, 3, 50)  # 50 is more than there are images or captions
OWN = SimpleNamespace(
    i2t={image: [100 + image, 108 + image] for image in range(6)}, t2i={100 + row: [row % 8] for row in range(16)}
)


def _batch(rows: int, **columns: Any) -> RetrievalBatch:
    absent = torch.full((rows,), -1)
    captions = columns.get("caption_ids", absent)
    return RetrievalBatch(**{"caption_ids": absent, "source_caption_ids": captions, "synthetic": absent > 0, **columns})


def _world() -> dict[str, tuple[RetrievalBatch, torch.Tensor]]:
    """Return 8 images in folds of 3, 5 counterfactuals of 3 of them, and 20 captions, the last 4 of another split."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(3, 20, 4, generator=generator) < 0.4
    images, queries, owners = torch.arange(8), torch.arange(50, 55), torch.arange(20) % 8
    owners[16:] = torch.tensor([90, 91, 92, 7])
    photo, sources = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 0, 1, 2, 2])
    embeddings = torch.randn(33, 5, generator=generator)
    folds = torch.tensor([0, 0, 0, 1, 1, 1, -1, -1])
    edited = {"removed": masks[0, :5], "kept": masks[1, :5] & ~masks[0, :5]}
    captions = {"mentions": masks[2], "in_split": torch.arange(20) < 16, "caption_ids": torch.arange(100, 120)}
    return {
        "images": (_batch(8, image_ids=images, source_ids=images, folds=folds), embeddings[:8]),
        "queries": (_batch(5, image_ids=queries, source_ids=sources, **edited), embeddings[photo] + embeddings[8:13]),
        "captions": (_batch(20, image_ids=owners, source_ids=owners, **captions), embeddings[13:]),
    }


def _filled(without: tuple[str, ...] = (), reranked: bool = False, **positives: Any) -> RetrievalEvaluation:
    evaluation = RetrievalEvaluation(CUTS)
    evaluation.start(positives)
    if reranked:
        evaluation.rerank_by(lambda image_ids, caption_ids: torch.cos(image_ids * 5 + caption_ids), max(CUTS))
    for kind, (batch, embeddings) in _world().items():
        if kind not in without:
            (evaluation.update_captions if kind == "captions" else evaluation.update_images)(batch, embeddings)
    return evaluation


def _plain(scores: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in scores.items()}


def test_recall_sees_the_split_and_odmap_the_whole_gallery() -> None:
    (images, image_rows), (queries, query_rows), (captions, caption_rows) = _world().values()
    recall, annotated = RetrievalRecall(CUTS), AnnotatedRetrieval(OWN.i2t, OWN.t2i, CUTS)
    recall.update_images(image_rows, images.image_ids, images.folds)
    annotated.update_images(image_rows, images.image_ids)
    for metric in (recall, annotated):
        metric.update_captions(caption_rows[:16], captions.image_ids[:16], captions.caption_ids[:16])
    odmap, references = ODmAP(CUTS), ODmAPBaselines(CUTS)
    odmap.update_gallery(caption_rows, captions.mentions, captions.caption_ids)
    odmap.update(query_rows, queries.removed, queries.kept, queries.image_ids)
    references.update_gallery(captions.mentions, captions.image_ids, captions.caption_ids)
    references.update(queries.removed, queries.kept, queries.source_ids, queries.image_ids)
    expected = {**recall.compute(), **odmap.compute(), **odmap.summary(), **references.compute()}
    expected |= {f"own/{name}": value for name, value in annotated.compute().items()}
    found = _filled(own=OWN).compute()
    assert _plain(found) == _plain(expected)
    assert {"folds/rsum", "own/i2t/mAP@R", "hubs/skewness@3", "random/ODmAP@50"} < found.keys()
    assert (found["ODmAP/gallery"], found["ODmAP/queries"]) == (20, 5)


def test_the_tables_average_to_the_scores_and_intervals_carry_their_names() -> None:
    evaluation = _filled(own=OWN)
    scores = _plain(evaluation.compute())
    assert list(evaluation.tables) == ["i2t", "t2i", "odmap", "own-i2t", "own-t2i"]
    names = set()
    for table in evaluation.tables.values():
        for measure in table.measures:
            names.add(f"{table.prefix}{measure}")
            assert float(table.columns[measure].mean()) == pytest.approx(scores[f"{table.prefix}{measure}"])
    ends = intervals(evaluation.tables)
    assert ends.keys() == {f"{name}/{end}" for name in names for end in ("low", "high")}
    assert names < scores.keys()
    assert all(ends[f"{name}/low"] <= scores[name] + 1e-3 for name in names)
    assert all(ends[f"{name}/high"] >= scores[name] - 1e-3 for name in names)


def test_an_image_without_a_caption_is_no_hit_in_the_table_either() -> None:
    evaluation = _filled(without=("images",))
    images, rows = _world()["images"]
    images.image_ids[5] = 77  # nobody's
    evaluation.update_images(images, rows)
    assert evaluation.compute()["i2t/R@50"].item() == pytest.approx(100 * 7 / 8)
    table = evaluation.tables["i2t"]
    assert dict(zip(table.columns["query_id"].tolist(), table.columns["R@50"].tolist(), strict=True))[77] == 0
    assert table.columns["rank"].max() == 17


def test_measures_of_one_group_have_no_interval() -> None:
    evaluation = _filled()
    evaluation.compute()
    odmap = evaluation.tables["odmap"]
    alone = odmap._replace(columns={name: rows[:2] for name, rows in odmap.columns.items()})
    assert alone.columns["source_image_id"].tolist() == [0, 0]
    assert intervals({"odmap": alone}) == {}


@pytest.mark.parametrize("missing", ["queries", "captions' mentions"])
def test_without_queries_or_mentions_there_is_recall_alone(missing: str) -> None:
    evaluation = _filled(without=("queries", "captions"))
    if missing != "queries":
        evaluation.update_images(*_world()["queries"])
    captions, rows = _world()["captions"]
    captions.mentions = captions.mentions if missing == "queries" else None
    evaluation.update_captions(captions, rows)
    assert not any("ODmAP" in name for name in evaluation.compute())
    assert list(evaluation.tables) == ["i2t", "t2i"]
    assert evaluation.breakdowns is None


@pytest.mark.parametrize("name", ["items", "eccv.v1", "type"])
def test_positives_may_have_any_name(name: str) -> None:
    assert f"{name}/t2i/R@1" in _filled(**{name: OWN}).compute()


@pytest.mark.parametrize("name", ["folds", "reranked"])
def test_positives_may_not_be_taken_for_other_scores(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"`positives\.{name}`.* choose another name"):
        RetrievalEvaluation().start({name: OWN})


def test_positives_of_another_split_are_named_and_left_out() -> None:
    other = SimpleNamespace(i2t={900: [901]}, t2i={901: [900]})
    with pytest.warns(UserWarning, match="No scores `other/...`: None of the 1 queries"):
        found = _filled(other=other, own=OWN).compute()
    assert "own/i2t/R@1" in found
    assert not any(name.startswith("other/") for name in found)


def test_re_ranked_scores_stand_beside_the_others_and_average_from_tables_of_their_own() -> None:
    evaluation, plain = _filled(reranked=True, own=OWN), _filled(own=OWN)
    scores, expected = _plain(evaluation.compute()), _plain(plain.compute())
    assert {name: value for name, value in scores.items() if not name.startswith("reranked/")} == expected
    assert list(evaluation.tables) == [*plain.tables, "reranked-i2t", "reranked-t2i", "reranked-odmap"]
    for table in evaluation.tables.values():
        for measure in table.measures:
            name = measure if "/" in measure else f"{table.prefix}{measure}"
            assert float(table.columns[measure].mean()) == pytest.approx(scores[name])
    assert {name.rpartition("/")[0] for name in intervals(evaluation.tables)} < scores.keys()
    for name in ("i2t", "t2i", "odmap"):  # files of equal measures can be compared
        assert evaluation.tables[f"reranked-{name}"].measures == plain.tables[name].measures
    assert scores["reranked/i2t/mean_rank"] != scores["i2t/mean_rank"]
    evaluation.start()
    for kind, (batch, rows) in _world().items():
        (evaluation.update_captions if kind == "captions" else evaluation.update_images)(batch, rows)
    assert not any(name.startswith("reranked/") for name in evaluation.compute())


def test_without_queries_recall_alone_is_re_ranked() -> None:
    scores = _filled(without=("queries",), reranked=True).compute()
    assert {name for name in scores if name.startswith("reranked/")} == {
        f"reranked/{name}" for name in scores if name == "rsum" or name.startswith(("i2t/", "t2i/"))
    }


def test_a_pass_leaves_no_rows_to_the_next() -> None:
    evaluation = _filled(own=OWN)
    first = _plain(evaluation.compute())
    assert not evaluation.recall.images_embeddings
    assert not evaluation.odmap.gallery_embeddings
    assert not evaluation.annotated["own"].captions_embeddings
    evaluation.start()
    assert (evaluation.tables, evaluation.breakdowns, evaluation.annotated) == ({}, None, {})
    for kind, (batch, rows) in _world().items():
        (evaluation.update_captions if kind == "captions" else evaluation.update_images)(batch, rows)
    second = _plain(evaluation.compute())
    assert second == {name: value for name, value in first.items() if not name.startswith("own/")}


def test_the_docs_name_every_score_and_no_other() -> None:
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    listed = re.search(r"^\| key \(after.*?\n\n", page, re.M | re.S)
    rows = [row.split("|")[1] for row in listed[0].splitlines()[2:] if row]
    named = {key for row in rows for key in re.findall("`(.+?)`", row)}
    named |= {key.replace("i2t/", "t2i/") for key in named if "i2t/" in key}  # "and the same under"
    patterns = {
        key.replace("NAME", "own").replace("@k", "@[0-9]*").replace("...", "*") for key in named if key[-1] != "/"
    }
    evaluation = _filled(reranked=True, own=OWN)
    logged = [*evaluation.compute(), *intervals(evaluation.tables)]
    assert [key for key in logged if not any(fnmatchcase(key, pattern) for pattern in patterns)] == []
    assert [pattern for pattern in patterns if not any(fnmatchcase(key, pattern) for key in logged)] == []

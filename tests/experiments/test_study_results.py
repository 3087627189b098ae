"""What cells found, as arrays, from files as `train.py test` leaves them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from datamodules.errors import ConfigError
from experiments.study.results import load
from metrics import per_query


def _values(cells: Any, cell: Any, kind: str, measure: str) -> np.ndarray:
    return per_query.read(cell.folder(cells.root) / "out" / f"{kind}.parquet").values([measure])[:, 0]


def test_seeds_are_stacked_in_ascending_order_whatever_the_order_of_cells(cells: Any) -> None:
    made = {seed: cells.add("clip", "control", seed, 40) for seed in (2, 0, 1)}
    found = load(cells.root, made.values()).scores["clip", "control"]
    assert found.seeds == (0, 1, 2)
    expected = np.stack([_values(cells, made[seed], "odmap", "ODmAP@5") for seed in (0, 1, 2)])
    np.testing.assert_array_equal(found["ODmAP@5"], expected)
    assert found.at([2])["i2t/R@1"].shape == (1, 6)
    assert found.single["hubs/distinct@1"].tolist() == pytest.approx([100 * 4 / 12] * 3)
    with pytest.raises(KeyError):
        found["R@1"]


def test_rsum_is_the_mean_of_its_images_where_they_have_unlike_many_captions(cells: Any) -> None:
    made = cells.add("clip", "control", 0, 400)
    found = load(cells.root, [made]).scores["clip", "control"]["rsum"]
    recalls = [_values(cells, made, way, f"R@{k}").mean() for way in ("i2t", "t2i") for k in (1, 5, 10)]
    assert found.shape == (1, cells.IMAGES)
    assert found.mean() == pytest.approx(sum(recalls))
    last = cells.IMAGES - 1  # has one caption less
    captions = np.arange(cells.CAPTIONS) % cells.IMAGES == last
    own = sum(_values(cells, made, "t2i", f"R@{k}")[captions].sum() for k in (1, 5, 10)) * cells.IMAGES / cells.CAPTIONS
    assert found[0, last] == pytest.approx(own + sum(_values(cells, made, "i2t", f"R@{k}")[last] for k in (1, 5, 10)))


def test_a_model_that_re_ranks_has_both_scores(cells: Any) -> None:
    made = [cells.add("blip", "control", 0, 40, reranked=60), cells.add("clip", "control", 0, 40)]
    scores = load(cells.root, made).scores
    assert scores["clip", "control"].prefix == ""
    assert scores["blip", "control"].prefix == "reranked/"
    both = scores["blip", "control"]
    assert both["reranked/ODmAP@1"].mean() - both["ODmAP@1"].mean() == pytest.approx(20)
    assert both["reranked/rsum"].shape == both["rsum"].shape
    assert "reranked/hubs/distinct@1" in both.single


def test_cells_that_are_not_there_are_listed(cells: Any) -> None:
    results = load(cells.root, [cells.add("clip", "control", 0, 40), cells.cell("clip", "control", 1)])
    assert results.missing == ("clip/control/seed1",)
    assert results.scores["clip", "control"].seeds == (0,)
    assert results.sizes == {"queries": 12, "gallery": 50}
    assert load(cells.root, [cells.cell("clip", "oracle", 0)]).scores == {}


def test_cells_of_another_gallery_are_refused(cells: Any) -> None:
    made = [cells.add("clip", "control", 0, 40), cells.add("vsepp", "control", 0, 40, gallery=51)]
    with pytest.raises(ConfigError, match=r"vsepp.*cannot be compared: the values of gallery differ"):
        load(cells.root, made)


@pytest.mark.parametrize("key", ["data", "protocol"])
def test_cells_of_other_data_are_refused_though_their_ids_agree(cells: Any, key: str) -> None:
    made = [cells.add("clip", "control", seed, 40) for seed in (0, 1)]
    made.append(cells.add("vsepp", "control", 0, 40, made={key: "other"}))
    with pytest.raises(ConfigError, match=rf"clip/control/seed0 and vsepp/control/seed0 have .*\({key} \w+ and other"):
        load(cells.root, made)


def test_a_file_that_is_gone_is_named(cells: Any) -> None:
    made = cells.add("clip", "control", 0, 40)
    (made.folder(cells.root) / "out" / "t2i.parquet").unlink()
    with pytest.raises(ConfigError, match=r"no file .*t2i\.parquet"):
        load(cells.root, [made])

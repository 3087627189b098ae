import runpy
from pathlib import Path

import pytest
import torch

WORKER = Path(__file__).with_name("ranks_worker.py")
SIZES = (1, 2, 3, 4)
pytestmark = [pytest.mark.ddp, pytest.mark.slow]


@pytest.fixture(scope="module")
def outcomes(processes, tmp_path_factory):
    """Start every world once and return `{size: [cases of rank 0, of rank 1, ...]}`."""
    folder = tmp_path_factory.mktemp("ranks")
    return {size: _run_world(processes, folder, size) for size in SIZES}


def _run_world(processes, folder, size):
    targets = [folder / f"{size}-{rank}.pt" for rank in range(size)]
    ranks = []
    for rank, target in enumerate(targets):
        given = {"rank": rank, "size": size, "meeting": str(folder / f"meeting-{size}"), "target": str(target)}
        ranks.append(processes.Process(target=runpy.run_path, args=(str(WORKER), given, "__ranks__")))
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(timeout=150)
        process.kill()
    assert [process.exitcode for process in ranks] == [0] * size
    return [torch.load(target) for target in targets]


@pytest.fixture(scope="module")
def alone():
    worker = runpy.run_path(str(WORKER))
    return worker["outcome"](*worker["fill"](0, 1, worker["even"], 1000))


CASES = (
    "even",
    "uneven",
    "last_rank_empty",
    "all_on_last_rank",
    "padded",
    "compute_twice_with_news_on_one_rank",
    "forward_on_one_rank",
    "gallery_here_queries_there",
)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", CASES)
def test_every_rank_returns_what_one_process_does(outcomes, alone, size, case):
    for rank in range(size):
        found = outcomes[size][rank][case]
        assert {name: value.item() for name, value in found["values"].items()} == pytest.approx(
            {name: value.item() for name, value in alone["values"].items()}, abs=1e-5
        )
        for column in ("ids", "retrieved_ids", "retrieved_mentions", "relevant", "num_relevant"):
            assert torch.equal(found["per_query"][column], alone["per_query"][column]), column
        for table in ("references", "ranks"):
            assert found[table].keys() == alone[table].keys()
            for column, rows in alone[table].items():
                assert torch.equal(found[table][column], rows), column
        for name in found["summary"].keys() - {"ODmAP/repeated"}:
            assert found["summary"][name] == pytest.approx(alone["summary"][name]), name


@pytest.mark.parametrize("size", SIZES)
def test_repeated_rows_are_counted(outcomes, size):
    longest = [-(-rows // size) * size for rows in (61, 13)]
    expected = longest[0] - 61 + longest[1] - 13 + 2 * 3 * size
    assert outcomes[size][0]["padded"]["summary"]["ODmAP/repeated"] == expected


@pytest.mark.parametrize("size", SIZES[1:])
def test_ranks_that_disagree_raise_together(outcomes, size):
    messages = {cases["disagreement"] for cases in outcomes[size]}
    assert len(messages) == 1
    assert "gallery_mentions: rank 1 has rows of bool [4]" in messages.pop()


@pytest.mark.parametrize("size", SIZES[1:])
def test_an_id_with_two_contents_raises_on_every_rank(outcomes, size):
    assert {cases["one_id_for_two_captions"] for cases in outcomes[size]} == {
        "gallery: id 7 was given twice with different mentions; every id must stand for one row."
    }


@pytest.mark.parametrize("size", SIZES[1:])
def test_the_gallery_stays_where_it_was_seen(outcomes, size):
    """Of a larger gallery, only the ids (8 bytes each) pass by: no embeddings, no mentions."""
    for cases in outcomes[size]:
        small, large = cases["traffic"][40], cases["traffic"][400]
        assert small["floating"] == large["floating"]
        assert large["other"] - small["other"] == 8 * 360 * size


@pytest.mark.parametrize("size", SIZES)
def test_every_rank_knows_the_accuracy_of_all_groups(outcomes, size):
    expected = outcomes[1][0]["accuracy_by_group"]["last_rank_empty"]
    for cases in outcomes[size]:
        assert list(cases["accuracy_by_group"].values()) == [expected, expected]


@pytest.mark.parametrize("size", SIZES)
def test_no_rows_anywhere_is_an_error_on_every_rank(outcomes, size):
    assert {cases["nothing_anywhere"] for cases in outcomes[size]} == {
        "ODmAP has no gallery: give one or more rows before calling compute."
    }

import pytest
import torch

from metrics.distributed import Alone
from metrics.rank_counting import Items, rank_best_matches


def whole_numbers(rows, seed, width=4, spread=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-spread, spread + 1, (rows, width), generator=generator).float()


def items(embeddings, image_ids, rows=None, parts=None):
    rows = torch.arange(len(embeddings)) if rows is None else rows
    return Items(list(embeddings.split(parts or len(embeddings))), torch.arange(len(embeddings)), image_ids, rows)


def images_and_captions(images=40, captions=300, parts=None, dtype=torch.float32):
    owners = torch.randint(0, images + 2, (captions,), generator=torch.Generator().manual_seed(2))
    return (
        items(whole_numbers(images, 0).to(dtype), torch.arange(images), parts=parts),
        items(whole_numbers(captions, 1).to(dtype), owners, parts=parts),
    )


def slow_ranks(queries, gallery):
    held = torch.cat(list(gallery.embeddings)).double().tolist()
    ranks = []
    for query in torch.cat(list(queries.embeddings)).double()[queries.rows].tolist():
        image = queries.image_ids[queries.rows[len(ranks)]].item()
        own, wrong = [-float("inf")], []
        for row in gallery.rows.tolist():
            score = sum(a * b for a, b in zip(query, held[row], strict=True))
            (own if gallery.image_ids[row] == image else wrong).append(score)
        ranks.append(1 + sum(score >= max(own) for score in wrong))
    return ranks


class TwoShards(Alone):
    """This process as the first of two ranks; the other one is given by what it would answer."""

    size = 2

    def __init__(self, largest):
        self.largest = largest

    def broadcast(self, rows, source):
        return rows if source == 0 else rows[:0]

    def gather(self, tensor):
        return [tensor, torch.full_like(tensor, self.largest)]


class CountsStrips(Alone):
    """Counts the exchanges of best matches: one per strip."""

    def __init__(self):
        self.strips = 0

    def highest(self, tensor):
        self.strips += 1
        return super().highest(tensor)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize(("parts", "chunk_size"), [(None, 1000), (7, 64), (300, 17), (1, 1)])
def test_equals_counting_in_plain_loops(parts, chunk_size, dtype):
    images, captions = images_and_captions(12, 70, parts, dtype)
    for queries, gallery in ((images, captions), (captions, images)):
        found = rank_best_matches(Alone(), queries, gallery, chunk_size)
        assert found.ranks.tolist() == slow_ranks(queries, gallery)
        assert found.gallery == len(gallery.ids)
        assert torch.equal(found.query_ids, queries.ids)
        assert torch.equal(found.image_ids, queries.image_ids)


@pytest.mark.parametrize("parts", [None, 3, 16])
def test_rows_that_do_not_take_part_change_nothing(parts):
    images, captions = images_and_captions(12, 70, parts)
    for keep in (0.5, 0.1):
        chosen = torch.rand(70, generator=torch.Generator().manual_seed(0)) < keep
        some = captions.only(chosen)
        assert rank_best_matches(Alone(), images, some, 8).ranks.tolist() == slow_ranks(images, some)
        assert rank_best_matches(Alone(), some, images, 8).ranks.tolist() == slow_ranks(some, images)
        assert torch.equal(rank_best_matches(Alone(), some, images, 8).query_ids, some.rows)


def test_more_queries_than_fit_a_strip(monkeypatch):
    images, captions = images_and_captions(12, 300)
    whole = rank_best_matches(Alone(), captions, images)
    monkeypatch.setattr("metrics.rank_counting._STRIP_SCORES", 12 * 40)
    monkeypatch.setattr("metrics.rank_counting._QUERY_ROWS", 16)
    counting = CountsStrips()
    assert torch.equal(rank_best_matches(counting, captions, images).ranks, whole.ranks)
    assert counting.strips == 10  # of 32 rows: 40 would fit, and products have 16


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("empty", ["gallery", "queries"])
def test_an_empty_side(empty):
    images, captions = images_and_captions(12, 70)
    nothing = captions.only(torch.zeros(70).bool())
    queries, gallery = (images, nothing) if empty == "gallery" else (nothing, images)
    found = rank_best_matches(Alone(), queries, gallery)
    assert found.ranks.tolist() == [1] * len(queries.rows)  # behind nothing, and yet no hit
    assert found.gallery == len(gallery.rows)
    assert found.recall(1).item() == (0 if empty == "gallery" else pytest.approx(float("nan"), nan_ok=True))


def test_a_query_without_a_match_is_never_a_hit():
    images = items(torch.eye(2), torch.tensor([1, 2]))
    captions = items(torch.eye(2), torch.tensor([1, 3]))
    found = rank_best_matches(Alone(), images, captions)
    assert found.ranks.tolist() == [1, 3]
    assert [found.recall(k).item() for k in (1, 2, 3, 100)] == [50] * 4


@pytest.mark.parametrize("width", [1, 31, 256])
@pytest.mark.parametrize("chunk_size", [50, 1024])
def test_one_point_for_everything_puts_every_wrong_item_ahead(width, chunk_size):
    point = torch.randn(1, width, generator=torch.Generator().manual_seed(0))
    images = items(point.expand(30, -1), torch.arange(30), parts=11)
    captions = items(point.expand(150, -1), torch.arange(30).repeat(5), parts=7)
    assert rank_best_matches(Alone(), images, captions, chunk_size).ranks.tolist() == [146] * 30
    assert rank_best_matches(Alone(), captions, images, chunk_size).ranks.tolist() == [30] * 150


def test_a_score_does_not_depend_on_the_rest_of_the_gallery_or_on_its_size_elsewhere():
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(1500, 33, generator=generator)
    images, captions = items(points[:300], torch.arange(300)), items(points[300:], torch.arange(1200) % 300)
    found = rank_best_matches(Alone(), images, captions)
    order = torch.randperm(1200, generator=generator)
    mixed = items(points[300:][order], (torch.arange(1200) % 300)[order], parts=100)
    assert torch.equal(rank_best_matches(Alone(), images, mixed).ranks, found.ranks)
    elsewhere = rank_best_matches(TwoShards(largest=2**21), images, captions)
    assert torch.equal(elsewhere.ranks, found.ranks)
    assert elsewhere.gallery == 1200 + 2**21


def test_products_are_float32_whatever_autocast_and_torchs_precision_say(monkeypatch):
    product, seen = torch.mm, set()

    def watched(*args, **options):
        seen.add((torch.get_float32_matmul_precision(), torch.is_autocast_enabled("cpu"), args[0].dtype))
        return product(*args, **options)

    monkeypatch.setattr(torch, "mm", watched)
    images, captions = images_and_captions(40, 400, dtype=torch.bfloat16)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = rank_best_matches(Alone(), images, captions)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert seen == {("highest", False, torch.float32)}
    assert found.ranks.tolist() == slow_ranks(images, captions)

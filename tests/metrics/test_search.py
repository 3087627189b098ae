import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from metrics.search import NO_ID, full_precision, top_k


def slow_top_k(queries, gallery, ids, k):
    """Rank by exact integer dot products, ties by ascending id."""
    ranked = []
    for query in queries.tolist():
        scores = [sum(int(a) * int(b) for a, b in zip(query, row, strict=True)) for row in gallery.tolist()]
        order = sorted(range(len(ids)), key=lambda row: (-scores[row], ids[row]))[:k]
        ranked.append([ids[row] for row in order] + [NO_ID] * (k - len(order)))
    return ranked


def whole_numbers(rows, columns, seed, spread=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-spread, spread + 1, (rows, columns), generator=generator).float()


@given(
    st.integers(1, 5), st.integers(0, 25), st.integers(1, 8), st.integers(1, 30), st.integers(0, 10_000),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_equals_a_plain_loop_with_ties_by_id(queries, gallery, k, chunk_size, seed, dtype):
    asked, held = whole_numbers(queries, 3, seed, spread=1), whole_numbers(gallery, 3, seed + 1, spread=1)
    ids = torch.randperm(gallery, generator=torch.Generator().manual_seed(seed)) * 3
    found = top_k(asked.to(dtype), held.to(dtype), k, ids=ids, chunk_size=chunk_size)
    assert found.ids.tolist() == slow_top_k(asked, held, ids.tolist(), k)
    filled = found.rows >= 0
    assert torch.equal(ids[found.rows[filled]], found.ids[filled])
    assert torch.equal(filled, found.scores > -torch.inf)
    if gallery:
        products = (asked @ held.T).to(found.scores.dtype).gather(1, found.rows.clamp(min=0))
        assert torch.equal(found.scores[filled], products[filled])


@pytest.mark.parametrize("chunk_size", [7, 64, 300, 1000, 5000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_point_for_everything_gives_ids_ascending(chunk_size, dtype):
    point = torch.randn(1, 100, generator=torch.Generator().manual_seed(0)).to(dtype)
    ids = torch.randperm(1000, generator=torch.Generator().manual_seed(1)) + 50
    found = top_k(point.expand(3, -1), point.expand(1000, -1), 12, ids=ids, chunk_size=chunk_size)
    assert found.ids.tolist() == [list(range(50, 62))] * 3
    assert (found.scores == found.scores[0, 0]).all()


def test_ties_at_the_last_place_go_to_the_lowest_id_across_chunks():
    gallery = torch.tensor([[0.0], [1], [1], [2], [1]])
    ids = torch.tensor([1, 9, 8, 5, 2])
    for chunk_size in (1, 2, 3, 5):
        found = top_k(torch.ones(1, 1), gallery, 2, ids=ids, chunk_size=chunk_size)
        assert found.ids.tolist() == [[5, 2]]


@pytest.mark.parametrize("chunk_size", [16, 100, 257, 4096])
def test_a_gallery_in_parts_with_rows_left_out_is_searched_as_a_whole(chunk_size):
    gallery, queries = whole_numbers(257, 6, 0), whole_numbers(300, 6, 1)
    keep = torch.rand(257, generator=torch.Generator().manual_seed(2)) < 0.7
    parts = list(gallery.split([100, 0, 1, 156]))
    found = top_k(queries, parts, 5, ids=torch.arange(257), keep=keep, chunk_size=chunk_size)
    whole = top_k(queries, gallery[keep], 5, ids=torch.arange(257)[keep])
    assert torch.equal(found.ids, whole.ids)
    assert torch.equal(found.scores, whole.scores)


def test_increasing_maps_of_the_scores_change_nothing():
    gallery, queries = whole_numbers(40, 4, 3), whole_numbers(6, 4, 4)
    shift = torch.full((len(gallery), 1), 1.0)
    plain = top_k(queries, gallery, 10)
    for scale, offset in ((1.0, -100.0), (0.25, 0.0), (8.0, 31.0)):
        asked = torch.cat([scale * queries, torch.full((len(queries), 1), offset)], dim=1)
        mapped = top_k(asked, torch.cat([gallery, shift], dim=1), 10)
        assert torch.equal(mapped.rows, plain.rows)


def test_half_precision_storage_is_multiplied_in_float32():
    generator = torch.Generator().manual_seed(0)
    queries, gallery = (torch.randn(rows, 64, generator=generator).bfloat16() for rows in (3, 50))
    expected = queries.double() @ gallery.double().T
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = top_k(queries, gallery, 50)
    assert found.scores.dtype == torch.float32
    assert torch.allclose(found.scores.double(), expected.sort(dim=1, descending=True).values, atol=1e-4)


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_full_precision_gives_back_the_precision_it_found(precision):
    torch.set_float32_matmul_precision(precision)
    try:
        with full_precision(torch.device("cpu")):
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision("highest")


def test_full_precision_holds_where_backends_were_set_one_by_one():
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        with full_precision(torch.device("cpu")):
            assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("arguments", [{"k": 0}, {"k": 1.0}, {"k": 1, "chunk_size": 0}])
def test_sizes_that_cannot_be_are_refused(arguments):
    with pytest.raises(ValueError, match=f"^{list(arguments)[-1]} must be"):
        top_k(torch.ones(1, 1), torch.ones(1, 1), **arguments)


class _Largest(TorchDispatchMode):
    """Note the bytes of the largest float32 tensor that any operation returns."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else (out,):
            if isinstance(one, torch.Tensor) and one.dtype == torch.float32:
                self.bytes = max(self.bytes, one.untyped_storage().nbytes())
        return out


@pytest.mark.slow  # torch loads much for its first dispatch mode
@pytest.mark.parametrize("parts", [1, 40])
def test_neither_the_gallery_in_float32_nor_all_scores_are_held(parts):
    gallery, queries = whole_numbers(5000, 16, 0).bfloat16(), whole_numbers(1025, 16, 1).bfloat16()
    with _Largest() as largest:
        top_k(queries, gallery.split(len(gallery) // parts), 5, chunk_size=64)
    strip = 4 * 1024 * 64
    assert 0 < largest.bytes <= strip < 4 * gallery.numel()

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics.distributed import Alone
from metrics.repeats import first_seen


def columns(rows, width=32, classes=80):
    generator = torch.Generator().manual_seed(0)
    return {
        "embeddings": torch.nn.functional.normalize(torch.randn(rows, width, generator=generator), dim=1),
        "mentions": torch.rand(rows, classes, generator=generator) < 0.03,
        "image_ids": torch.randint(0, 2**62, (rows,), generator=generator),
    }


@given(st.lists(st.integers(-3, 12), max_size=30))
@settings(max_examples=50, deadline=None)
def test_keeps_the_first_row_of_each_id(ids):
    stored = columns(16)
    rows = torch.tensor(ids, dtype=torch.long)
    keep = first_seen(Alone(), "gallery", rows, {name: values[rows + 3] for name, values in stored.items()})
    assert keep.tolist() == [identity not in ids[:row] for row, identity in enumerate(ids)]


@pytest.mark.parametrize("column", ["embeddings", "mentions", "image_ids"])
def test_an_id_with_other_contents_is_named(column):
    stored, other = columns(9), torch.arange(9)
    other[[7, 8]] = torch.tensor([3, 5])
    contents = {name: values[other].clone() for name, values in stored.items()}
    contents[column][7] = {
        "embeddings": stored["embeddings"][1],
        "mentions": stored["mentions"][3] ^ (torch.arange(80) == 79),
        "image_ids": stored["image_ids"][3] + 1,
    }[column]
    with pytest.raises(ValueError, match=rf"^queries: id 13 was given twice with different {column}; every id"):
        first_seen(Alone(), "queries", other + 10, contents)
    contents[column][7] = stored[column][3]
    assert first_seen(Alone(), "queries", other + 10, contents).tolist() == [True] * 7 + [False] * 2


@pytest.mark.parametrize("lost", [lambda row: row.bfloat16(), lambda row: row.half(), lambda row: row * 1.01])
def test_the_same_row_in_lower_precision_is_the_same(lost):
    row = columns(200, width=512)["embeddings"]
    contents = {"embeddings": [row, lost(row).to(row.dtype)]}
    assert first_seen(Alone(), "gallery", torch.arange(200).repeat(2), contents).sum() == 200


def test_near_neighbours_are_not_the_same():
    """Embeddings of different photos in a narrow cone, cosine 0.95."""
    row = columns(400, width=512)["embeddings"]
    cone = torch.nn.functional.normalize(row + 4.4 * row[:1], dim=1)
    for other in cone[2:]:
        with pytest.raises(ValueError, match="id 0"):
            first_seen(Alone(), "gallery", torch.zeros(2).long(), {"embeddings": torch.stack([cone[1], other])})


def test_parts_and_whole_tensors_are_one():
    rows = torch.arange(20) % 13
    whole = {name: values[rows] for name, values in columns(13).items()}
    parts = {name: values.split([0, 7, 1, 12]) for name, values in whole.items()}
    assert torch.equal(first_seen(Alone(), "x", rows, parts), first_seen(Alone(), "x", rows, whole))
    parts["mentions"] = (whole["mentions"][:13], ~whole["mentions"][13:])
    with pytest.raises(ValueError, match="x: id 0 was given twice with different mentions"):
        first_seen(Alone(), "x", rows, parts)

"""What rows RetrievalRecall takes: narrow ids, rows that come again, rows on a GPU."""

import pytest
import torch

from metrics import RetrievalRecall


def owned(images, captions):
    """Return images and captions of them, with scores that are whole numbers and often tie."""
    generator = torch.Generator().manual_seed(0)
    image_ids = torch.randperm(50, generator=generator)[:images]
    return {
        "image_embeddings": torch.randint(-2, 3, (images, 3), generator=generator).float(),
        "image_ids": image_ids,
        "caption_embeddings": torch.randint(-2, 3, (captions, 3), generator=generator).float(),
        "caption_image_ids": image_ids[torch.randint(0, images, (captions,), generator=generator)],
        "caption_ids": torch.arange(captions),
    }


def score(data):
    metric = RetrievalRecall()
    metric.update(**data)
    return metric.compute()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32])
def test_narrow_ids_mean_the_same_where_caption_ids_and_folds_are_not_given(dtype):
    data = owned(8, 30)
    del data["caption_ids"]
    narrow = {name: rows if rows.is_floating_point() else rows.to(dtype) for name, rows in data.items()}
    assert score(narrow) == score(data)


def test_a_repeated_image_keeps_its_fold_and_a_repeated_caption_its_image():
    data = owned(4, 6) | {"folds": torch.arange(4)}
    for side, column in (("image", "folds"), ("caption", "image_ids")):
        own = [name for name in data if (name == "folds" or name.startswith("image")) == (side == "image")]
        again = data | {name: torch.cat([data[name], data[name][:1]]) for name in own}
        name = column if side == "image" else "caption_image_ids"
        again[name][-1] += 1
        with pytest.raises(ValueError, match=rf"{side}s: id \d+ was given twice with different {column}"):
            score(again)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_finds_the_same():
    data = owned(40, 3000) | {"folds": torch.arange(40) // 10}
    metric = RetrievalRecall(chunk_size=256)
    metric.update(**data)
    expected = metric.compute()
    moved = metric.clone().to("cuda")
    assert {name: value.item() for name, value in moved.compute().items()} == pytest.approx(
        {name: value.item() for name, value in expected.items()}, abs=1e-4
    )
    for way, columns in moved.per_query().items():
        assert torch.equal(columns["ranks"].cpu(), metric.per_query()[way]["ranks"])


def test_missing_sides_are_named():
    metric = RetrievalRecall()
    metric.update_images(torch.ones(1, 1), torch.tensor([1]))
    metric.update_captions(torch.ones(0, 1), torch.arange(0))
    with pytest.raises(ValueError, match="no captions"):
        metric.compute()

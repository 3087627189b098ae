"""Which images and captions BLIP's matching head sees together."""

from __future__ import annotations

import torch

from lightning_modules.blip_matching import matching_combinations

IDS = torch.tensor([4, 4, 6, 7, 7, 9])


def _combine(temperature: float, seed: int, ids: torch.Tensor = IDS) -> tuple[list[int], list[int], list[bool]]:
    """Return the places of the images and of the captions that are shown together, and whether they belong so."""
    count, generator = len(ids), torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(2, count, 5, generator=generator), dim=2)
    places = torch.arange(count)
    shown, tokens, matched = matching_combinations(
        places[:, None, None].float(),
        {"input_ids": places[:, None], "attention_mask": places[:, None] + 10},
        *rows,
        ids,
        torch.tensor(temperature),
        torch.Generator().manual_seed(seed),
    )
    assert torch.equal(tokens["attention_mask"], tokens["input_ids"] + 10)
    return shown.flatten().int().tolist(), tokens["input_ids"].flatten().tolist(), matched.tolist()


def test_every_pair_comes_with_a_wrong_image_and_a_wrong_caption() -> None:
    drawn = set()
    for seed in range(20):
        images, captions, matched = _combine(1.0, seed)
        own = list(range(6))
        assert matched == [True] * 6 + [False] * 12
        assert images[:6] == captions[:6] == captions[6:12] == images[12:] == own
        assert not (IDS[images[6:]] == IDS[captions[6:]]).any()
        drawn.update(zip(images[6:], captions[6:], strict=True))
    assert len(drawn) == 6 * 6 - 6 - 4  # in the end all wrong combinations come up


def test_a_low_temperature_draws_the_most_similar() -> None:
    rows = torch.nn.functional.normalize(torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0)), dim=2)
    images, captions, _ = _combine(1e-4, seed=1)
    similarity = (rows[0] @ rows[1].T).masked_fill(IDS[:, None] == IDS, -2)
    assert captions[12:] == similarity.argmax(dim=1).tolist()
    assert images[6:12] == similarity.argmax(dim=0).tolist()


def test_a_batch_of_one_image_has_nothing_wrong_to_show() -> None:
    assert _combine(1.0, 0, torch.tensor([3, 3])) == ([0, 1], [0, 1], [True, True])

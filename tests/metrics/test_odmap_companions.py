import pytest
import torch

from metrics import ODmAP
from metrics.functional import hallucination_rate, hubness


def searched(gallery=30, queries=9, top_k=(1, 4, 10), seed=0):
    generator = torch.Generator().manual_seed(seed)
    metric = ODmAP(top_k=top_k)
    metric.update_gallery(
        torch.randn(gallery, 5, generator=generator),
        torch.rand(gallery, 6, generator=generator) < 0.3,
        torch.randperm(100, generator=generator)[:gallery],
    )
    removed, kept = (torch.rand(2, queries, 6, generator=generator) < 0.3).unbind()
    metric.update(torch.randn(queries, 5, generator=generator), removed, kept, torch.arange(queries))
    metric.compute()
    return metric


def test_hallucinated_captions_are_those_that_name_a_removed_class():
    found = searched().per_query()
    for query in range(9):
        gone = set(found["removed"][query].nonzero().flatten().tolist())
        named = [set(caption.nonzero().flatten().tolist()) for caption in found["retrieved_mentions"][query]]
        flags = [bool(names & gone) for names in named]
        assert found["hallucinated"][query].tolist() == flags
        for k in (1, 4, 10):
            assert found[f"hallucinated@{k}"][query].item() == pytest.approx(100 * sum(flags[:k]) / k)
    assert found["hallucinated"].any()
    assert not (found["hallucinated"] & found["relevant"]).any()


def test_a_gallery_of_three_captions_is_not_divided_by_ten():
    metric = searched(gallery=3)
    found = metric.per_query()
    rates = hallucination_rate(found["retrieved_mentions"][:, :3], found["removed"], (1, 4, 10))
    assert all(torch.equal(found[f"hallucinated@{k}"], 100 * rate) for k, rate in rates.items())
    assert metric.summary()["hallucinated@10"] > 0


def test_summary_is_made_of_what_per_query_holds():
    metric = searched()
    found, summary = metric.per_query(), metric.summary()
    hubs = hubness(found["retrieved_ids"], 30, (1, 4, 10))
    expected = {f"hallucinated@{k}": found[f"hallucinated@{k}"].mean().item() for k in (1, 4, 10)}
    expected |= {f"hubs/skewness@{k}": skewness for k, skewness in hubs.skewness.items()}
    expected |= {"hubs/distinct@1": 100 * hubs.distinct_top1}
    assert {name: value for name, value in summary.items() if "ODmAP" not in name} == pytest.approx(expected)


def test_a_model_that_returns_one_caption_for_everything_is_all_hub():
    metric = ODmAP(top_k=1)
    metric.update_gallery(torch.eye(4), torch.ones(4, 1).bool(), torch.arange(4))
    metric.update(torch.eye(4)[[2] * 5], torch.ones(5, 1).bool(), torch.zeros(5, 1).bool(), torch.arange(5))
    metric.compute()
    summary = metric.summary()
    assert (summary["hubs/distinct@1"], summary["hallucinated@1"]) == (20, 100)
    assert summary["hubs/skewness@1"] == pytest.approx(2 / 3**0.5)

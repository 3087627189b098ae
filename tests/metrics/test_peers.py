"""Our values beside those of other libraries, each on the reading of the measure that it implements."""

import warnings

import pytest
import torch

from metrics import AnnotatedRetrieval, ODmAP, RetrievalRecall

pytestmark = pytest.mark.filterwarnings("ignore")


def odmap(queries, gallery, mentions, removed, kept, **options):
    """Return the values per query, in the order of the queries."""
    metric = ODmAP(**options)
    metric.update_gallery(gallery, mentions, torch.arange(len(gallery)))
    metric.update(queries, removed, kept, torch.arange(len(queries)))
    metric.compute()
    return metric.per_query()


def random_search(seed=0):
    """Return 40 queries and 120 captions with scores above 0 that do not tie, and which captions are relevant."""
    generator = torch.Generator().manual_seed(seed)
    queries, gallery = torch.rand(40, 6, generator=generator), torch.rand(120, 6, generator=generator)
    mentions = torch.rand(120, 5, generator=generator) < 0.3
    removed = torch.nn.functional.one_hot(torch.randint(0, 5, (40,), generator=generator), 5).bool()
    kept = ~removed & (torch.rand(40, 5, generator=generator) < 0.4)
    relevant = [
        [bool((named & stays).any()) and not bool((named & gone).any()) for named in mentions]
        for gone, stays in zip(removed, kept, strict=True)
    ]
    return (queries, gallery, mentions, removed, kept), queries @ gallery.T, torch.tensor(relevant)


@pytest.mark.parametrize("k", [1, 5, 10, 120])
def test_hits_is_the_map_of_torchmetrics(k):
    from torchmetrics.retrieval import RetrievalMAP

    search, scores, relevant = random_search()
    peer = RetrievalMAP(top_k=k, empty_target_action="neg")
    peer.update(scores.flatten(), relevant.flatten(), torch.arange(40).repeat_interleave(120))
    found = odmap(*search, top_k=k, normalize="hits")[f"ODmAP@{k}"]
    assert found.mean().item() / 100 == pytest.approx(peer.compute().item(), abs=1e-6)


@pytest.mark.slow
def test_k_is_the_map_at_r_of_pytorch_metric_learning_where_r_is_k():
    """Class c is named by k captions alone; queries keep one class each, so that each has R = k relevant captions."""
    from pytorch_metric_learning.distances import DotProductSimilarity
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import CustomKNN

    k, classes = 7, 6
    generator = torch.Generator().manual_seed(0)
    named = torch.arange(classes).repeat_interleave(k)
    wanted = torch.randint(0, classes, (50,), generator=generator)
    centres = torch.randn(classes, 5, generator=generator)
    gallery = centres[named] + torch.randn(len(named), 5, generator=generator)
    queries = centres[wanted] + torch.randn(50, 5, generator=generator)
    knn = CustomKNN(DotProductSimilarity(normalize_embeddings=False))
    name = "mean_average_precision_at_r"
    peer = AccuracyCalculator(
        include=(name,), k="max_bin_count", device=torch.device("cpu"), knn_func=knn, kmeans_func=lambda: None
    )
    theirs = peer.get_accuracy(queries, wanted, gallery, named)[name]
    one_hot = torch.eye(classes).bool()
    found = odmap(queries, gallery, one_hot[named], one_hot[(wanted + 1) % classes], one_hot[wanted], top_k=k)
    assert (found["num_relevant"] == k).all()
    assert 0.1 < theirs < 0.9
    assert found[f"ODmAP@{k}"].mean().item() / 100 == pytest.approx(theirs, abs=1e-6)


@pytest.mark.slow
def test_all_is_the_map_of_ranx(monkeypatch):
    """Queries without any relevant caption cannot be said in ranx; they count as 0 on both sides."""
    monkeypatch.setattr("numba.config.DISABLE_JIT", True)  # compiling takes a minute, these few queries no time
    from ranx import Qrels, Run, evaluate

    search, scores, relevant = random_search()
    answerable = relevant.any(dim=1)
    assert not answerable.all()
    qrels, run = {}, {}
    for query in answerable.nonzero()[:, 0].tolist():
        qrels[str(query)] = {str(caption): 1 for caption in relevant[query].nonzero()[:, 0].tolist()}
        run[str(query)] = {str(caption): score for caption, score in enumerate(scores[query].tolist())}
    theirs = evaluate(Qrels(qrels), Run(run), ["map@1", "map@5", "map@10", "map@120"], threads=1)
    found = odmap(*search, top_k=(1, 5, 10, 120), normalize="all")
    for k in (1, 5, 10, 120):
        ours = found[f"ODmAP@{k}"][answerable].mean().item() / 100
        assert ours == pytest.approx(theirs[f"map@{k}"], abs=1e-6)
    assert (found["ODmAP@120"][~answerable] == 0).all()


@pytest.fixture(scope="module")
def coco():
    """Return the package, embeddings of COCO's test split that rank partly right, and their order by plain products."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it would like another JSON parser
        from eccv_caption import Metrics

    peer = Metrics()
    caption_ids = torch.from_numpy(peer.coco_ids)
    owners = torch.tensor([peer.coco_gts["t2i"][caption][0] for caption in caption_ids.tolist()])
    image_ids = torch.tensor(list(dict.fromkeys(owners.tolist())))
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(5000, 8, generator=generator, dtype=torch.float64)
    rows = torch.arange(5000).repeat_interleave(5)
    captions = images[rows] + 0.7 * torch.randn(25_000, 8, generator=generator, dtype=torch.float64)
    assert torch.equal(image_ids[rows], owners)
    tables = {
        "images": {"embeddings": images, "image_ids": image_ids},
        "captions": {"embeddings": captions, "image_ids": owners, "ids": caption_ids},
    }
    rankings = {
        "i2t_retrieved_items": ranked(images, image_ids, captions, caption_ids),
        "t2i_retrieved_items": ranked(captions, caption_ids, images, image_ids),
    }
    return peer, tables, rankings


def ranked(queries, query_ids, gallery, gallery_ids, depth=200):
    """Return the ids of the first ranks of every query; 200 of 5,000 hold the first 10 of each fold of 1,000."""
    found = {}
    for rows in torch.arange(len(queries)).split(500):
        best = (queries[rows] @ gallery.T).topk(depth).indices
        found |= dict(zip(query_ids[rows].tolist(), gallery_ids[best].tolist(), strict=True))
    return found


def theirs(peer, rankings, *names):
    """Return our names and per cent in place of theirs."""
    values = peer.compute_all_metrics(**rankings, target_metrics=names, Ks=(1, 5, 10))
    return {f"{side}/{name}": 100 * value for name, sides in values.items() for side, value in sides.items()}


def assert_equal(ours, peers, renamed):
    for side in ("i2t", "t2i"):
        for own, other in renamed.items():
            value = ours[own.format(side)].item()
            assert 1 < value < 99
            assert value == pytest.approx(peers[f"{side}/{other}"], abs=1e-4), own


@pytest.mark.slow
@pytest.mark.parametrize("name", ["eccv", "cxc"])
def test_annotated_retrieval_is_that_of_eccv_caption(coco, name):
    peer, tables, rankings = coco
    metric = AnnotatedRetrieval(**getattr(peer, f"{name}_gts"))
    metric.update_images(**tables["images"])
    metric.update_captions(**tables["captions"])
    ours = metric.compute()
    renamed = {f"{{}}/R@{k}": f"{name}_r{k}" for k in (1, 5, 10)}
    peers = theirs(peer, rankings, f"{name}_recalls")
    if name == "eccv":
        renamed |= {"{}/mAP@R": "eccv_map_at_r", "{}/R-Precision": "eccv_rprecision"}
        peers |= theirs(peer, rankings, "eccv_map_at_r", "eccv_rprecision")
    assert_equal(ours, peers, renamed)


@pytest.mark.slow
def test_recall_on_5k_and_on_folds_of_1k_is_that_of_eccv_caption(coco):
    peer, tables, rankings = coco
    metric = RetrievalRecall()
    metric.update_images(**tables["images"], folds=torch.arange(5000) // 1000)
    metric.update_captions(**tables["captions"])
    renamed = {f"{{}}/R@{k}": f"coco_5k_r{k}" for k in (1, 5, 10)}
    renamed |= {f"folds/{{}}/R@{k}": f"coco_1k_r{k}" for k in (1, 5, 10)}
    assert_equal(metric.compute(), theirs(peer, rankings, "coco_5k_recalls", "coco_1k_recalls"), renamed)

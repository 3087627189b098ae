"""One rank of the distributed tests: runs every case and stores what it saw (started by test_distributed.py)."""

from datetime import timedelta

import torch
import torch.distributed as dist

from metrics import AnnotatedRetrieval, GroupAccuracy, ODmAP, ODmAPBaselines, RetrievalRecall, sharded
from metrics.distributed import Ranks


def world_of_rows():
    """Return the whole data: two thirds of the embeddings are whole numbers, so that many scores tie exactly."""
    generator = torch.Generator().manual_seed(0)

    def embeddings(rows):
        values = torch.randn(rows, 6, generator=generator)
        values[: 2 * rows // 3] = values[: 2 * rows // 3].round()
        return values

    owners = torch.randint(0, 17, (61,), generator=generator)
    gallery = {
        "embeddings": embeddings(61),
        "mentions": torch.rand(61, 5, generator=generator) < 0.4,
        "image_ids": owners,
        "ids": torch.randperm(500, generator=generator)[:61],
    }
    queries = {
        "embeddings": embeddings(13),
        "removed": torch.rand(13, 5, generator=generator) < 0.2,
        "kept": torch.rand(13, 5, generator=generator) < 0.4,
        "source_ids": torch.randint(0, 19, (13,), generator=generator),
        "ids": torch.randperm(90, generator=generator)[:13],
    }
    return {
        "gallery": gallery,
        "queries": queries,
        "images": {"embeddings": embeddings(15), "image_ids": torch.arange(15), "folds": torch.arange(15) % 4 - 1},
    }


def even(rows, rank, size):
    return torch.arange(rank, rows, size)


def uneven(rows, rank, size):
    cut = 4 * rows // 5 if size > 1 else rows
    return torch.arange(cut) if rank == 0 else even(rows - cut, rank - 1, max(size - 1, 1)) + cut


def last_rank_empty(rows, rank, size):
    """Return no row on the last rank; a single rank is the first one too and gets all."""
    return even(rows, rank, max(size - 1, 1)) if rank < size - 1 or size == 1 else torch.arange(0)


def all_on_last_rank(rows, rank, size):
    return torch.arange(rows if rank == size - 1 else 0)


def padded(rows, rank, size):
    """Every rank gets as many rows as the fullest one, and three more that other ranks and it itself have too."""
    longest = -(-rows // size)
    return torch.cat([torch.arange(rank, rank + size * longest, size) % rows, torch.tensor([0, 1, rank % rows])])


SHARES = {share.__name__: share for share in (even, uneven, last_rank_empty, all_on_last_rank, padded)}


def pick(columns, rows, *names):
    return {name: columns[name][rows] for name in names}


def positives(gallery):
    """Return annotations that go beyond the owners of the captions, for some of the images and captions."""
    captions = dict(zip(gallery["ids"].tolist(), gallery["image_ids"].tolist(), strict=True))
    t2i = {caption: [image, (image + 1) % 17] for caption, image in captions.items() if caption % 3}
    i2t = {image: [caption for caption, images in t2i.items() if image in images] for image in range(2, 12)}
    return i2t, t2i


def fill(rank, size, share, batch):
    """Return the four metrics filled with this rank's rows, in batches whose number differs between ranks."""
    data = world_of_rows()
    gallery, queries, images = data["gallery"], data["queries"], data["images"]
    odmap = ODmAP(top_k=(1, 4, 70), normalize="min(k,R)", chunk_size=16)
    baselines, recall = ODmAPBaselines(top_k=(1, 4)), RetrievalRecall(chunk_size=16)
    annotated = AnnotatedRetrieval(*positives(gallery), top_k=(1, 5), chunk_size=16)
    for rows in share(61, rank, size).split(batch + rank):
        if len(rows):
            odmap.update_gallery(**pick(gallery, rows, "embeddings", "mentions", "ids"))
            baselines.update_gallery(**pick(gallery, rows, "mentions", "image_ids", "ids"))
            for metric in (recall, annotated):
                metric.update_captions(**pick(gallery, rows, "embeddings", "image_ids", "ids"))
    for rows in share(13, rank, size).split(batch):
        if len(rows):
            odmap.update(**pick(queries, rows, "embeddings", "removed", "kept", "ids"))
            baselines.update(**pick(queries, rows, "removed", "kept", "source_ids", "ids"))
    for rows in share(15, rank, size).split(batch):
        if len(rows):
            recall.update_images(**pick(images, rows, "embeddings", "image_ids", "folds"))
            annotated.update_images(**pick(images, rows, "embeddings", "image_ids"))
    return odmap, baselines, recall, annotated


def outcome(odmap, baselines, recall, annotated):
    extended = {f"annotated/{name}": value for name, value in annotated.compute().items()}
    return {
        "values": {**odmap.compute(), **baselines.compute(), **recall.compute(), **extended},
        "per_query": odmap.per_query(),
        "references": baselines.per_query(),
        "ranks": {f"{way}/{name}": rows for way, found in recall.per_query().items() for name, rows in found.items()},
        "summary": odmap.summary(),
    }


def compute_twice_with_news_on_one_rank(rank, size):
    """A value cached on the other ranks would leave rank 0 waiting."""
    metrics = fill(rank, size, even, 7)
    first = outcome(*metrics)
    if rank == 0:
        metrics[0].update(**pick(world_of_rows()["queries"], slice(2), "embeddings", "removed", "kept", "ids"))
    second = outcome(*metrics)
    return first if first["values"] == second["values"] else second


def forward_on_one_rank(rank, size):
    metrics = fill(rank, size, even, 7)
    if rank == 0:
        metrics[0](**pick(world_of_rows()["queries"], slice(3), "embeddings", "removed", "kept", "ids"))
    return outcome(*metrics)


def gallery_here_queries_there(rank, size):
    odmap, baselines, *others = fill(rank, size, all_on_last_rank, 7)
    fresh = fill(size - 1 - rank, size, all_on_last_rank, 7)
    for metric, other in zip((odmap, baselines), fresh, strict=False):
        for name in metric._defaults:
            if name.startswith("queries"):
                setattr(metric, name, getattr(other, name))
    return outcome(odmap, baselines, *others)


def disagreement(rank, size):
    """Every rank must raise, with the same words."""
    metric = ODmAP()
    classes = 5 if rank == 0 else 4
    metric.update_gallery(torch.ones(2, 3), torch.ones(2, classes).bool(), torch.arange(2) + 2 * rank)
    metric.update(torch.ones(1, 3), torch.zeros(1, classes).bool(), torch.ones(1, classes).bool(), torch.tensor([rank]))
    try:
        metric.compute()
    except ValueError as error:
        return str(error)
    return None


def one_id_for_two_captions(rank, size):
    """The first and the last rank give a caption of one id; every rank must raise, with the same words."""
    metric = ODmAP()
    mentions = torch.zeros(2, 5).bool()
    mentions[1, rank // max(size - 1, 1)] = True
    metric.update_gallery(torch.ones(2, 3), mentions, torch.tensor([100 + rank, 7 if rank in (0, size - 1) else rank]))
    metric.update(torch.ones(1, 3), mentions[:1], mentions[:1], torch.tensor([rank]))
    try:
        metric.compute()
    except ValueError as error:
        return str(error)
    return None


class Listening(Ranks):
    """Ranks that add up the bytes that arrive."""

    def __init__(self, group=None):
        super().__init__(group)
        self.bytes = {"floating": 0, "other": 0}

    def broadcast(self, rows, source):
        return self._heard(super().broadcast(rows, source))

    def gather(self, tensor):
        return [self._heard(one) for one in super().gather(tensor)]

    def _heard(self, tensor):
        self.bytes["floating" if tensor.is_floating_point() else "other"] += tensor.nbytes
        return tensor


def traffic(rank, size):
    """Return the bytes that reached this rank while a gallery of 40 captions a rank was searched, and one of 400."""
    found, connect = {}, sharded.connect
    for captions in (40, 400):
        ranks = Listening()
        sharded.connect = lambda group, ranks=ranks: ranks
        metric = ODmAP()
        metric.update_gallery(
            torch.randn(captions, 3), torch.ones(captions, 5).bool(), torch.arange(captions) + captions * rank
        )
        metric.update(torch.ones(2, 3), torch.zeros(2, 5).bool(), torch.ones(2, 5).bool(), torch.arange(2) + 2 * rank)
        metric.compute()
        found[captions] = ranks.bytes
    sharded.connect = connect
    return found


def nothing_anywhere(rank, size):
    try:
        ODmAP().compute()
    except ValueError as error:
        return str(error)
    return None


def accuracy_by_group(rank, size):
    """Return the values of all samples, however they are shared out."""
    generator = torch.Generator().manual_seed(2)
    samples = {
        "correct": torch.rand(23, generator=generator) < 0.6,
        "groups": torch.randint(0, 3, (23,), generator=generator),
        "ids": torch.randperm(90, generator=generator)[:23],
    }
    found = {}
    for share in (padded, last_rank_empty):
        metric = GroupAccuracy(3, weights=(5, 3, 1))
        if len(rows := share(23, rank, size)):
            metric.update(**pick(samples, rows, "correct", "groups", "ids"))
        found[share.__name__] = metric.compute()
    return found


SPECIAL = {
    function.__name__: function
    for function in (
        compute_twice_with_news_on_one_rank,
        forward_on_one_rank,
        gallery_here_queries_there,
        disagreement,
        one_id_for_two_captions,
        traffic,
        nothing_anywhere,
        accuracy_by_group,
    )
}


def run_cases(rank, size):
    cases = {name: outcome(*fill(rank, size, share, 5)) for name, share in SHARES.items()}
    return cases | {name: special(rank, size) for name, special in SPECIAL.items()}


def main(rank, size, meeting, target):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{meeting}", timedelta(seconds=90), world_size=size, rank=rank)
    torch.save(run_cases(rank, size), target)
    dist.destroy_process_group()


if __name__ == "__ranks__":
    main(rank, size, meeting, target)  # noqa: F821  # set by the caller through `init_globals`

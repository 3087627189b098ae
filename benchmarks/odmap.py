"""ODmAP@10 at the size of COCO against the bare product, and against torchmetrics where that can run.

`python benchmarks/odmap.py` draws 5,000 queries and 616,767 captions (512-d unit rows, 80 classes), checks rankings and
values of 50 queries against a full product in float64, and then takes turns: the whole `compute` against the least
that any exact search has to do, a chunked product + topk, in the best of a few chunk shapes. Peak memory is that of
fresh processes, counted above the interpreter with its libraries, embeddings included. Then torchmetrics'
`RetrievalMAP` on 1,000 x 10,000, which gets scores and targets for nothing, with the same value first. `--scale 0.01`
is a quick look; a GPU is asked for with `--device cuda`. Run it on an idle machine: where other processes take the
cores, threads that spin while they wait (unless OMP_WAIT_POLICY=PASSIVE is set) cost us more than one big product.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from metrics import ODmAP
from metrics.functional import relevance
from metrics.search import full_precision

QUERIES, CAPTIONS, CLASSES, WIDTH, CUT = 5_000, 616_767, 80, 512, 10
PEER_QUERIES, PEER_CAPTIONS = 1_000, 10_000
SLOW_QUERIES, BATCH = 50, 512
SHAPES = {"cpu": ((512, 16_384), (1024, 8192), (2048, 4096)), "cuda": ((4096, 16_384), (5120, 65_536), (1024, 65_536))}
Columns: TypeAlias = dict[str, Tensor]


class Draw:
    """Queries and captions, the same for the same size.

    Args:
        queries: Number of queries.
        captions: Number of captions.
        options: `device`, `dtype` of the embeddings, and whether `masks` of classes are "skewed" or "random".
    """

    def __init__(self, queries: int, captions: int, options: argparse.Namespace) -> None:
        self.queries, self.captions = queries, captions
        self.device, self.skewed = options.device, options.masks == "skewed"
        self.dtype = getattr(torch, options.dtype)

    def asked(self) -> Columns:
        """Return the arguments of `ODmAP.update`; no class is removed and kept at once."""
        removed = self._masks(self.queries, 3, 1.0)
        kept = self._masks(self.queries, 4, 3.0) & ~removed
        embeddings = torch.cat(list(self._embeddings(self.queries, 1)))
        return {
            "embeddings": embeddings,
            "removed": removed,
            "kept": kept,
            "ids": torch.arange(self.queries).to(self.device),
        }

    def gallery(self) -> Columns:
        """Return the arguments of one call of `ODmAP.update_gallery`."""
        embeddings = torch.empty(self.captions, WIDTH, dtype=self.dtype, device=self.device)
        for part, drawn in zip(torch.split(embeddings, BATCH), self._embeddings(self.captions, 0), strict=True):
            part.copy_(drawn)
        return {"embeddings": embeddings, **self._labels()}

    def batches(self) -> Iterator[Columns]:
        """Yield the same captions batch by batch, each in memory of its own."""
        labels = self._labels()
        for start, embeddings in zip(range(0, self.captions, BATCH), self._embeddings(self.captions, 0), strict=True):
            yield {"embeddings": embeddings} | {name: rows[start : start + BATCH] for name, rows in labels.items()}

    def _labels(self) -> Columns:
        order = torch.randperm(self.captions, generator=torch.Generator().manual_seed(5))
        return {"mentions": self._masks(self.captions, 2, 2.0 if self.skewed else 12.0), "ids": order.to(self.device)}

    def _embeddings(self, rows: int, seed: int) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.empty(BATCH, WIDTH)  # one for all batches: freed ones would leave holes in the heap
        for start in range(0, rows, BATCH):
            drawn.normal_(generator=generator)
            yield torch.nn.functional.normalize(drawn[: rows - start], dim=1).to(self.device, self.dtype)

    def _masks(self, rows: int, seed: int, mean: float) -> Tensor:
        weights = 1 / torch.arange(1, CLASSES + 1) if self.skewed else torch.ones(CLASSES)
        drawn = torch.rand(rows, CLASSES, generator=torch.Generator().manual_seed(seed))
        return (drawn < mean * weights / weights.sum()).to(self.device)


def fill(asked: Columns, *captions: Columns, normalize: str = "k") -> ODmAP:
    """Return the metric, ready to compute."""
    metric = ODmAP(top_k=CUT, normalize=normalize)
    for columns in captions:
        metric.update_gallery(**columns)
    metric.update(**asked)
    return metric


def bare(queries: Tensor, gallery: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return scores and rows of the best captions: products, topk, and the best of both so far; no rule for ties."""
    height, width = shape
    scores = torch.full((len(queries), CUT), -torch.inf, device=queries.device)
    rows = torch.zeros_like(scores, dtype=torch.long)
    with full_precision(queries.device):
        for start in range(0, len(gallery), width):
            block = gallery[start : start + width].float().T
            for span in (slice(first, first + height) for first in range(0, len(queries), height)):
                values, columns = (queries[span].float() @ block).topk(min(CUT, block.shape[1]))
                values = torch.cat([scores[span], values], dim=1)
                scores[span], order = values.topk(CUT)
                rows[span] = torch.cat([rows[span], columns + start], dim=1).gather(1, order)
    return scores, rows


def slow_odmap(queries: Columns, gallery: Columns) -> tuple[Tensor, Tensor]:
    """Return caption ids `[Q, CUT]` and AP@10 `[Q]` in per cent, from all products in float64."""
    by_id = gallery["ids"].argsort()
    ranked, values = [], []
    for query, removed, kept in zip(*(queries[name] for name in ("embeddings", "removed", "kept")), strict=True):
        scores = torch.cat([part.double() @ query.double() for part in torch.split(gallery["embeddings"], BATCH)])
        best = by_id[scores[by_id].argsort(descending=True, stable=True)[:CUT]]
        hits = [bool((row & kept).any() and not (row & removed).any()) for row in gallery["mentions"][best]]
        values.append(100 * sum(sum(hits[: i + 1]) / (i + 1) for i in range(len(hits)) if hits[i]) / CUT)
        ranked.append(gallery["ids"][best])
    return torch.stack(ranked).cpu(), torch.tensor(values)


def compare(metric: ODmAP, asked: Columns, gallery: Columns) -> None:
    """Hold the first queries of the last `compute` against the slow path."""
    found = {name: metric.per_query()[name][:SLOW_QUERIES].cpu() for name in ("retrieved_ids", f"ODmAP@{CUT}")}
    ids, values = slow_odmap({name: rows[:SLOW_QUERIES] for name, rows in asked.items()}, gallery)
    same = (found["retrieved_ids"] == ids).all(dim=1)
    # float32 may swap two captions whose scores agree in seven digits
    assert same.float().mean() > 0.95, f"only {int(same.sum())} of {len(same)} rankings are the same"
    torch.testing.assert_close(found[f"ODmAP@{CUT}"][same], values[same])
    print(f"equal to all products in float64: {int(same.sum())} of {len(same)} rankings, and their values\n")


def seconds(work: Callable[[], object], device: str) -> float:
    """Time one call; a GPU is waited for."""
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def take_turns(first: Callable[[], object], second: Callable[[], object], options: argparse.Namespace) -> list[float]:
    """Return the median seconds of both."""
    turns = [[seconds(side, options.device) for side in (first, second)] for _ in range(options.runs)]
    return [statistics.median(side) for side in zip(*turns, strict=True)]


def against_the_product(draw: Draw, options: argparse.Namespace) -> None:
    """Compare values, then time the whole `compute` and the bare product."""
    asked, gallery = draw.asked(), draw.gallery()
    given = seconds(partial(fill, asked, gallery), options.device)
    metric = fill(asked, gallery)
    metric.compute()
    compare(metric, asked, gallery)
    products = {
        shape: partial(bare, asked["embeddings"], gallery["embeddings"], shape) for shape in SHAPES[draw.device]
    }
    tried = {shape: seconds(product, draw.device) for shape, product in products.items()}
    best = min(tried, key=tried.__getitem__)
    ours, theirs = take_turns(metric.compute, products[best], options)
    print(f"| {draw.queries:,} x {draw.captions:,}, {options.dtype}, {options.masks} masks | seconds |\n|---|---|")
    print(f"| giving the rows, gallery in one call | {given:.2f} |\n| whole compute | {ours:.2f} |")
    print(f"| bare product + topk, best shape: {best[0]} x {best[1]} | {theirs:.2f} |")
    print(f"| **ratio**, medians of {options.runs} turns; goal: at most 1.5 | **{ours / theirs:.2f}** |\n")


def against_torchmetrics(options: argparse.Namespace) -> None:
    """Compare values, then time both."""
    ours, theirs = small_ours(), small_torchmetrics()
    torch.testing.assert_close(ours() / 100, theirs())
    print(f"equal to torchmetrics under 'hits': {ours().item():.4f} per cent\n")
    options = argparse.Namespace(**vars(options) | {"device": "cpu"})
    quick, slow = take_turns(ours, theirs, options)
    memory = [measure_apart(way, options)["above inputs"] for way in ("ours", "torchmetrics")]
    print(f"| {PEER_QUERIES:,} x {PEER_CAPTIONS:,}, float32, cpu | ODmAP | RetrievalMAP | ratio |\n|---|---|---|---|")
    print(f"| seconds, medians of {options.runs} turns | {quick:.3f} | {slow:.3f} | {slow / quick:.1f} |")
    print(f"| peak memory above the inputs, MB | {memory[0]:.0f} | {memory[1]:.0f} | {memory[1] / memory[0]:.1f} |")


def small_ours() -> Callable[[], Tensor]:
    """Return ours on the small size: from embeddings to the value."""
    draw = _small()
    asked, gallery = draw.asked(), draw.gallery()
    return lambda: fill(asked, gallery, normalize="hits").compute()[f"ODmAP@{CUT}"]


def small_torchmetrics() -> Callable[[], Tensor]:
    """Return theirs on the small size: from scores above zero (it drops others) and targets to the value."""
    from torchmetrics.retrieval import RetrievalMAP

    draw = _small()
    asked, gallery = draw.asked(), draw.gallery()
    scores = (1 + asked["embeddings"] @ gallery["embeddings"].T).flatten()
    pairs = zip(asked["removed"], asked["kept"], strict=True)
    targets = torch.cat([relevance(gallery["mentions"][None], removed[None], kept[None])[0] for removed, kept in pairs])
    indexes = torch.arange(PEER_QUERIES).repeat_interleave(PEER_CAPTIONS)
    return lambda: RetrievalMAP(top_k=CUT)(scores, targets, indexes=indexes)


def _small() -> Draw:
    options = argparse.Namespace(device="cpu", dtype="float32", masks="skewed")
    return Draw(PEER_QUERIES, PEER_CAPTIONS, options)


def measure_big(draw: Draw, way: str) -> dict[str, float]:
    """Draw, fill and compute in this process; MB."""
    by_gpu = draw.device == "cuda"
    before = 0.0 if by_gpu else _status("VmRSS:")  # of an interpreter with torch and torchmetrics
    metric = fill(draw.asked(), *(draw.batches() if way == "batches" else [draw.gallery()]))
    metric.compute()
    held = [part.nbytes for part in (*metric.gallery_embeddings, *metric.queries_embeddings)]
    peak = torch.cuda.max_memory_allocated() / 2**20 if by_gpu else _status("VmHWM:")
    return {"embeddings": sum(held) / 2**20, "before": before, "peak": peak}


def measure_small(way: str) -> dict[str, float]:
    """Run one side of the small size in this process; MB."""
    work = small_ours() if way == "ours" else small_torchmetrics()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # else freed memory would hide what comes
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = _status("VmRSS:")
    work()
    return {"above inputs": _status("VmHWM:") - before}


def measure_apart(way: str, options: argparse.Namespace) -> dict[str, float]:
    """Return the measures of a fresh process."""
    names = ("scale", "device", "dtype", "masks")
    given = [part for name in names for part in (f"--{name}", str(getattr(options, name)))]
    command = [sys.executable, __file__, "--measure", way, *given]
    figures: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return figures


def report_memory(options: argparse.Namespace) -> None:
    """Print the peaks of fresh processes."""
    where = "GPU" if options.device == "cuda" else "process"
    columns = ("embeddings", "before", "peak")
    print(f"| MB of the {where} | {' | '.join(columns)} | **peak above before / embeddings**, goal: at most 1.5 |")
    print("|---|---|---|---|---|")
    for way, words in (("whole", "gallery in one call"), ("batches", f"gallery in batches of {BATCH}")):
        found = measure_apart(way, options)
        ratio = (found["peak"] - found["before"]) / found["embeddings"]
        print(f"| {words} | {' | '.join(f'{found[name]:.0f}' for name in columns)} | **{ratio:.2f}** |")
    print()


def _status(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) / 1024


def main() -> None:
    """Run the whole comparison, or one measurement of it in this process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="share of COCO's size")
    parser.add_argument("--device", choices=list(SHAPES), default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32", help="of embeddings")
    parser.add_argument(
        "--masks", choices=["skewed", "random"], default="skewed", help="which classes captions mention"
    )
    parser.add_argument("--runs", type=int, default=3, help="turns of both sides")
    parser.add_argument("--measure", choices=["whole", "batches", "ours", "torchmetrics"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    draw = Draw(max(SLOW_QUERIES, int(QUERIES * options.scale)), max(CUT, int(CAPTIONS * options.scale)), options)
    if options.measure in ("ours", "torchmetrics"):
        print(json.dumps(measure_small(options.measure)))
    elif options.measure:
        print(json.dumps(measure_big(draw, options.measure)))
    else:
        device = torch.cuda.get_device_name() if options.device == "cuda" else f"{torch.get_num_threads()} threads"
        print(f"torch {torch.__version__}, Python {platform.python_version()}, {device}")
        against_the_product(draw, options)
        report_memory(options)
        against_torchmetrics(options)


if __name__ == "__main__":
    main()

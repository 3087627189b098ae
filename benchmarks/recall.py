"""Recall@1/5/10 of images and captions against peers: same embeddings, values compared before times.

`python benchmarks/recall.py` draws 5,000 images and 25,000 captions (256-d unit rows, a caption is its image plus
noise) and runs `RetrievalRecall` beside the least that an exact search has to do: the chunked products with a topk of
each, in both directions. At 1,000 x 5,000 it runs beside CLIP_benchmark's `recall_at_k`, in both directions too, and
beside three `RetrievalHitRate` of torchmetrics, image to text alone. Sides run in turn in one process; their memory is
measured in a process of their own, as the peak above imports and embeddings. `--scale 0.1` is a quick look,
`--device cuda` takes the GPU.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from metrics import RetrievalRecall

CUTS, CAPTIONS, WIDTH, NOISE = (1, 5, 10), 5, 256, 7.0
HEIGHTS = (128, 256, 512, 1024, 2048)
Recalls: TypeAlias = dict[str, float]
"""Keys as those of `RetrievalRecall`, values in per cent."""


class Data(NamedTuple):
    """Unit rows of images and captions, and the row of the image of every caption."""

    images: Tensor
    captions: Tensor
    owners: Tensor


class Side(NamedTuple):
    """One way to the same recalls, and how often it is worth timing."""

    run: Callable[[Data], Recalls]
    runs: int


def draw(images: int, device: str) -> Data:
    """Draw embeddings whose recall is far from 0 and from 100."""
    generator = torch.Generator().manual_seed(0)
    owners = torch.arange(images).repeat_interleave(CAPTIONS)
    centres = torch.nn.functional.normalize(torch.randn(images, WIDTH, generator=generator))
    noise = NOISE * torch.randn(len(owners), WIDTH, generator=generator) / WIDTH**0.5
    captions = torch.nn.functional.normalize(centres[owners] + noise)
    return Data(centres.to(device), captions.to(device), owners.to(device))


def ours(data: Data) -> Recalls:
    """Both directions, with ranks."""
    metric = RetrievalRecall(CUTS).to(data.images.device)
    metric.update_images(data.images, torch.arange(len(data.images), device=data.owners.device))
    metric.update_captions(data.captions, data.owners, torch.arange(len(data.owners), device=data.owners.device))
    return {name: float(value) for name, value in metric.compute().items() if "/R@" in name}


def bare(data: Data, height: int) -> Recalls:
    """Products of `height` queries at a time, and the topk of each: both directions."""
    image_ids = torch.arange(len(data.images), device=data.owners.device)
    i2t = _bare_hits(data.images, image_ids, data.captions, data.owners, height)
    t2i = _bare_hits(data.captions, data.owners, data.images, image_ids, height)
    return {f"{way}/R@{k}": _share(hits[:, :k]) for way, hits in (("i2t", i2t), ("t2i", t2i)) for k in CUTS}


def _bare_hits(queries: Tensor, query_images: Tensor, gallery: Tensor, gallery_images: Tensor, height: int) -> Tensor:
    found = torch.cat([(block @ gallery.T).topk(max(CUTS)).indices for block in queries.split(height)])
    return gallery_images[found] == query_images[:, None]


def _share(hits: Tensor) -> float:
    return 100 * float(hits.any(dim=1).double().mean())


def clip_benchmark(data: Data) -> Recalls:
    """Both directions, in batches of 64, as its `evaluate` does."""
    from clip_benchmark.metrics.zeroshot_retrieval import batchify, recall_at_k

    scores = data.captions @ data.images.T
    positive = data.owners[:, None] == torch.arange(len(data.images), device=data.owners.device)
    sides = {"i2t": (scores.T, positive.T), "t2i": (scores, positive)}
    return {
        f"{way}/R@{k}": 100 * float((batchify(recall_at_k, *side, 64, scores.device, k=k) > 0).double().mean())
        for way, side in sides.items()
        for k in CUTS
    }


def torchmetrics_hit_rate(data: Data) -> Recalls:
    """Image to text alone; the scores are shifted, as it takes no negative ones for hits."""
    from torchmetrics.retrieval import RetrievalHitRate

    image_ids = torch.arange(len(data.images), device=data.owners.device)
    scores = (data.images @ data.captions.T + 2).flatten()
    target = (image_ids[:, None] == data.owners).flatten()
    indexes = image_ids.repeat_interleave(len(data.captions))
    values = {}
    for k in CUTS:
        metric = RetrievalHitRate(top_k=k).to(scores.device)
        metric.update(scores, target, indexes)
        values[f"i2t/R@{k}"] = 100 * float(metric.compute())
    return values


SIDES: dict[str, Side] = {
    "RetrievalRecall": Side(ours, 5),
    **{f"product + topk, {height} queries": Side(lambda data, h=height: bare(data, h), 5) for height in HEIGHTS},
    "CLIP_benchmark": Side(clip_benchmark, 3),
    "torchmetrics x 3, i2t": Side(torchmetrics_hit_rate, 1),
}
ROUNDS = {5000: [name for name in SIDES if name.startswith(("Retrieval", "product"))]}
ROUNDS[1000] = [name for name in SIDES if not name.startswith("product")]


def compare(data: Data, names: list[str]) -> None:
    """Refuse to time sides that disagree; different products may round two near scores the other way round."""
    reference = SIDES[names[0]].run(data)
    assert 1 < min(reference.values()) < 99, reference
    print(", ".join(f"{name} {value:.2f}" for name, value in reference.items()))
    for name in names[1:]:
        found = SIDES[name].run(data)
        for key, value in found.items():
            queries = len(data.images if key.startswith("i2t") else data.captions)
            differ = abs(value - reference[key]) * queries / 100
            assert differ < 1.5, f"{name}: {differ:.0f} queries of {key} differ"


def clock(data: Data, names: list[str]) -> dict[str, float]:
    """Return the median seconds of every side; the sides take turns. `compare` was their warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(max(SIDES[name].runs for name in names)):
        for name in names:
            if turn < SIDES[name].runs:
                start = time.perf_counter()
                SIDES[name].run(data)  # ends with numbers on the CPU, so a GPU is done
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def peak(name: str, images: int, device: str) -> float:
    """Return the MB that a side needs in this process above imports and embeddings."""
    SIDES[name].run(draw(20, device))
    data = draw(images, device)
    if device == "cuda":
        held = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        SIDES[name].run(data)
        return (torch.cuda.max_memory_allocated() - held) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # Linux: starts VmHWM anew
    before = _status("VmRSS:")
    SIDES[name].run(data)
    return _status("VmHWM:") - before


def _status(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def _peak_apart(name: str, images: int, device: str) -> float:
    command = [sys.executable, __file__, "--measure", name, "--images", str(images), "--device", device]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def report(images: int, names: list[str], device: str) -> None:
    """Compare, time, measure and print one table; of the bare sides only the fastest."""
    print(f"\n{images:,} images x {CAPTIONS * images:,} captions, {WIDTH}-d float32, R@{'/'.join(map(str, CUTS))}\n")
    data = draw(images, device)
    compare(data, names)
    seconds = clock(data, names)
    fastest = min((name for name in names if name.startswith("product")), key=seconds.__getitem__, default="")
    print("\n| side | median of | seconds | in units of ours | peak above embeddings, MB |\n|---|---|---|---|---|")
    for name in names:
        if name == fastest or not name.startswith("product"):
            figures = f"{seconds[name]:.3f} | {seconds[name] / seconds[names[0]]:.2f}"
            print(f"| {name} | {SIDES[name].runs} | {figures} | {_peak_apart(name, images, device):.0f} |")


def main() -> None:
    """Run the whole comparison, or one measurement of memory in this process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full sizes")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--measure", choices=list(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--images", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(peak(arguments.measure, arguments.images, arguments.device))
        return
    device = torch.cuda.get_device_name() if arguments.device == "cuda" else platform.processor() or platform.machine()
    versions = ", ".join(f"{package} {version(package)}" for package in ("torch", "torchmetrics", "clip-benchmark"))
    print(f"{device}, {torch.get_num_threads()} threads, Python {platform.python_version()}, {versions}")
    for images, names in ROUNDS.items():
        report(int(images * arguments.scale), names, arguments.device)


if __name__ == "__main__":
    main()

"""Re-ranking with BLIP's matching head: image by image from disk, or query by query from memory; equal scores first.

`python benchmarks/reranking.py` takes 240 images with 5 captions each: drawn image states and tokens, a small text
tower with random weights, 10 candidates per query in both directions. "Query by query" is the straightforward way: all
image states in memory, the candidates of every query scored in one pass, image states repeated for every caption. Both
sides must find the same recalls; then pairs per second, of those that the two directions ask for. Peak memory is that
of fresh processes with 500 and with 2,000 images, beside that of ranking by embeddings alone, whose own working space
grows to a bound; a sum takes the place of the text tower there. `--scale 0.25` is a
quick look; `--tower base --device cuda` takes BLIP's own sizes, 256 candidates and bfloat16.
"""

from __future__ import annotations

import argparse
import ctypes
import logging
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datamodules.batch import RetrievalBatch, Tokens
from lightning_modules.blip import BLIP
from lightning_modules.evaluation import RetrievalEvaluation
from lightning_modules.pair_matcher import PairMatcher

IMAGES, MEMORY_IMAGES, EACH, LENGTH, CUTS, BATCH = 240, (500, 2_000), 5, 35, (1, 5, 10), 64
TOWERS = {"small": {"states": 145, "width": 192, "layers": 4}, "base": {"states": 577, "width": 768, "layers": 12}}
DEPTHS = {"small": 10, "base": 256}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{number}" for number in range(1_000))]

Match = Callable[[Tensor, Tokens], Tensor]


class World:
    """Embeddings, image states and tokens that are drawn; a caption lies near its image."""

    def __init__(self, images: int, tower: str, device: str) -> None:
        generator = torch.Generator().manual_seed(0)
        self.tower, self.device, self.depth = TOWERS[tower], device, min(DEPTHS[tower], images)
        self.images = normalize(torch.randn(images, 64, generator=generator), dim=1)
        self.owners = torch.arange(images).repeat_interleave(EACH)
        noise = torch.randn(len(self.owners), 64, generator=generator)
        self.captions = normalize(self.images[self.owners] + 0.4 * noise, dim=1)
        lengths = torch.randint(8, 22, (len(self.owners), 1), generator=generator)
        mask = torch.arange(LENGTH) < lengths
        ids = torch.randint(5, len(WORDS), (len(self.owners), LENGTH), generator=generator)
        self.tokens = {"input_ids": ids * mask, "attention_mask": mask.long()}

    @property
    def asked(self) -> int:
        """How many pairs the two directions ask for."""
        return self.depth * (len(self.images) + len(self.captions))

    def states(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield rows of images and their states, as an image tower would give them."""
        drawn = torch.empty(BATCH, self.tower["states"], self.tower["width"])  # one: freed ones would leave holes
        for start in range(0, len(self.images), BATCH):
            rows = slice(start, min(start + BATCH, len(self.images)))
            drawn.normal_(generator=torch.Generator().manual_seed(start))
            yield rows, drawn[: rows.stop - start]

    def some_tokens(self, rows: Tensor) -> dict[str, Tensor]:
        """Return the tokens of these captions."""
        return {name: values[rows].to(self.device) for name, values in self.tokens.items()}


def ours(match: Match, world: World) -> tuple[dict[str, float], float]:
    """Return the recalls and the seconds that the scores of pairs took."""
    evaluation, taken = RetrievalEvaluation(CUTS), [0.0]
    with tempfile.TemporaryDirectory() as folder:
        matcher = PairMatcher(match, Path(folder), torch.device(world.device), 256)

        def scores(image_ids: Tensor, caption_ids: Tensor) -> Tensor:
            start = time.perf_counter()
            found = matcher.scores(image_ids, caption_ids).cpu()
            taken[0] += time.perf_counter() - start
            return found

        evaluation.rerank_by(scores, world.depth)
        for rows, states in world.states():
            ids = torch.arange(rows.start, rows.stop)
            evaluation.update_images(_batch(ids), world.images[rows])
            matcher.add_images(ids, states)
        for rows in torch.arange(len(world.captions)).split(256):
            evaluation.update_captions(_batch(world.owners[rows], rows), world.captions[rows])
            matcher.add_captions(rows, {name: values[rows] for name, values in world.tokens.items()})
        found = evaluation.compute()
        matcher.close()
    names = [f"{way}/R@{k}" for way in ("i2t", "t2i") for k in CUTS]
    return {name: float(found[f"reranked/{name}"]) for name in names}, taken[0]


def embeddings_alone(match: Match, world: World) -> None:
    """Rank by embeddings, without a look at the states."""
    evaluation = RetrievalEvaluation(CUTS)
    evaluation.update_images(_batch(torch.arange(len(world.images))), world.images)
    evaluation.update_captions(_batch(world.owners, torch.arange(len(world.owners))), world.captions)
    evaluation.compute()


def query_by_query(match: Match, world: World) -> tuple[dict[str, float], float]:
    """Return the same by full matrices, as retrieval with a matching head is usually evaluated."""
    states = torch.cat([part.half() for _, part in world.states()])
    cosines = world.images @ world.captions.T
    start = time.perf_counter()
    i2t, t2i = torch.full_like(cosines, -100), torch.full_like(cosines.T, -100)
    for image, row in enumerate(cosines):
        best, captions = row.topk(world.depth)
        repeated = states[image].expand(world.depth, -1, -1).to(world.device).float()
        i2t[image, captions] = best + match(repeated, world.some_tokens(captions)).float().cpu()
    for caption, row in enumerate(cosines.T):
        best, images = row.topk(world.depth)
        tokens = world.some_tokens(torch.full_like(images, caption))
        t2i[caption, images] = best + match(states[images].to(world.device).float(), tokens).float().cpu()
    taken = time.perf_counter() - start
    own = world.owners == torch.arange(len(world.images))[:, None]
    found = {}
    for way, scores, mine in (("i2t", i2t, own), ("t2i", t2i, own.T)):
        ranked = mine.gather(1, scores.argsort(dim=1, descending=True))
        found |= {f"{way}/R@{k}": 100 * ranked[:, :k].any(dim=1).float().mean().item() for k in CUTS}
    return found, taken


SIDES = {"ours": ours, "query by query": query_by_query}
MEASURED: dict[str, Callable[[Match, World], object]] = {**SIDES, "ours, embeddings alone": embeddings_alone}


def text_tower(tower: str, device: str) -> Match:
    """Return BLIP's matching with random weights, in bfloat16 on a GPU."""
    sizes = TOWERS[tower]
    heads = {"num_hidden_layers": sizes["layers"], "num_attention_heads": sizes["width"] // 64}
    width = {"hidden_size": sizes["width"], "intermediate_size": 4 * sizes["width"]}
    config: dict[str, Any] = {
        "text_config": {**heads, **width, "encoder_hidden_size": sizes["width"], "vocab_size": len(WORDS) + 2},
        "vision_config": {"num_hidden_layers": 1, "hidden_size": sizes["width"], "num_attention_heads": 1},
    }
    torch.manual_seed(0)
    model = BLIP(config=config, tokenizer=WORDS, queue_size=1).eval().to(device)
    with torch.no_grad():
        model.model.itm_head.weight.mul_(10)  # else random weights hardly reorder anything

    def match(states: Tensor, tokens: Tokens) -> Tensor:
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            return model.match_captions(states, tokens)

    return match


def summed(states: Tensor, tokens: Tokens) -> Tensor:
    """Stand in for the text tower where memory is measured."""
    assert not isinstance(tokens, Tensor)
    return states.mean(dim=(1, 2)) + (tokens["input_ids"].float() * tokens["attention_mask"]).mean(dim=1) / len(WORDS)


def compare(match: Match, world: World) -> dict[str, float]:
    """Return the seconds of both sides, whose recalls must agree within one query: scores may tie but for rounding."""
    found, taken = {}, {}
    for side, run in SIDES.items():
        found[side], taken[side] = run(match, world)
    for name, value in found["ours"].items():
        queries = len(world.images) if name.startswith("i2t") else len(world.captions)
        assert abs(value - found["query by query"][name]) <= 100.01 / queries, (name, found)
    print("equal recalls: " + ", ".join(f"{name} {value:.1f}" for name, value in found["ours"].items()) + "\n")
    return taken


def peak(side: str, images: int) -> float:
    """Return the MB that a side needs in this process above the interpreter with its libraries."""
    MEASURED[side](summed, World(20, "small", "cpu"))
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # else freed memory would hide what comes
    Path("/proc/self/clear_refs").write_text("5")  # Linux: starts VmHWM anew
    before = _status("VmRSS:")
    MEASURED[side](summed, World(images, "small", "cpu"))
    return _status("VmHWM:") - before


def _batch(image_ids: Tensor, caption_ids: Tensor | None = None) -> RetrievalBatch:
    absent = torch.full_like(image_ids, -1)
    captions = absent if caption_ids is None else caption_ids
    return RetrievalBatch(image_ids, captions, image_ids, captions, synthetic=absent > 0)


def _status(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def _peak_apart(side: str, images: int) -> float:
    command = [sys.executable, __file__, "--measure", side, "--images", str(images)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    """Run the whole comparison, or one measurement of it in this process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="share of the images")
    parser.add_argument("--tower", choices=list(TOWERS), default="small")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--measure", choices=list(MEASURED), help=argparse.SUPPRESS)
    parser.add_argument("--images", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.getLogger("lightning").setLevel(logging.ERROR)
    if options.measure:
        print(peak(options.measure, options.images))
        return
    where = torch.cuda.get_device_name() if options.device == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, Python {platform.python_version()}, {where}")
    world = World(max(20, int(IMAGES * options.scale)), options.tower, options.device)
    taken = compare(text_tower(options.tower, options.device), world)
    print(f"| {len(world.images):,} images, {world.asked:,} pairs asked for, tower {options.tower} | pairs a second |")
    print("|---|---|")
    for side, seconds in taken.items():
        print(f"| {side} | {world.asked / seconds:,.0f} |")
    small, large = (max(20, int(images * options.scale)) for images in MEMORY_IMAGES)
    print(f"\n| peak memory above the process, MB | {small:,} images | {large:,} images |\n|---|---|---|")
    for side in MEASURED:
        print(f"| {side} | {_peak_apart(side, small):.0f} | {_peak_apart(side, large):.0f} |")


if __name__ == "__main__":
    main()

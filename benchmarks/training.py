"""`Trainer.fit` through our module against a bare PyTorch loop: the same losses step by step first, then seconds.

`python benchmarks/training.py` trains a small CLIP on the CPU; `--device cuda` trains ViT-B/32 at batch 256 in
bfloat16. The bare loop is what one writes over open_clip: its model, its `ClipLoss`, autocast, Adam, and the clamp of
the scale. Both sides start from the same weights and take the same batches from memory; the sides take turns, and a
step's time is taken where training is under way. `--micro_batch_size` shows what encoding in parts costs and saves.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import open_clip
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datamodules.batch import RetrievalBatch
from lightning_modules import CLIP

SMALL = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 64, "timm_model_name": "test_byobnet", "timm_pool": "avg", "timm_proj": "linear"},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 64, "heads": 4, "layers": 1},
}
WARM_UP, ROUNDS, LR = 5, 5, 1e-5


class Taken(NamedTuple):
    """Losses of all steps, seconds of a step, and the most memory in use on the device."""

    losses: list[float]
    seconds: float
    bytes: int


class Clock:
    """Seconds of a step between the end of the warm-up and the last step."""

    def __init__(self, device: torch.device, steps: int) -> None:
        self.device, self.steps, self.times = device, steps, {}
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def step(self, done: int) -> None:
        """Note the time where it counts; the device is waited for there alone."""
        if done in (WARM_UP, self.steps):
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            self.times[done] = time.perf_counter()

    def taken(self, losses: list[torch.Tensor]) -> Taken:
        """Return what the run has taken."""
        seconds = (self.times[self.steps] - self.times[WARM_UP]) / (self.steps - WARM_UP)
        memory = torch.cuda.max_memory_allocated() if self.device.type == "cuda" else 0
        return Taken([float(loss) for loss in losses], seconds, memory)


class Watch(Callback):
    """Notes times and losses of a fit."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.losses = clock, []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Note the loss and, where it counts, the time."""
        self.losses.append(outputs["loss"])
        self.clock.step(len(self.losses))


def draw(model: CLIP, count: int, steps: int) -> list[RetrievalBatch]:
    """Make batches of noise images and random captions."""
    torch.manual_seed(0)
    ids = torch.arange(count)
    size = model.model.visual.image_size
    size = size if isinstance(size, int) else size[0]
    words = ["a", "dog", "cat", "frisbee", "on", "the", "grass", "beside", "two", "red", "tables", "with", "cups"]
    batches = []
    for _ in range(steps):
        captions = [" ".join(words[word] for word in torch.randint(len(words), (10,))) for _ in range(count)]
        batches.append(
            RetrievalBatch(
                image_ids=ids,
                caption_ids=ids,
                source_ids=ids,
                source_caption_ids=ids,
                synthetic=torch.zeros(count, dtype=torch.bool),
                pixel_values=torch.randn(count, 3, size, size),
                tokens=model.processor.tokenize(captions),
            )
        )
    return [batch.pin_memory() for batch in batches] if torch.cuda.is_available() else batches


def ours(model: CLIP, batches: list[RetrievalBatch], device: torch.device, precision: str) -> Taken:
    """Train by `Trainer.fit`, with the log of every run."""
    watch = Watch(Clock(device, len(batches)))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            max_epochs=1,
            precision=precision,
            logger=CSVLogger(folder),
            callbacks=[watch],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(model, DataLoader(batches, batch_size=None))
    return watch.clock.taken(watch.losses)


def bare(model: Any, batches: list[RetrievalBatch], device: torch.device, precision: str) -> Taken:
    """Train by a loop."""
    model = model.to(device).train()
    optimizer, loss_of, losses = torch.optim.Adam(model.parameters(), lr=LR), open_clip.ClipLoss(), []
    clock = Clock(device, len(batches))
    for done, batch in enumerate(batches, start=1):
        images = batch.pixel_values.to(device, non_blocking=True)
        tokens = batch.tokens.to(device, non_blocking=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
            image_rows, text_rows, scale = model(images, tokens)
            loss = loss_of(image_rows.float(), text_rows.float(), scale)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        losses.append(loss.detach())
        clock.step(done)
    return clock.taken(losses)


def main() -> None:
    """Compare the losses, then print seconds of a step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--batch_size", type=int, help="default: 64 on the CPU, 256 on a GPU")
    parser.add_argument("--steps", type=int, help="of a round; default: 25 on the CPU, 60 on a GPU")
    parser.add_argument("--micro_batch_size", type=int)
    given = parser.parse_args()
    if given.steps is not None and given.steps <= WARM_UP:
        parser.error(f"--steps {given.steps}: the first {WARM_UP} are not timed, give more")
    device, on_gpu = torch.device(given.device), given.device == "cuda"
    precision = "bf16-mixed" if on_gpu else "32-true"
    what = {"architecture": "ViT-B-32"} if on_gpu else {"model_config": SMALL}
    start = CLIP(**what, lr=LR, micro_batch_size=given.micro_batch_size)
    count = given.batch_size or (256 if on_gpu else 64)
    batches = draw(start, count, given.steps or (60 if on_gpu else 25))
    mine, theirs = [], []
    for _ in range(ROUNDS):
        mine.append(ours(copy.deepcopy(start), batches, device, precision))
        theirs.append(bare(copy.deepcopy(start.model), batches, device, precision))
    check(mine[0].losses, theirs[0].losses, 1e-4 if precision == "32-true" and given.micro_batch_size is None else 0.05)
    print(f"{what if on_gpu else 'a small CLIP'}, batches of {count}, {precision}; torch {torch.__version__}, ", end="")
    print(f"lightning {lightning.__version__}, {torch.cuda.get_device_name() if on_gpu else 'CPU'}")
    for name, runs in (("Trainer.fit through our module", mine), ("bare loop", theirs)):
        seconds = statistics.median(run.seconds for run in runs)
        memory = f"{runs[0].bytes / 2**30:8.1f} GiB" if on_gpu else ""
        print(f"{name:32}{seconds * 1000:10.2f} ms a step{count / seconds:12,.0f} samples/s{memory}")
    ratios = [one.seconds / other.seconds - 1 for one, other in zip(mine, theirs, strict=True)]
    print(f"overhead (median of {ROUNDS} rounds)     {100 * statistics.median(ratios):9.1f} %")


def check(mine: list[float], theirs: list[float], tolerance: float) -> None:
    """Ask for equal losses at every step, up to rounding that grows as training goes on."""
    apart = max(abs(one - other) for one, other in zip(mine, theirs, strict=True))
    assert len(mine) == len(theirs)
    assert apart <= tolerance, f"losses differ by {apart}"
    print(f"losses of {len(mine)} steps agree to {apart:.0e} (first {mine[0]:.4f}, last {mine[-1]:.4f})")


if __name__ == "__main__":
    main()

"""The max-of-hinges triplet loss against the full matrices that it is usually written with: equal first, then seconds.

`python benchmarks/triplet.py` takes batches of 128 to 4,096 pairs (1,024-d unit rows, float32), forward and backward.
Loss and gradients must agree to 1e-6; then the sides take turns and the medians are printed, with the memory that each
needs above its embeddings in a process of its own. `--scale 0.25` is a quick look, `--device cuda` asks for a GPU.
"""

from __future__ import annotations

import argparse
import ctypes
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lightning_modules.losses import TripletLoss

SIZES, WIDTH, MARGIN, TURNS = (128, 256, 512, 1024, 2048, 4096), 1024, 0.2, 9


def ours(images: Tensor, texts: Tensor) -> Tensor:
    """Return the loss as the framework takes it."""
    loss: Tensor = TripletLoss(MARGIN)(images, texts)
    return loss


def full_matrices(images: Tensor, texts: Tensor) -> Tensor:
    """Return the loss the straightforward way: a cost for every combination, in both directions, own pairs masked."""
    scores = images @ texts.T
    pairs = scores.diag()
    own = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    captions = (MARGIN + scores - pairs[:, None]).clamp(min=0).masked_fill_(own, 0)
    photos = (MARGIN + scores - pairs[None]).clamp(min=0).masked_fill_(own, 0)
    return captions.max(dim=1).values.sum() + photos.max(dim=0).values.sum()


SIDES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"ours": ours, "full matrices": full_matrices}


def draw(pairs: int, device: str) -> list[Tensor]:
    """Return embeddings of images and of captions that lie near them, some nearer to others."""
    generator = torch.Generator().manual_seed(0)
    images, noise = (torch.randn(pairs, WIDTH, generator=generator) for _ in range(2))
    rows = [F.normalize(values, dim=1) for values in (images, images + 6 * noise)]
    return [values.to(device).requires_grad_() for values in rows]


def step(side: str, rows: list[Tensor]) -> tuple[Tensor, ...]:
    """Return the loss and the gradients `[B, D]` of a side."""
    loss = SIDES[side](*rows)
    return (loss.detach(), *torch.autograd.grad(loss, rows))


def compare(rows: list[Tensor]) -> None:
    """Refuse to time sides that disagree."""
    (loss, *grads), (right, *right_grads) = (step(side, rows) for side in SIDES)
    assert right > 0.01 * MARGIN * len(rows[0]), "hardly any pair costs something"
    torch.testing.assert_close(loss, right, rtol=1e-6, atol=0)
    torch.testing.assert_close(grads, right_grads, rtol=0, atol=1e-6)


def clock(rows: list[Tensor]) -> dict[str, float]:
    """Return the median milliseconds of every side; the sides take turns. `compare` was their warm-up."""
    taken: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(TURNS):
        for side, times in taken.items():
            start = time.perf_counter()
            step(side, rows)[0].item()
            if rows[0].is_cuda:
                torch.cuda.synchronize()
            times.append(1000 * (time.perf_counter() - start))
    return {side: statistics.median(times) for side, times in taken.items()}


def peak(side: str, pairs: int, device: str) -> float:
    """Return the MB that a side needs in this process above its embeddings."""
    step(side, draw(16, device))
    rows = draw(pairs, device)
    if device == "cuda":
        held = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step(side, rows)
        return (torch.cuda.max_memory_allocated() - held) / 2**20
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # else freed memory would hide what comes
    Path("/proc/self/clear_refs").write_text("5")  # Linux: starts VmHWM anew
    before = _status("VmRSS:")
    step(side, rows)
    return _status("VmHWM:") - before


def _status(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def _peak_apart(side: str, pairs: int, device: str) -> float:
    command = [sys.executable, __file__, "--measure", side, "--pairs", str(pairs), "--device", device]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def report(pairs: int, device: str) -> None:
    """Compare, time and measure one size of batch, and print its row."""
    rows = draw(pairs, device)
    compare(rows)
    mine, other = clock(rows).values()
    memory = [_peak_apart(side, pairs, device) for side in SIDES]
    print(f"| {pairs:,} | {mine:.2f} | {other:.2f} | {other / mine:.1f} | {memory[0]:.0f} | {memory[1]:.0f} |")


def main() -> None:
    """Print one row per size, or one measurement of memory in this process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="share of the sizes")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--measure", choices=list(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--pairs", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(peak(arguments.measure, arguments.pairs, arguments.device))
        return
    device = torch.cuda.get_device_name() if arguments.device == "cuda" else platform.processor() or platform.machine()
    print(f"{device}, {torch.get_num_threads()} threads, Python {platform.python_version()}, torch {torch.__version__}")
    print(f"max-of-hinges, forward and backward, {WIDTH}-d; loss and gradients equal to 1e-6 at every size; ", end="")
    print(f"median of {TURNS}\n")
    print("| pairs | ours, ms | full matrices, ms | ratio | ours, MB | full matrices, MB |\n|---|---|---|---|---|---|")
    for size in SIZES:
        report(int(size * arguments.scale), arguments.device)


if __name__ == "__main__":
    main()

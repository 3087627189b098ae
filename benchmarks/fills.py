"""Images a second of every fill, how it scales with worker processes, and of a LaMa-shaped network in batches.

`python benchmarks/fills.py` fills drawn photographs of 640 x 480 with a box of 6.6 % of the area as the hole. `--device
cuda` moves the network to a GPU; `--only lama` leaves the other fills out. The network has the layers of big LaMa (51
million weights, Fourier convolutions) with random values, saved and loaded as TorchScript: its pixels mean nothing, its
time is LaMa's.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from synth.fills import (
    BlurFill,
    Fill,
    LamaFill,
    MeanFill,
    NavierStokesFill,
    PatchMatchFill,
    TeleaFill,
    ZeroFill,
    box_mask,
)

FILLS = (ZeroFill(), MeanFill(), BlurFill(), TeleaFill(), NavierStokesFill(), PatchMatchFill())
HOLE = 0.066  # mean share of the image that one removal takes from the sample photos of COCO; the median is 0.025


class Spectral(nn.Module):
    """Convolution of the Fourier transform: every output sees the whole image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.reduce = nn.Sequential(nn.Conv2d(channels, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU())
        self.mix = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
        self.expand = nn.Conv2d(half, channels, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `[B, C, H, W]` for `[B, C, H, W]`."""
        x = self.reduce(x)
        waves = torch.fft.rfftn(x, dim=[2, 3], norm="ortho")
        real, imaginary = self.mix(torch.cat([waves.real, waves.imag], 1)).chunk(2, 1)
        waves = torch.complex(real.contiguous(), imaginary.contiguous())
        return self.expand(x + torch.fft.irfftn(waves, s=x.shape[2:], dim=[2, 3], norm="ortho"))


class FourierConvolution(nn.Module):
    """A quarter of the channels by 3 x 3 convolution, the rest by Fourier convolution, each feeding the other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.near = channels // 4
        far = channels - self.near
        self.to_near = nn.Conv2d(channels, self.near, 3, padding=1, padding_mode="reflect", bias=False)
        self.near_to_far = nn.Conv2d(self.near, far, 3, padding=1, padding_mode="reflect", bias=False)
        self.far_to_far = Spectral(far)
        self.norm = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `[B, C, H, W]` for `[B, C, H, W]`."""
        near, far = x[:, : self.near], x[:, self.near :]
        return self.norm(torch.cat([self.to_near(x), self.near_to_far(near) + self.far_to_far(far)], 1))


class Block(nn.Module):
    """Two Fourier convolutions and a way past them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(FourierConvolution(channels), FourierConvolution(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `[B, C, H, W]` for `[B, C, H, W]`."""
        return x + self.layers(x)


class LamaShaped(nn.Module):
    """The layers of big LaMa (Suvorov et al. 2022, section 2.1): three halvings, 18 blocks, three doublings."""

    def __init__(self, width: int = 64, blocks: int = 18) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(4, width, 7, padding=3, padding_mode="reflect")]
        for channels in (width, 2 * width, 4 * width):
            layers += [nn.Conv2d(channels, 2 * channels, 3, 2, 1), nn.BatchNorm2d(2 * channels), nn.ReLU()]
        layers += [Block(8 * width) for _ in range(blocks)]
        for channels in (8 * width, 4 * width, 2 * width):
            layers += [
                nn.ConvTranspose2d(channels, channels // 2, 3, 2, 1, 1),
                nn.BatchNorm2d(channels // 2),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 3, 7, padding=3, padding_mode="reflect"), nn.Sigmoid())

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the painted image `[B, 3, H, W]` in 0..1."""
        return self.layers(torch.cat([image * (1 - mask), mask], 1)) * mask + image * (1 - mask)


class Work:
    """Drawn photographs with a hole each, as a data set for a loader: to get item i is to fill image i."""

    def __init__(self, fill: Fill, size: tuple[int, int], number: int) -> None:
        self.fill, self.number = fill, number
        self.image, self.mask = draw(size)

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> int:
        return int(self.fill(np.roll(self.image, 7 * index, 1), self.mask)[0, 0, 0])


def draw(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture of soft colours with grain, and its hole."""
    width, height = size
    rng = np.random.default_rng(0)
    soft = cv2.resize(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8), size, interpolation=cv2.INTER_CUBIC)
    image = np.clip(soft + rng.normal(0, 6, soft.shape), 0, 255).astype(np.uint8)
    side = np.sqrt(HOLE)
    left, top = 0.3 * width, 0.25 * height
    return image, box_mask([[left, top, left + side * width, top + side * height]], size)


def rate(fill: Fill, size: tuple[int, int], workers: int, seconds: float) -> float:
    """Return images a second of a loader, the start of its workers not counted."""
    work = Work(fill, size, 10**6)
    loader = iter(DataLoader(work, batch_size=None, num_workers=workers, prefetch_factor=2 if workers else None))  # type: ignore[arg-type]
    for _ in range(2 * workers + 1):
        next(loader)
    start, number = time.perf_counter(), 0
    while time.perf_counter() - start < seconds or number < 2:
        next(loader)
        number += 1
    return number / (time.perf_counter() - start)


def report_plain(fills: Sequence[Fill], size: tuple[int, int], workers: Sequence[int], seconds: float) -> None:
    """Print images a second, one row for each fill and one column for each number of workers."""
    print(f"{'images/s':<16}" + "".join(f"{f'{number} workers':>12}" for number in workers))
    for fill in fills:
        rates = (rate(fill, size, number, seconds) for number in workers)
        print(f"{fill.name:<16}" + "".join(f"{found:>12.1f}" for found in rates), flush=True)


def save_network(path: Path) -> int:
    """Save a LaMa-shaped network of random weights as TorchScript; return the number of its weights."""
    torch.manual_seed(0)
    network = LamaShaped().eval()
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        torch.jit.save(torch.jit.script(network), path)
    return sum(weight.numel() for weight in network.parameters())


def report_network(size: tuple[int, int], batches: Sequence[int], device: str, seconds: float) -> None:
    """Print images a second and the peak of GPU memory for each size of batch."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lama.pt"
        print(f"LaMa-shaped network of {save_network(path) / 1e6:.1f} million random weights on {_name(device)}")
        fill = LamaFill(path)
        fill.to(device)
        for number in batches:
            print(f"  batches of {number:>3}: {_network_rate(fill, size, number, seconds)}", flush=True)


def _network_rate(fill: LamaFill, size: tuple[int, int], number: int, seconds: float) -> str:
    image, mask = draw(size)
    images, masks = [image] * number, [mask] * number
    cuda = torch.device(fill.device).type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    fill.batch(images, masks)
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        fill.batch(images, masks)
        done += number
    memory = f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if cuda else ""
    return f"{done / (time.perf_counter() - start):.2f} images/s{memory}"


def _name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else f"{torch.get_num_threads()} CPU threads"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [*(fill.name for fill in FILLS), "lama"]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="fills to measure")
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 1, 2], help="worker processes to try")
    parser.add_argument("--size", nargs=2, type=int, default=[640, 480], metavar=("W", "H"), help="pixels")
    parser.add_argument("--seconds", type=float, default=5.0, help="time for each figure")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4], help="sizes of batches for the network")
    parser.add_argument("--device", default="cpu", help="where the network computes")
    given: Any = parser.parse_args()
    cv2.setNumThreads(1)
    size = (given.size[0], given.size[1])
    if plain := [fill for fill in FILLS if fill.name in given.only]:
        report_plain(plain, size, given.workers, given.seconds)
    if "lama" in given.only:
        report_network(size, given.batches, given.device, given.seconds)


if __name__ == "__main__":
    main()

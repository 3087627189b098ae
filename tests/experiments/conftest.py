"""Birds of two colours before grounds of two colours, and models that see no more than colours."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.processor import Processor

BIRDS = ((255, 0, 0), (0, 0, 255))  # landbirds are red, waterbirds blue
PLACES = ((100, 0, 0), (0, 0, 100))  # so are land and water, darker and larger
WORDS = {"landbird": (1, 0, 0), "waterbird": (0, 0, 1), "land": (0.9, 0.1, 0), "water": (0, 0.1, 0.9), "sky": (0, 1, 0)}
SQUARE = slice(4, 10)


def _image(label: int, place: int, sky: int) -> Image.Image:
    pixels = np.zeros((16, 16, 3), dtype=np.uint8)
    pixels[10:] = PLACES[place]
    pixels[SQUARE, SQUARE] = BIRDS[label]
    pixels[..., 1] = sky
    return Image.fromarray(pixels)


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    """Write a config whose data are 24 test images in the layout of Waterbirds, with masks; groups are alike large."""
    root, masks = tmp_path / "birds", tmp_path / "masks"
    for folder in (root, masks):
        folder.mkdir()
    mask = np.zeros((16, 16), dtype=np.uint8)
    mask[SQUARE, SQUARE] = 255
    lines = [("img_id", "img_filename", "y", "split", "place", "place_filename")]
    for number in range(24):
        label, place = number % 2, number // 2 % 2
        _image(label, place, sky=(number * 7) % 20).save(root / f"{number}.png")
        Image.fromarray(mask).save(masks / f"{number}.png")
        lines.append((number + 1, f"{number}.png", label, 2, place, "nowhere.jpg"))
    with (root / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    path = tmp_path / "birds.yaml"
    path.write_text(
        f"data: {{class_path: WaterbirdsDataModule, init_args: {{root: {root}, masks: {masks}, num_workers: 0}}}}\n"
    )
    return path


class Colours(nn.Module):
    """Embeds an image as the mean colour of what is brighter than a threshold, and a word as the colour it has."""

    device = torch.device("cpu")

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold, self.features = threshold, nn.AvgPool2d(2)
        self.processor = Processor(self._pixels, self._pixels, self._tokens)

    @staticmethod
    def _pixels(image: Any) -> Tensor:
        return 2 * torch.tensor(np.array(image)).permute(2, 0, 1) / 255 - 1

    @staticmethod
    def _tokens(texts: list[str]) -> Tensor:
        return torch.tensor([list(WORDS).index(text.split()[-1].lower()) for text in texts])

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        bright = F.relu((pixel_values + 1) / 2 - self.threshold)
        # What no word has keeps the cosine below 1, where it would have no gradient.
        return F.normalize(F.pad(self.features(bright).mean(dim=(2, 3)), (0, 1), value=0.1), dim=1)

    def encode_texts(self, tokens: Tensor) -> Tensor:
        return F.normalize(F.pad(torch.tensor(list(WORDS.values())), (0, 1))[tokens], dim=1)


@pytest.fixture
def load_colours() -> Callable[[str], Colours]:
    """Stand in for `load_model`: "before" sees grounds and birds, "after" birds alone."""
    return lambda name: Colours({"before": 0.0, "after": 0.4}[name]).eval()

"""A tiny scripted network in place of LaMa: what it is shown, in which batches, and what becomes of its answer."""

import copy
import hashlib
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from datamodules.errors import ConfigError, MissingPathError
from synth.fills import LamaFill, MeanFill, NetworkFill, box_mask

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")


class Painter(nn.Module):
    """Returns the image with a colour of `paint` in the hole; forgets most pixels while training."""

    def __init__(self, paint=0.25, white=1.0):
        super().__init__()
        self.paint, self.white = nn.Parameter(torch.tensor(paint)), white
        self.dropout = nn.Dropout(0.9)

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        assert image.shape[2] % 8 == 0
        assert image.shape[3] % 8 == 0
        assert mask.shape[1] == 1
        return self.dropout(image * (1 - mask) + mask * self.paint) * self.white


class Mirror(nn.Module):
    """Returns what it is shown."""

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return image


class Size(nn.Module):
    """Paints the longer side of what it is shown, in levels of grey, 4 pixels a level."""

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return image * 0 + float(max(image.shape[2], image.shape[3])) / 4 / 255


class Number(nn.Module):
    """Paints the size of the batch."""

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return image * 0 + float(image.shape[0]) / 255


class Classifier(nn.Module):
    """Takes what LaMa takes, but gives no image."""

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return image.mean([2, 3])


class Picture(nn.Module):
    """Takes no mask."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image


@pytest.fixture
def lama(tmp_path):
    """The function that saves a network and returns its fill."""

    def make(network, **options):
        path = tmp_path / "network.pt"
        torch.jit.save(torch.jit.script(network), path)
        return LamaFill(path, **options)

    return make


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("white", [1.0, 255.0])
def test_both_scales_of_output_give_the_same_pixels(lama, white):
    image, mask = noise(41, 63), box_mask([[20, 5, 50, 33]], (63, 41))
    filled = lama(Painter(white=white))(image, mask)
    assert np.array_equal(filled[~mask], image[~mask])
    assert (filled[mask] == 64).all()


def test_batches_of_mixed_sizes_are_the_single_fills_in_order(lama):
    fill = lama(Mirror())
    sizes = [(40, 64), (33, 57), (40, 64), (7, 200), (1, 1), (3, 5)]
    images = [noise(*size, seed) for seed, size in enumerate(sizes)]
    masks = [np.random.default_rng(seed).random(size) < 0.3 for seed, size in enumerate(sizes)]
    masks[2][:], masks[4][:] = False, True
    for filled, image, mask in zip(fill.batch(images, masks), images, masks, strict=True):
        assert np.array_equal(filled, fill(image, mask))
        assert np.array_equal(filled[~mask], image[~mask])


def test_images_of_one_padded_size_go_through_at_once(lama):
    sizes = [(426, 64), (427, 64), (64, 427), (432, 60)]
    images, masks = [noise(*size) for size in sizes], [np.eye(*size, dtype=bool) for size in sizes]
    painted = [int(filled[0, 0, 0]) for filled in lama(Number()).batch(images, masks)]
    assert painted == [3, 3, 1, 3]


def test_the_network_never_sees_the_object(lama):
    fill, mask = lama(Mirror(), max_side=64), box_mask([[30, 30, 190, 90]], (300, 200))
    for image in (noise(200, 300), np.full((200, 300, 3), 7, np.uint8)):
        other = np.where(mask[..., None], 255 - image, image)
        assert np.array_equal(fill(image, mask), fill(other, mask))
    assert (fill(image, mask) == 7).all()


@pytest.mark.parametrize(
    ("box", "shown"),
    [((100, 60, 130, 80), 64), ((0, 0, 10, 10), 64), ((290, 190, 300, 200), 64), ((20, 20, 220, 180), 64)],
)
def test_large_images_are_shown_in_a_window_and_stay_outside_the_hole(lama, box, shown):
    image, mask = noise(200, 300), box_mask([box], (300, 200))
    filled = lama(Size(), max_side=64)(image, mask)
    assert np.array_equal(filled[~mask], image[~mask])
    assert (filled[mask] == shown // 4).all()
    assert (lama(Size())(image, mask)[mask] == 304 // 4).all()


def test_a_window_holds_the_surroundings_of_the_hole_at_full_size(lama):
    image, mask = np.zeros((500, 700, 3), np.uint8), box_mask([[400, 200, 420, 210]], (700, 500))
    image[150:260, 350:480] = 90
    assert (lama(Mirror(), max_side=64)(image, mask)[mask] >= 85).all()
    assert (lama(Mirror())(image, mask)[mask] <= 5).all()


def test_equal_inputs_give_equal_pixels_in_evaluation_mode(lama):
    fill, image, mask = lama(Painter()), noise(30, 40), box_mask([[5, 5, 25, 20]], (40, 30))
    assert not fill.network.training
    first = fill(image, mask)
    assert all(np.array_equal(fill(image, mask), first) for _ in range(4))


def test_a_protocol_has_the_content_of_the_file_and_not_its_place(lama, tmp_path):
    fill, moved = lama(Painter(), max_side=64), tmp_path / "moved" / "big-lama.pt"
    moved.parent.mkdir()
    moved.write_bytes(fill.path.read_bytes())
    before = fill.identity()
    assert before == {"path": f"sha256:{hashlib.sha256(moved.read_bytes()).hexdigest()}", "max_side": 64}
    assert LamaFill(moved, max_side=64).identity() == before
    assert LamaFill(moved).identity() != before
    assert lama(Painter(paint=0.5), max_side=64).identity() != before


def test_a_worker_gets_the_options_and_loads_its_own_network(lama):
    fill, image, mask = lama(Painter()), noise(16, 16), np.eye(16, dtype=bool)
    filled = fill(image, mask)
    assert vars(fill) == {"path": fill.path, "max_side": 1024}
    for twin in (pickle.loads(pickle.dumps(fill)), copy.deepcopy(fill)):  # noqa: S301 (our own bytes)
        assert twin == fill
        assert twin.network is not fill.network
        assert np.array_equal(twin(image, mask), filled)


@dataclass
class GreyFill(NetworkFill):
    """A network fill of one's own: its network is a colour that remembers its moves."""

    name: ClassVar[str] = "grey"
    multiple: ClassVar[int] = 5
    level: int

    def load(self):
        return Colour(self.level)

    def paint_batch(self, images, masks):
        assert images.shape[1] % 5 == images.shape[2] % 5 == 0
        return np.full_like(images, self.network.level)


class Colour:
    def __init__(self, level):
        self.level, self.moves = level, []

    def to(self, device):
        self.moves.append(device)
        return self


def test_a_network_of_ones_own_is_one_class_and_moves():
    fill, image, mask = GreyFill(9, max_side=100), noise(16, 18), np.eye(16, 18, dtype=bool)
    assert fill.device == "cpu"
    assert (fill(image, mask)[mask] == 9).all()
    network = fill.network
    fill.to("cuda:1")
    assert fill.network is network
    assert (network.moves, fill.device) == (["cpu", "cuda:1"], "cuda:1")
    fresh = GreyFill(9)
    fresh.to("cuda:0")
    assert fresh.network.moves == ["cuda:0"]
    assert fill.on_device
    assert not MeanFill.on_device


def test_a_full_device_names_the_keys(monkeypatch):
    def refuse(self, images, masks):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(GreyFill, "paint_batch", refuse)
    with pytest.raises(ConfigError, match="no memory for 1 images of 20 x 20 at once; lower `batch_size`"):
        GreyFill(9)(noise(16, 18), np.eye(16, 18, dtype=bool))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_pixels(lama):
    fill, image, mask = lama(Painter()), noise(50, 60), box_mask([[5, 5, 25, 20]], (60, 50))
    before = fill(image, mask)
    fill.to("cuda")
    assert fill.network.paint.is_cuda
    assert np.array_equal(fill(image, mask), before)


@pytest.mark.parametrize("content", [b"", b"no network", b"PK\x03\x04 cut short"])
def test_a_damaged_file_names_key_and_path(tmp_path, content):
    path = tmp_path / "big-lama.pt"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"`path` of LamaFill, .*big-lama\.pt, is no TorchScript file"):
        LamaFill(path).to("cpu")


def test_weights_alone_and_other_networks_are_refused(tmp_path, lama):
    path = tmp_path / "weights.pt"
    torch.save(Painter().state_dict(), path)
    with pytest.raises(ConfigError, match=r"`path` of LamaFill, .*weights\.pt, is no TorchScript file"):
        LamaFill(path)(noise(4, 4), np.eye(4, dtype=bool))
    with pytest.raises(ConfigError, match=r"gives \[1, 3\] for an image"):
        lama(Classifier()).to("cpu")
    with pytest.raises(ConfigError, match="takes an image and a mask"):
        lama(Picture()).to("cpu")


def test_options_out_of_range_name_the_key(tmp_path, lama):
    with pytest.raises(MissingPathError, match=r"`path` of LamaFill is .*nowhere\.pt"):
        LamaFill(Path(tmp_path) / "nowhere.pt")
    with pytest.raises(ConfigError, match="`max_side` of LamaFill is 63"):
        lama(Mirror(), max_side=63)

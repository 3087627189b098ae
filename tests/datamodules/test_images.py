"""Images of every mode are read; those that cannot be are counted once, named, and tolerated up to a limit."""

import multiprocessing
import warnings

import numpy as np
import pytest
from PIL import Image

from datamodules.errors import ConfigError, UnreadableImageError
from datamodules.images import ImageReader, open_rgb


def broken_files(folder):
    """Return a missing, an empty, a truncated and a text file."""
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "whole.jpg")
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("no picture")
    (folder / "cut.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:1500])
    Image.fromarray(noise).save(folder / "whole.png")
    (folder / "cut.png").write_bytes((folder / "whole.png").read_bytes()[:1500])
    return [folder / name for name in ("missing.jpg", "empty.jpg", "text.jpg", "cut.jpg", "cut.png")]


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "1", "LA", "RGB"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
    Image.new("RGB", (5, 3), (255, 255, 255)).convert(mode).save(path)
    image = open_rgb(path)
    assert (image.mode, image.size) == ("RGB", (5, 3))
    assert np.asarray(image).min() == 255


@pytest.mark.parametrize("kind", ["<u2", ">u2", "int32"])
def test_grey_of_16_bits_keeps_its_upper_half(tmp_path, kind):
    levels = np.array([[0, 255, 256, 511, 65_535]], dtype=kind)
    Image.fromarray(levels).save(tmp_path / "deep.tif")
    assert np.asarray(open_rgb(tmp_path / "deep.tif")).tolist() == [[[level] * 3 for level in (0, 0, 1, 1, 255)]]


def test_the_orientation_of_exif_is_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (5, 3)).save(tmp_path / "turned.jpg", exif=exif)
    assert open_rgb(tmp_path / "turned.jpg").size == (5, 3)


def test_each_broken_file_counts_once_and_is_named(tmp_path):
    paths = broken_files(tmp_path)
    reader = ImageReader(max_unreadable=len(paths))
    for path in paths:
        with pytest.warns(UserWarning, match=path.name):
            assert reader.read(path) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(reader.read(path) is None for path in paths)
        assert reader.read(tmp_path / "whole.jpg") is not None
    assert reader.unreadable == len(paths)
    reader.check()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_one_too_many_names_count_files_and_key(tmp_path):
    paths = broken_files(tmp_path)
    reader = ImageReader(max_unreadable=1)
    assert reader.read(paths[0]) is None
    assert not reader.exceeded
    reader.check()
    for path in paths[1:]:
        assert reader.read(path) is None
    with pytest.raises(UnreadableImageError, match=r"^2 image\(s\)") as error:
        reader.check()
    for word in ("`max_unreadable`", str(paths[0]), str(paths[1])):
        assert word in str(error.value)


def test_a_limit_below_zero_is_refused():
    with pytest.raises(ConfigError, match="`max_unreadable`"):
        ImageReader(-1)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_processes_share_the_count(tmp_path, method):
    first, second, *_ = broken_files(tmp_path)
    reader = ImageReader(max_unreadable=9)
    for path in (first, first, second):
        process = multiprocessing.get_context(method).Process(target=reader.read, args=(path,))
        process.start()
        process.join()
        assert process.exitcode == 0
    assert reader.unreadable == 2

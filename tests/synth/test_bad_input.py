"""What users feed to a synthesis: every bad input is one sentence or a counted skip, and no pixel is wrong."""

import builtins
import fcntl
import json
import os
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import synth
from datamodules import CocoDataModule
from datamodules.errors import AnnotationError, ConfigError, UnreadableImageError
from datamodules.images import open_rgb
from synth import SynthesisConfig
from synth.cooccurrence import measure
from synth.fills import TeleaFill, ZeroFill
from synth.rules import Rule
from synth.workspace import write_whole

WIDTH, HEIGHT = 48, 40
DOG, MAN = (2, 2, 14, 12), (20, 18, 12, 20)
OBJECTS = (("dog", DOG), ("man", MAN))
CAPTIONS = ("A man and a dog",)


def noise(mode="RGB", size=(WIDTH, HEIGHT)):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.fixture
def coco(tmp_path, word_matcher):
    """The function that writes annotations for the files in a folder and returns their synthesis."""

    def write(files, objects=OBJECTS, captions=CAPTIONS, size=(WIDTH, HEIGHT), names=word_matcher.class_names, **base):
        matcher = word_matcher()
        matcher.class_names = tuple(names)
        sentences = [{"raw": text, "sentid": number} for number, text in enumerate(captions)]
        images = [
            {"filename": str(file), "cocoid": 7 + n, "split": "train", "sentences": _numbered(sentences, n)}
            for n, file in enumerate(files)
        ]
        sizes = [{"id": 7 + n, "width": size[0], "height": size[1]} for n in range(len(files))]
        boxes = [
            {"id": 100 * n + k, "image_id": 7 + n, "category_id": matcher.class_names.index(name), "bbox": list(box)}
            for n in range(len(files))
            for k, (name, box) in enumerate(objects)
        ]
        categories = [{"id": number, "name": name} for number, name in enumerate(matcher.class_names)]
        instances = {"images": sizes, "annotations": boxes, "categories": categories}
        (tmp_path / "captions.json").write_text(json.dumps({"images": images}))
        (tmp_path / "instances.json").write_text(json.dumps(instances))
        data = CocoDataModule(
            tmp_path / "photos",
            tmp_path / "captions.json",
            [tmp_path / "instances.json"],
            matcher=matcher,
            cache_dir=tmp_path / "cache",
            **base,
        )
        return SynthesisConfig(data, tmp_path / "out", pairs={"train": ["train"]}, fill=ZeroFill())

    (tmp_path / "photos").mkdir()
    return write


def _numbered(sentences, image):
    return [{**sentence, "sentid": 100 * image + sentence["sentid"]} for sentence in sentences]


def assert_filled_and_else_as_trained_on(config, rows):
    """Compare a set of black boxes, pixel by pixel, with the photos as training reads them."""
    for row in rows(config.output, "train"):
        before = np.array(open_rgb(config.data.image_path(row["source_image_id"] - 7)))
        after = np.asarray(open_rgb(config.output / "train" / row["file_name"]))
        for x, y, width, height in (map(int, box) for box in row["removed_boxes"]):
            before[y : y + height, x : x + width] = 0
        assert np.array_equal(before, after)


@pytest.mark.filterwarnings("ignore:Palette images")
def test_images_of_every_mode_are_filled_as_training_reads_them(coco, rows, tmp_path):
    photos, turned = tmp_path / "photos", Image.Exif()
    turned[0x0112] = 6
    noise("CMYK").save(photos / "cmyk.jpg")
    noise().save(photos / "turned.jpg", exif=turned)
    noise("P").save(photos / "palette.png", transparency=bytes(range(256)))
    for mode in ("L", "1", "RGBA", "LA"):
        noise(mode).save(photos / f"{mode}.png")
    Image.fromarray(np.asarray(noise("L")).astype(np.uint16) * 257).save(photos / "16bit.png")
    config = coco(sorted(path.name for path in photos.iterdir()))
    assert synth.run(config, alone=True).splits["train"].kept == 8
    assert_filled_and_else_as_trained_on(config, rows)
    grey = {name: open_rgb(photos / f"{name}.png").tobytes() for name in ("16bit", "L")}
    assert grey["16bit"] == grey["L"]


def test_boxes_in_turned_coordinates_are_refused(coco, tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    noise().save(tmp_path / "photos" / "turned.jpg", exif=turned)
    config = coco(["turned.jpg"], size=(HEIGHT, WIDTH))
    with pytest.raises(AnnotationError, match=r"turned\.jpg has 48 x 40 pixels, but its annotation says 40 x 48"):
        synth.run(config, alone=True)


def bomb(width, height):
    """Return a png of a few bytes that says it is enormous."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"0")), (b"IEND", b""))
    parts = (
        struct.pack(">I", len(data)) + key + data + struct.pack(">I", zlib.crc32(key + data)) for key, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_broken_images_are_counted_up_to_the_limit(coco, rows, tmp_path):
    photos = tmp_path / "photos"
    for name in ("good.png", "cut.png", "cut.jpg"):
        noise().save(photos / name)
    for name in ("cut.png", "cut.jpg"):
        (photos / name).write_bytes((photos / name).read_bytes()[:900])
    (photos / "bomb.png").write_bytes(bomb(60_000, 60_000))
    (photos / "empty.jpg").touch()
    (photos / "text.jpg").write_text("no picture")
    files = sorted(path.name for path in photos.iterdir())
    with pytest.raises(UnreadableImageError, match=r"5 images cannot be read, more than `max_unreadable` 4 of `data`"):
        synth.run(coco(files, max_unreadable=4), alone=True)
    config = coco(files, max_unreadable=5)
    counts = synth.run(config, alone=True).splits["train"]
    assert (counts.kept, counts.dropped) == (1, {Rule.UNREADABLE: 5})
    assert [row["source_image_id"] for row in rows(config.output, "train")] == [7 + files.index("good.png")]


@pytest.mark.slow
def test_a_photo_of_48_million_pixels_is_filled(coco, rows, tmp_path):
    size = (8000, 6000)
    noise(size=(80, 60)).resize(size, Image.Resampling.NEAREST).save(tmp_path / "photos" / "huge.png", compress_level=1)
    objects = (("dog", (1000, 1000, 300, 200)), ("man", (5000, 3000, 400, 900)))
    config = replace(coco(["huge.png"], objects, size=size), fill=TeleaFill())
    synth.run(config, alone=True)
    (row,) = rows(config.output, "train")
    x, y, width, height = map(int, row["removed_boxes"][0])
    changed = np.asarray(open_rgb(config.output / "train" / row["file_name"])) != np.asarray(config.data.read_image(0))
    assert changed[y : y + height, x : x + width].any()
    changed[y : y + height, x : x + width] = False
    assert not changed.any()


def test_boxes_without_area_do_not_count_and_those_on_the_border_are_cut(coco, rows, tmp_path):
    noise().save(tmp_path / "photos" / "a.png")
    objects = (("dog", (-0.5, -0.9, 14.5, 12.9)), ("man", (40, 30, 8.9, 10.9)), ("cat", (30, 5, 0, 8)))
    config = coco(["a.png"], objects, captions=["A dog, a man and a cat"])
    counts = synth.run(replace(config, queries={"all": ["train"]}, queries_per_image="all"), alone=True).splits["all"]
    found = {tuple(row["removed"]): row["removed_boxes"] for row in rows(config.output, "all")}
    assert found == {("dog",): [[0, 0, 14, 12]], ("man",): [[40, 30, 8, 10]]}
    assert (counts.candidates, counts.kept) == (2, 2)
    assert not any("cat" in row["kept"] for row in rows(config.output, "all"))
    assert_filled_and_else_as_trained_on(config, rows)


@pytest.mark.parametrize(
    ("box", "text"),
    [
        ((40, 30, 20, 5), "lies outside the image"),
        ((-9, 3, 5, 5), "lies outside the image"),
        ((9, 9, -3, 5), "has a negative side"),
        ((9, 9, float("nan"), 5), "is not finite"),
    ],
)
def test_boxes_beyond_the_border_are_refused_with_their_annotation(coco, tmp_path, box, text):
    noise().save(tmp_path / "photos" / "a.png")
    with pytest.raises(AnnotationError, match=rf"annotation 1, image 7 \(48 x 40\), {text}"):
        synth.run(coco(["a.png"], [("dog", DOG), ("man", box)]), alone=True)
    assert not (tmp_path / "out").exists()


def test_images_that_would_lose_all_and_captions_that_do_are_counted(draw_data, tmp_path):
    data = draw_data(
        "skipped",
        [
            ("a", "train", ["dog", "man"], ["A man and a dog"]),
            ("one", "train", ["dog"], ["A dog"]),
            ("lost", "train", ["dog", "man"], ["A dog"]),
            ("unnamed", "train", ["dog", "man"], ["Grass"]),
        ],
    )
    config = SynthesisConfig(data, tmp_path / "out", pairs={"train": ["train"]}, fill=ZeroFill())
    counts = synth.run(config, alone=True).splits["train"]
    assert (counts.kept, counts.dropped) == (1, {Rule.FEW_CLASSES: 1, Rule.NO_KEPT_WORD: 1, Rule.NOT_NAMED: 1})


def test_a_region_that_takes_every_class_is_rejected(coco, tmp_path):
    noise().save(tmp_path / "photos" / "a.png")
    with pytest.raises(ConfigError, match=r"no removable class \(1\)"):
        synth.run(coco(["a.png"], [("dog", (2, 2, 20, 20)), ("man", (2, 2, 20, 20))]), alone=True)
    assert not (tmp_path / "out").exists()


def test_no_name_leads_out_of_the_output(coco, contents, tmp_path):
    """Names of files and classes from the annotations: with `..`, not ASCII, as long as they may be."""
    classes = ("dog", "../../../man", "Fräulein/狗\u2028", "cat")
    long = "ä" * 120 + " \U0001f415.png"
    noise().save(tmp_path / "outside.png")
    noise().save(tmp_path / "photos" / long)
    config = coco(
        ["../outside.png", long], [("dog", DOG), (classes[1], MAN), (classes[2], (40, 1, 4, 4))], names=classes
    )
    config.data.prepare_data()
    before = {key: value for key, value in contents(tmp_path).items() if not key.startswith(("out/", "cache/"))}
    both = replace(config, pairs={}, queries={"all": ["train"]}, queries_per_image="all")
    assert synth.run(both, alone=True).splits["all"].kept == 6
    after = contents(tmp_path)
    assert {key: value for key, value in after.items() if not key.startswith(("out/", "cache/"))} == before
    made = {key for key in after if key.startswith("out/")}
    rest = {f"out/{name}" for name in ("README.md", "classes.csv", "protocol.json", "all/metadata.jsonl")}
    assert made == rest | {f"out/all/{7 + n:012d}-{k:03d}.png" for n in range(2) for k in range(3)}
    assert not synth.run(both, alone=True).made


@pytest.mark.parametrize(
    "file", ["config.json", "000000000100", "rank-0.jsonl", "metadata.jsonl", "classes.csv", "protocol.json"]
)
def test_a_full_disk_is_one_sentence_wherever_it_strikes(data, tmp_path, contents, monkeypatch, file):
    """Sends one of the files to the device that is always full."""
    config = SynthesisConfig(data, tmp_path / "out", pairs={"train": ["train"]}, fill=ZeroFill())
    synth.run(replace(config, output=tmp_path / "undisturbed"), alone=True)
    real = open

    def on_a_full_disk(path, mode="r", *more, **options):
        strikes = file in Path(path).name and not mode.startswith("r") if isinstance(path, (str, Path)) else False
        return real("/dev/full" if strikes else path, mode, *more, **options)

    with monkeypatch.context() as patched:
        patched.setattr(builtins, "open", on_a_full_disk)
        patched.setattr(Path, "open", lambda self, *given, **options: on_a_full_disk(self, *given, **options))
        with pytest.raises(ConfigError, match=r"`output` .* cannot be written \(No space left on device\); make room"):
            synth.run(config, alone=True)
    assert not list(config.output.rglob("*.part"))
    synth.run(config, alone=True)
    assert contents(config.output) == contents(tmp_path / "undisturbed")


def test_the_lock_of_another_process_is_respected(data, tmp_path):
    config = SynthesisConfig(data, tmp_path / "out", pairs={"train": ["train"]}, fill=ZeroFill())
    (tmp_path / "out" / ".run").mkdir(parents=True)
    lock = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    command = [sys.executable, "-c", lock, str(tmp_path / "out" / ".run" / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        other.stdout.readline()
        with pytest.raises(ConfigError, match="is being written by another run; wait until that ends"):
            synth.run(config, alone=True)
        other.communicate("\n")
    assert synth.run(config, alone=True).made


def test_a_lock_that_its_owner_removes_at_this_moment_is_no_lock(data, tmp_path, monkeypatch):
    config = SynthesisConfig(data, tmp_path / "out", pairs={"train": ["train"]}, fill=ZeroFill())
    real = fcntl.lockf
    monkeypatch.setattr(fcntl, "lockf", lambda lock, how: (os.remove(lock.name), real(lock, how)))
    with pytest.raises(ConfigError, match="is being written by another run"):
        synth.run(config, alone=True)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_an_unfinished_set_whose_config_is_damaged_is_refused(data, tmp_path, content):
    config = SynthesisConfig(data, tmp_path / "out", pairs={"train": ["train"]}, fill=ZeroFill())
    (tmp_path / "out" / ".run").mkdir(parents=True)
    (tmp_path / "out" / ".run" / "config.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"config\.json \(in `output`\).* is damaged; delete "):
        synth.run(config, alone=True)


def test_a_damaged_set_is_named_by_the_key_that_made_it(data, tmp_path):
    config = SynthesisConfig(data, tmp_path / "out", pairs={"train": ["train"]}, fill=ZeroFill())
    synth.run(config, alone=True)
    with (config.output / "train" / "metadata.jsonl").open("a") as metadata:
        metadata.write("{}\n")
    with pytest.raises(AnnotationError, match=r"metadata\.jsonl:3 \(key `output`\) is malformed"):
        measure(config)


def test_a_file_that_fails_halfway_leaves_nothing(tmp_path):
    (tmp_path / "table.csv").mkdir()
    with pytest.raises(ConfigError, match=r"table\.csv cannot be written \(Is a directory\)"):
        write_whole(tmp_path / "table.csv", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]

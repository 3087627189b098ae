"""Tables of a COCO-sized annotation set against plain json and pycocotools: same values, load time and memory.

`python benchmarks/tables.py` draws 123,287 images, 616,767 captions and 860,001 boxes with outlines (no image files),
checks that both ways give the same rows, and prints seconds and MB, each measured in a process of its own. Memory of
the loader workers is the proportional set size (PSS) that Linux keeps in `/proc/self/smaps_rollup`: pages that
processes share count once. `--scale 0.01` is a quick look.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datamodules.coco_reader import read_coco
from datamodules.tables import Tables

IMAGES, CAPTIONS, OBJECTS, CLASSES, WORKERS = 123_287, 616_767, 860_001, 80, 4
WORDS = [
    "a",
    "the",
    "two",
    "man",
    "woman",
    "dog",
    "frisbee",
    "bench",
    "on",
    "beside",
    "holding",
    "red",
    "small",
    "street",
]
NAMES = [f"class {number}" for number in range(CLASSES)]
Row: TypeAlias = tuple[str, list[str], list[list[float]]]
"""File, captions and boxes of an image."""


def draw(folder: Path, scale: float) -> None:
    """Write `karpathy.json` and `instances.json`, the same bytes for the same scale."""
    rng = np.random.default_rng(0)
    images, captions, objects = (int(count * scale) for count in (IMAGES, CAPTIONS, OBJECTS))
    ids = rng.choice(600_000, images, replace=False)
    _draw_karpathy(folder / "karpathy.json", rng, ids, captions)
    _draw_instances(folder / "instances.json", rng, ids, objects)


def _draw_karpathy(path: Path, rng: np.random.Generator, ids: np.ndarray, captions: int) -> None:
    owners = np.sort(np.concatenate([np.arange(len(ids)), rng.integers(0, len(ids), captions - len(ids))]))
    ends = np.searchsorted(owners, np.arange(len(ids)), side="right").tolist()
    words = rng.integers(0, len(WORDS), (captions, 11)).tolist()
    splits = rng.choice(["train", "restval", "val", "test"], len(ids), p=[0.67, 0.25, 0.04, 0.04]).tolist()
    start, entries = 0, []
    for row, (image_id, end, split) in enumerate(zip(ids.tolist(), ends, splits, strict=True)):
        tokens = [[WORDS[word] for word in words[n]] for n in range(start, end)]
        sentences = [
            {"tokens": t, "raw": " ".join(t) + ".", "imgid": row, "sentid": start + n} for n, t in enumerate(tokens)
        ]
        name = f"COCO_train2014_{image_id:012d}.jpg"
        entry = {"filepath": "train2014", "filename": name, "imgid": row, "split": split, "cocoid": image_id}
        entries.append(entry | {"sentences": sentences})
        start = end
    path.write_text(json.dumps({"images": entries, "dataset": "coco"}))


def _draw_instances(path: Path, rng: np.random.Generator, ids: np.ndarray, objects: int) -> None:
    corners = (rng.random((objects, 2)) * [600, 440]).round(2)
    sides = (rng.random((objects, 2)) * 40).round(2)
    boxes = np.concatenate([corners, sides], axis=1).tolist()
    owners, classes = rng.choice(ids, objects).tolist(), rng.integers(1, CLASSES + 1, objects).tolist()
    outlines = [json.dumps([(rng.random(50) * 400).round(2).tolist()]) for _ in range(1000)]
    images = [{"id": i, "width": 640, "height": 480, "file_name": f"{i:012d}.jpg"} for i in ids.tolist()]
    categories = [{"id": number + 1, "name": name} for number, name in enumerate(NAMES)]
    with path.open("w") as file:
        file.write(f'{{"images": {json.dumps(images)}, "categories": {json.dumps(categories)}, "annotations": [')
        for n in range(objects):
            file.write(
                f'{", " if n else ""}{{"segmentation": {outlines[n % 1000]}, "iscrowd": {int(n % 86 == 0)}, '
                f'"image_id": {owners[n]}, "bbox": {boxes[n]}, "category_id": {classes[n]}, "id": {n + 1}}}'
            )
        file.write("]}")


def open_tables(folder: Path) -> Tables:
    """Load as a datamodule does."""
    return read_coco(
        folder / "karpathy.json", [folder / "instances.json"], folder, NAMES, folder / "cache", check_files=False
    )


def rows_of_tables(tables: Tables) -> Iterator[Row]:
    """Yield every image as a loader worker would ask for it."""
    for row in range(len(tables)):
        captions, objects = tables.caption_offsets[row : row + 2], tables.object_offsets[row : row + 2]
        yield tables.files[row], tables.texts[slice(*captions)], tables.boxes[slice(*objects)].tolist()


def open_json(folder: Path) -> tuple[list[dict[str, Any]], Any]:
    """Load as most code does: Karpathy's json as dicts, the boxes through pycocotools."""
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(folder / "instances.json"))
    with (folder / "karpathy.json").open() as file:
        return json.load(file)["images"], coco


def rows_of_json(loaded: tuple[list[dict[str, Any]], Any]) -> Iterator[Row]:
    """Yield every image as a loader worker would ask for it."""
    images, coco = loaded
    for image in images:
        boxes = [annotation["bbox"] for annotation in coco.imgToAnns[image["cocoid"]]]
        yield f"{image['filepath']}/{image['filename']}", [s["raw"] for s in image["sentences"]], boxes


WAYS: dict[str, tuple[Callable[[Path], Any], Callable[[Any], Iterator[Row]]]] = {
    "tables": (open_tables, rows_of_tables),
    "json + pycocotools": (open_json, rows_of_json),
}


def compare(folder: Path) -> int:
    """Check that both ways give the same rows; return their number."""
    count = 0
    for ours, theirs in zip(rows_of_tables(open_tables(folder)), rows_of_json(open_json(folder)), strict=True):
        assert ours == theirs, (ours, theirs)
        count += 1
    return count


def _status(path: str, key: str) -> float:
    line = next(line for line in Path(path).read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


def _work(way: str, loaded: object, ready: Barrier, results: Any) -> None:
    characters = sum(len(file) + sum(map(len, texts)) + len(boxes) for file, texts, boxes in WAYS[way][1](loaded))
    ready.wait()  # shared pages count rightly only while every process is there to share them
    results.put((characters, _status("/proc/self/smaps_rollup", "Pss:")))
    ready.wait()


def measure(way: str, folder: Path) -> dict[str, float]:
    """Load, then let forked workers read every row, in this process; MB and seconds."""
    start = time.perf_counter()
    loaded = WAYS[way][0](folder)
    next(WAYS[way][1](loaded))
    seconds, rss = time.perf_counter() - start, _status("/proc/self/status", "VmRSS:")
    peak = _status("/proc/self/status", "VmHWM:")
    context = multiprocessing.get_context("fork")
    ready, results = context.Barrier(WORKERS + 1), context.SimpleQueue()
    workers = [context.Process(target=_work, args=(way, loaded, ready, results)) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    ready.wait()
    total = _status("/proc/self/smaps_rollup", "Pss:") + sum(results.get()[1] for _ in workers)
    ready.wait()
    for worker in workers:
        worker.join()
    return {"load, s": seconds, "after load, MB": rss, "peak of load, MB": peak, "with 4 workers, MB": total}


def _measure_apart(way: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", way, "--folder", str(folder)]
    figures: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return figures


def report(folder: Path, scale: float) -> None:
    """Draw, compare, measure and print."""
    draw(folder, scale)
    for name in ("karpathy.json", "instances.json"):
        print(f"{name}: {(folder / name).stat().st_size / 2**20:.0f} MB")
    first = _measure_apart("tables", folder)
    cached = sum(path.stat().st_size for path in (folder / "cache").rglob("*") if path.is_file()) / 2**20
    print(f"first read: {first['load, s']:.1f} s, peak {first['peak of load, MB']:.0f} MB, cache {cached:.0f} MB")
    print(f"equal rows: {compare(folder)}")
    ours, theirs = (_measure_apart(way, folder) for way in WAYS)
    print(f"{'second load':<20}" + "".join(f"{way:>22}" for way in [*WAYS, "ratio"]))
    for key, value in ours.items():
        print(f"{key:<20}{value:>22.2f}{theirs[key]:>22.2f}{theirs[key] / value:>22.1f}")


def main() -> None:
    """Run the whole comparison, or one measurement of it in this process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="share of COCO's size")
    parser.add_argument("--measure", choices=list(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.folder)))
        return
    with tempfile.TemporaryDirectory() as folder:
        report(Path(folder), arguments.scale)


if __name__ == "__main__":
    main()

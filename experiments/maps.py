"""`python -m experiments maps --ckpt A [--ckpt B ...] --data CONFIG.yaml`: where models look for a text.

Maps are drawn over the images, one column per checkpoint, as a page (`maps.html`) and a sheet (`maps.png`), and scored
against the boxes or the mask of the object: `scores.csv` has a row for every checkpoint and class or group, and
`images.csv` one for every map. Checkpoints see the same images and are compared on them pair by pair.
"""

from __future__ import annotations

import math
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.errors import ConfigError
from datamodules.processor import find_processor
from experiments.drawing import Card, Panel, page, sheet
from experiments.encoding import Frame, embed_texts, finite
from experiments.options import Data, ExperimentParser, load_model, print_table, write_csv
from experiments.subjects import Subject, choose
from lightning_modules import ImageTextModule
from lightning_modules.maps import attention_rollout, find_layer, grad_cam
from metrics import MapScores
from metrics.maps import iou, mass_inside
from metrics.statistics import bootstrap, paired_test
from synth.finished import positive, writing_results

ALL = "all"
Heat: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Images `[B, 3, H, W]` and text embeddings `[B, D]` in, maps `[B, H, W]` out."""
_COLUMNS = ("checkpoint", "of", "maps", "blank", "mass inside, %", "95 %", "chance, %", "IoU, %", "95 %")


class Row(NamedTuple):
    """What the maps of one checkpoint are worth, over all subjects (`ALL`) or over a class or group, in per cent.

    `maps` counts those that have a region, `blank` those among them that are 0 everywhere; see `metrics.MapScores`. The
    ends of the bootstrap intervals are NaN where there are fewer than 2 images.
    """

    checkpoint: str
    of: str
    maps: int
    blank: int
    mass_inside: float
    mass_inside_low: float
    mass_inside_high: float
    chance: float
    iou: float
    iou_low: float
    iou_high: float


@dataclass
class Findings:
    """What the maps of one checkpoint are like.

    Attributes:
        checkpoint: as it was given.
        overall: means and counts over all subjects.
        scores: the same over each class or group.
        inside: `[N]` share of each map's mass inside its region, NaN where there is none.
        overlap: `[N]` IoU of each map, NaN where there is no region.
        panels: the first ones, drawn.
    """

    checkpoint: str
    overall: MapScores = field(default_factory=MapScores)
    scores: dict[str, MapScores] = field(default_factory=lambda: defaultdict(MapScores))
    inside: list[float] = field(default_factory=list)
    overlap: list[float] = field(default_factory=list)
    panels: list[Panel] = field(default_factory=list)


def main(arguments: list[str]) -> int:
    """Draw and score maps, write them, and print the scores.

    Args:
        arguments: what stands behind `python -m experiments maps`.

    Raises:
        SystemExit: after one sentence, if an option or a key is misspelled.
        UserError: data or checkpoints are not there or broken, or a value cannot work.
    """
    options, data = _parser().read(arguments)
    subjects = choose(data, options.split, options.classes, options.images, options.seed, options.captions)
    _check_labels(options.ckpt)
    with writing_results(options.to):  # before the work, that it is not lost
        options.to.mkdir(parents=True, exist_ok=True)
    found = [examine(checkpoint, data, subjects, options) for checkpoint in options.ckpt]
    rows = [row for findings in found for row in _rows(findings, subjects)]
    with writing_results(options.to):
        _write(options, subjects, found, rows)
    print_table(_COLUMNS, list(map(_cells, rows)))
    if not any(row.maps for row in rows):
        print("No map has a region to be scored against: the data names no masks (key `masks`) and no boxes.")
    for findings in found[1:]:
        print(_compared(found[0], findings, subjects))
    print(f"Maps: {options.to}/maps.html, maps.png; scores: scores.csv, images.csv")
    return 0


def _parser() -> ExperimentParser:
    parser = ExperimentParser("maps", "Draw where models look for a text, and score it against boxes or masks.")
    parser.add_argument(
        "--ckpt",
        action="append",
        required=True,
        metavar="FILE",
        help="checkpoint of a run, or its config for the model before training; once for every column",
    )
    parser.add_argument("--method", choices=("grad_cam", "rollout"), default="grad_cam", help="default: grad_cam")
    parser.add_argument("--layer", metavar="PATH", help="module that Grad-CAM looks at; default: found for each model")
    parser.add_argument("--captions", action="store_true", help="ask for captions that name the class, not for prompts")
    parser.add_argument("--images", type=positive, default=200, metavar="N", help="maps to score; default: 200")
    parser.add_argument("--shown", type=positive, default=24, metavar="N", help="of which are drawn; default: 24")
    parser.add_argument("--batch_size", type=positive, default=16, metavar="N", help="images at a time; default: 16")
    parser.add_argument("--to", type=Path, default=Path("maps"), metavar="FOLDER", help="default: maps")
    return parser


def examine(checkpoint: str, data: Data, subjects: Sequence[Subject], options: Namespace) -> Findings:
    """Map all subjects with one model.

    Args:
        checkpoint: as `load_model` takes it.
        data: where the images are.
        subjects: N of them.
        options: `method`, `layer`, `prompt`, `batch_size` and `shown` of the command.

    Raises:
        ConfigError: the model has no such maps.
        UnreadableImageError: an image or a mask cannot be read.
    """
    model = load_model(checkpoint)
    see = find_processor(model.processor, None, None).eval_image
    frames = lru_cache(maxsize=32)(partial(Frame, see))
    embed = lru_cache(maxsize=None)(partial(_text, model, options.prompt))
    findings, heat = Findings(checkpoint), None
    for start in range(0, len(subjects), options.batch_size):
        part = subjects[start : start + options.batch_size]
        images = [data.read_image(subject.row) for subject in part]
        pixels = torch.stack([see(image) for image in images])
        pairs = zip(part, images, strict=True)
        regions = torch.stack([frames(image.size).region(subject.region(image.size)) for subject, image in pairs])
        texts = torch.stack([embed(subject.text, subject.is_caption) for subject in part])
        on_device = pixels.to(model.device)
        heat = heat or _mapper(model, options, on_device, texts)
        maps = finite(heat(on_device, texts).cpu(), model, "images")
        _note(findings, part, maps, regions)
        for place in range(min(len(part), options.shown - start)):
            picture = frames(images[place].size).shown(pixels[place])
            caption = f"{_inside(findings.inside[start + place])} | {label(checkpoint)}"
            findings.panels.append(Panel(picture, maps[place].numpy(), regions[place].numpy(), caption))
    return findings


def _inside(share: float) -> str:
    return "blank, or no region" if math.isnan(share) else f"{100 * share:.0f} % inside"


def _mapper(model: ImageTextModule, options: Namespace, pixels: Tensor, texts: Tensor) -> Heat:
    """Return what makes the maps, with the layer found once for all batches."""
    if options.method == "rollout":
        return lambda images, _: attention_rollout(model, images)
    layer = options.layer or find_layer(model, pixels, texts)
    print(f"{type(model).__name__}: Grad-CAM at {layer}")
    return partial(grad_cam, model, layer=layer)


def _text(model: ImageTextModule, prompts: Sequence[str], text: str, is_caption: bool) -> Tensor:
    """Embed what is asked for, `[D]`: a caption as it is, a class in its prompts."""
    return embed_texts(model, ["{}"] if is_caption else prompts, [text])[0]


def _note(findings: Findings, subjects: Sequence[Subject], maps: Tensor, regions: Tensor) -> None:
    findings.inside += mass_inside(maps, regions).tolist()
    findings.overlap += iou(maps, regions).tolist()
    findings.overall.update(maps, regions)
    for place, subject in enumerate(subjects):
        findings.scores[subject.name].update(maps[place : place + 1], regions[place : place + 1])


def _rows(findings: Findings, subjects: Sequence[Subject]) -> list[Row]:
    """Return the means of a checkpoint with their intervals, those over all maps first."""
    rows, names = [], np.array([subject.name for subject in subjects])
    parts = [(ALL, findings.overall, np.full(len(names), True))]
    parts += [(name, scores, names == name) for name, scores in sorted(findings.scores.items())]
    for name, scores, mine in parts:
        means = {key: value.item() for key, value in scores.compute().items()}
        inside, overlap = (_interval(values, subjects, mine) for values in (findings.inside, findings.overlap))
        row = Row(
            checkpoint=label(findings.checkpoint),
            of=name,
            maps=int(means["maps"] - means["no_region"]),
            blank=int(means["blank"]),
            mass_inside=means["mass_inside"],
            mass_inside_low=inside[0],
            mass_inside_high=inside[1],
            chance=means["chance"],
            iou=means["iou"],
            iou_low=overlap[0],
            iou_high=overlap[1],
        )
        rows.append(row)
    return rows


def _interval(values: Sequence[float], subjects: Sequence[Subject], mine: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the ends of the bootstrap interval of a mean over images, in per cent."""
    known = mine & ~np.isnan(values)
    images = np.array([subject.image_id for subject in subjects])[known]
    if len(np.unique(images)) < 2:
        return math.nan, math.nan
    found = bootstrap(100 * np.array(values)[known], images)
    return float(found.low), float(found.high)


def _cells(row: Row) -> list[str]:
    shares = [
        f"{row.mass_inside:.1f}",
        f"{row.mass_inside_low:.1f} to {row.mass_inside_high:.1f}",
        f"{row.chance:.1f}",
        f"{row.iou:.1f}",
        f"{row.iou_low:.1f} to {row.iou_high:.1f}",
    ]
    return [row.checkpoint, row.of, str(row.maps), str(row.blank), *shares]


def label(checkpoint: str) -> str:
    """Return what tells a checkpoint from others in a table: the run, its date and the name of the file.

    Example:
        >>> label("runs/demo/20250131-120000/checkpoints/best.ckpt"), label("configs/demo.yaml")
        ('demo/20250131-120000/best', 'configs/demo')
    """
    parts = [part for part in Path(checkpoint).with_suffix("").parts if part != "checkpoints"]
    return "/".join(parts[-3:])


def _check_labels(checkpoints: Sequence[str]) -> None:
    labels = [label(checkpoint) for checkpoint in checkpoints]
    if twice := next((name for name in labels if labels.count(name) > 1), None):
        raise ConfigError(
            f"`--ckpt` is given twice for what tables call {twice}: leave one out, or give their folders other names."
        )


def _compared(first: Findings, second: Findings, subjects: Sequence[Subject]) -> str:
    """Say how the mass inside changed from the first checkpoint to another, on the images that both have it for."""
    one, other = np.array(first.inside), np.array(second.inside)
    known = ~np.isnan(one) & ~np.isnan(other)
    images = np.array([subject.image_id for subject in subjects])[known]
    if len(np.unique(images)) < 2:
        return f"{label(second.checkpoint)}: too few maps with mass and region to compare."
    test = paired_test(100 * one[known], 100 * other[known], images)
    change = f"{test.difference:+.1f} points ({test.low:+.1f} to {test.high:+.1f}, p {test.p_value:.4f})"
    names = f"{label(second.checkpoint)} against {label(first.checkpoint)}"
    return f"Mass inside, {names}: {change} on {known.sum()} maps."


def _write(options: Namespace, subjects: Sequence[Subject], found: Sequence[Findings], rows: Sequence[Row]) -> None:
    cards = [
        Card(f"{subject.name}: {subject.text} (image {subject.image_id})", panels)
        for subject, *panels in zip(subjects[: options.shown], *(one.panels for one in found), strict=True)
    ]
    title = f"Where models look: {options.method} on {options.split}"
    summary = f"{len(subjects)} maps, drawn with seed {options.seed}, {len(cards)} shown; regions outlined in green."
    (options.to / "maps.html").write_text(page(title, summary, [_COLUMNS, *map(_cells, rows)], cards), encoding="utf-8")
    sheet(cards).save(options.to / "maps.png")
    each = [
        (label(one.checkpoint), subject.image_id, subject.name, subject.text, inside, overlap)
        for one in found
        for subject, inside, overlap in zip(subjects, one.inside, one.overlap, strict=True)
    ]
    write_csv(options.to / "scores.csv", [Row._fields, *rows])
    write_csv(options.to / "images.csv", [("checkpoint", "image_id", "of", "text", "mass_inside", "iou"), *each])

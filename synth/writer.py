"""The synthetic set on disk: an image folder with `metadata.jsonl` for each split, finished by `protocol.json`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datamodules.cache import draft_beside
from datamodules.errors import ConfigError
from synth import captions, selection
from synth.config import MAX_CLASSES, SYNTHETIC_ID_BASE, SynthesisConfig, writing_to
from synth.plan import Plan
from synth.report import SplitCounts, Summary

PROTOCOL = "protocol.json"


@contextmanager
def drafting(output: Path) -> Iterator[Path]:
    """Give a folder to write in that becomes `output` at the end, or vanishes where the work is broken off."""
    draft = draft_beside(output)
    try:
        with writing_to(output):
            draft.mkdir()
        yield draft
        with writing_to(output):
            os.replace(draft, output)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def row_of(config: SynthesisConfig, plan: Plan) -> dict[str, Any]:
    """Return the metadata of one counterfactual: what the image is called, what it shows and where it comes from."""
    tables, removal = config.data.tables, plan.removal
    source = int(tables.image_ids[plan.row])
    caption = int(tables.caption_ids[plan.caption]) if plan.caption >= 0 else -1
    names = tables.class_names
    return {
        "file_name": f"{source:012d}-{removal.candidate:03d}.png",
        "text": plan.text,
        "image_id": _new_id(source, removal.candidate),
        "caption_id": _new_id(caption, removal.candidate) if plan.caption >= 0 else -1,
        "source_image_id": source,
        "source_caption_id": caption,
        "source_text": tables.texts[plan.caption] if plan.caption >= 0 else "",
        "removed": [names[index] for index in sorted(removal.removed)],
        "kept": [names[index] for index in sorted(removal.kept)],
        "removed_boxes": [[round(v, 3) for v in (a, b, c - a, d - b)] for a, b, c, d in removal.boxes.tolist()],
        "fill": config.fill.name,
        "fill_version": config.fill.version,
        "caption_strategy": captions.STRATEGY,
        "caption_version": captions.VERSION,
        "seed": config.seed,
    }


def _new_id(source: int, candidate: int) -> int:
    return SYNTHETIC_ID_BASE + MAX_CLASSES * source + candidate


def identity(config: SynthesisConfig) -> dict[str, Any]:
    """Return everything that decides what a set holds; `output` and `workers` do not."""
    data, fill = config.data, config.fill
    named: dict[str, Any] = {
        "data": {
            "class_path": f"{type(data).__module__}.{type(data).__qualname__}",
            "fingerprint": data.tables.fingerprint,
            "matcher": data.matcher.version,
        },
        "pairs": config.pairs,
        "queries": config.queries,
        "fill": {
            "class_path": f"{type(fill).__module__}.{type(fill).__qualname__}",
            "version": fill.version,
            **vars(fill),
        },
        "captions": {"strategy": captions.STRATEGY, "version": captions.VERSION},
        "selection": {"version": selection.VERSION},
    }
    plain = ("alpha1", "alpha2", "alpha3", "dilation", "seed", "max_images")
    return named | {key: getattr(config, key) for key in plain}


def read_finished(config: SynthesisConfig) -> Summary | None:
    """Return the summary of a finished set of this config, None where there is none.

    Raises:
        ConfigError: if the set was made by another config; the text names the first key that differs.
    """
    path = config.output / PROTOCOL
    if not path.is_file():
        return None
    try:
        protocol = json.loads(path.read_text(encoding="utf-8"))
        there = dict(_flat(protocol["config"]))
        splits = {name: SplitCounts.from_json(counts) for name, counts in protocol["counts"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} (in `output`) is no protocol of this program; name another `output`.") from error
    wanted = dict(_flat(json.loads(_json(identity(config)))))
    for key in dict.fromkeys([*wanted, *there]):
        if there.get(key) != wanted.get(key):
            raise ConfigError(
                f"`output` {config.output} holds a set made with `{key}` {there.get(key)!r} instead of "
                f"{wanted.get(key)!r}; name another `output` or delete that folder."
            )
    return Summary(config.output, splits, made=False)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, default=str)  # a fill of the user's may hold a path


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def finish(folder: Path, config: SynthesisConfig, splits: Mapping[str, SplitCounts]) -> None:
    """Write the data set card, and last `protocol.json`, whose presence says that the set is complete."""
    (folder / "README.md").write_text(_card(config, splits), encoding="utf-8")
    counts = {name: split.as_json() for name, split in splits.items()}
    protocol = {"config": identity(config), "counts": counts}
    (folder / PROTOCOL).write_text(_json(protocol) + "\n", encoding="utf-8")


def _card(config: SynthesisConfig, splits: Mapping[str, SplitCounts]) -> str:
    rows = [f"| {name} | {split.images} | {split.kept} |" for name, split in splits.items()]
    return "\n".join(
        [
            "# Counterfactual image-text pairs",
            "",
            "In every image the objects of some classes are painted over, and the noun phrases that name them are",
            f"taken out of the caption. Fill: {config.fill.name}; captions: {captions.STRATEGY}; seed: {config.seed}.",
            "Images and captions derive from the source data set and stay under its licence.",
            "",
            "| split | source images | counterfactuals |",
            "|---|---|---|",
            *rows,
            "",
            "Each split is an image folder with `metadata.jsonl`: `text` goes with `file_name`; `removed` and `kept`",
            "are classes, `removed_boxes` are x, y, width, height in pixels, `source_*` says where a row comes from.",
            "Splits whose `text` is empty hold query images. `protocol.json` has the whole config and all counts.",
            "",
        ]
    )

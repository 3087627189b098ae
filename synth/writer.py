"""The synthetic set on disk: an image folder with `metadata.jsonl` for each split, finished by `protocol.json`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from datamodules.errors import ConfigError
from synth import selection, tally, workspace
from synth.card import dataset_card
from synth.config import MAX_CLASSES, SYNTHETIC_ID_BASE, SynthesisConfig, writing_to
from synth.plan import Plan
from synth.report import SplitCounts, Summary

PROTOCOL = "protocol.json"
_OURS = re.compile(r"\d{12,}-\d{3}\.png|\..+\.\d+\.part")


def file_name(config: SynthesisConfig, plan: Plan) -> str:
    """Return the name of an image, which has nothing but digits of the ids that it is made from."""
    return f"{int(config.data.tables.image_ids[plan.row]):012d}-{plan.removal.candidate:03d}.png"


def row_of(config: SynthesisConfig, plan: Plan, text: str) -> dict[str, Any]:
    """Return the metadata of one counterfactual: what the image is called, what it shows and where it comes from."""
    tables, removal = config.data.tables, plan.removal
    source = int(tables.image_ids[plan.row])
    caption = int(tables.caption_ids[plan.caption]) if plan.caption >= 0 else -1
    names = tables.class_names
    return {
        "file_name": file_name(config, plan),
        "text": text,
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
        "caption_strategy": config.caption.name,
        "caption_version": config.caption.version,
        "seed": config.seed,
    }


def _new_id(source: int, candidate: int) -> int:
    return SYNTHETIC_ID_BASE + MAX_CLASSES * source + candidate


def identity(config: SynthesisConfig) -> dict[str, Any]:
    """Return as JSON everything that decides what a set holds; `output` and how the work is spread do not."""
    data, fill, caption = config.data, config.fill, config.caption
    named: dict[str, Any] = {
        "data": {
            "class_path": _class_path(data),
            "fingerprint": data.tables.fingerprint,
            "matcher": data.matcher.version,
        },
        "pairs": config.pairs,
        "queries": config.queries,
        "fill": {"class_path": _class_path(fill), "version": fill.version, **fill.identity()},
        "captions": {"class_path": _class_path(caption), "version": caption.version, **caption.identity()},
        "selection": {"version": selection.VERSION, **vars(config.selection)},
    }
    plain = ("dilation", "feather", "captions_per_image", "queries_per_image", "seed", "max_images")
    named |= {key: getattr(config, key) for key in plain}
    plainer: dict[str, Any] = json.loads(_json(named))
    return plainer


def _class_path(thing: object) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


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
        counted = tally.read(config.output / tally.FILE)
        splits = {
            name: SplitCounts.from_json(counts, counted.get(name, {})) for name, counts in protocol["counts"].items()
        }
        told = workspace.difference(protocol["config"], identity(config))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} (in `output`) is no protocol of this program; name another `output`.") from error
    if told:
        raise ConfigError(
            f"`output` {config.output} holds a set made with {told}; name another `output` or delete that folder."
        )
    return Summary(config.output, splits, made=False)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, default=str)  # a fill of the user's may hold a path


def write_split(folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the metadata of a split in one step, and remove images that no row names, which broken runs may leave."""
    named = set()
    with writing_to(folder.parent):
        with workspace.whole(folder / "metadata.jsonl") as draft, draft.open("w", encoding="utf-8") as metadata:
            for row in rows:
                named.add(row["file_name"])
                metadata.write(json.dumps(row, ensure_ascii=False) + "\n")
        for path in folder.iterdir():
            if path.name not in named and _OURS.fullmatch(path.name):
                path.unlink()


def finish(config: SynthesisConfig, splits: Mapping[str, SplitCounts]) -> None:
    """Write the table of classes and the data set card, and last `protocol.json`: it says that the set is complete."""
    folder, counts = config.output, {name: split.as_json() for name, split in splits.items()}
    table = tally.as_csv({name: split.tally for name, split in splits.items()})
    workspace.write_whole(folder / tally.FILE, table)
    workspace.write_whole(folder / "README.md", dataset_card(config, splits))
    workspace.write_whole(folder / PROTOCOL, _json({"config": identity(config), "counts": counts}) + "\n")

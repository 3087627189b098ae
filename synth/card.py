"""The data set card of a synthetic set: what people read, and what tells loaders which folder is which split."""

from __future__ import annotations

from collections.abc import Mapping

from synth.config import SynthesisConfig
from synth.report import SplitCounts

_CARD = """\
---
pretty_name: Counterfactual image-text pairs
tags: [counterfactual, image-text-retrieval, synthetic]
configs:
- config_name: default
  data_files:
{files}
---
# Counterfactual image-text pairs

In every image the objects of some classes are painted over, and no caption names these classes.
Fill: {fill}; captions: {captions}; seed: {seed}.
Images and captions derive from the source data set and stay under its licence.

| split | source images | counterfactuals |
|---|---|---|
{rows}

Each split is an image folder with `metadata.jsonl`: `text` goes with `file_name`; `removed` and `kept`
are classes, `removed_boxes` are x, y, width, height in pixels, `source_*` says where a row comes from.
Rows of one `image_id` share an image. `classes.csv` counts what was kept and rejected by class.
Splits whose `text` is empty hold query images. `protocol.json` has the whole config and all counts.
"""


def dataset_card(config: SynthesisConfig, splits: Mapping[str, SplitCounts]) -> str:
    """Return the `README.md` of a set, in the form of the Hugging Face hub.

    Args:
        config: what the set was made by.
        splits: counts of every written split. A split of the hub has no hyphen in its name, so it gets underscores.
    """
    files = (f'  - split: "{name.replace("-", "_")}"\n    path: {name}/**' for name in splits)
    rows = (f"| {name} | {split.images} | {split.kept} |" for name, split in splits.items())
    return _CARD.format(
        files="\n".join(files),
        fill=config.fill.name,
        captions=config.caption.name,
        seed=config.seed,
        rows="\n".join(rows),
    )

"""`python -m synth sheet --config configs/synth/NAME.yaml`: a contact sheet of a finished set."""

from __future__ import annotations

from pathlib import Path

from synth.contact_sheet import choose, sheet
from synth.finished import FinishedSetParser, from_zero, positive, writing_results


def main(arguments: list[str]) -> int:
    """Write the sheet and say where it is.

    Args:
        arguments: what stands behind `python -m synth sheet`.

    Raises:
        SystemExit: after one sentence, if an option or a key is misspelled.
        UserError: the set is not there or broken, or a value cannot work.
    """
    options, config = _parser().read(arguments)
    split = options.split or next(iter(config.splits))
    path = options.to or config.output.with_name(f"{config.output.name}_{split}.html")
    examples = choose(config, split, options.images, options.seed)
    summary = f"{len(examples)} counterfactuals of split {split}, drawn with seed {options.seed}; removed boxes in red."
    page = sheet(f"Counterfactuals of {config.output.name}", examples, summary)
    with writing_results(path):
        path.write_text(page, encoding="utf-8")
    print(f"Contact sheet: {path}")
    return 0


def _parser() -> FinishedSetParser:
    parser = FinishedSetParser("sheet", "Show counterfactuals beside their sources, as one HTML file.")
    parser.add_argument("--images", type=positive, default=24, metavar="N", help="how many; default: 24")
    parser.add_argument("--seed", type=from_zero, default=0, metavar="N", help="of the choice; default: 0")
    parser.add_argument("--split", metavar="NAME", help="a written split; default: the first of the config")
    parser.add_argument("--to", type=Path, metavar="FILE", help="HTML file to write; default: beside the set")
    return parser

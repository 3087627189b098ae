"""The keys that the page about fine-tuning names are there."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import yaml

from lightning_modules import SpuriousAwareCLIP
from lightning_modules.contrastive import ContrastiveModule

PAGE = (Path(__file__).parents[1] / "docs" / "finetuning.md").read_text()


def test_the_table_has_every_term() -> None:
    keys = inspect.signature(SpuriousAwareCLIP.__init__).parameters
    assert re.findall(r"^\| `(\w+_weight)`", PAGE, re.M) == [key for key in keys if key.endswith("_weight")]


def test_the_keys_for_retrieval_are_those_of_contrastive_training() -> None:
    block = "\n".join(re.findall(r"^    (.+)$", PAGE, re.M))
    given = yaml.safe_load(block)["model"]["init_args"]
    keys = inspect.signature(ContrastiveModule.__init__).parameters
    assert list(given) == [key for key in keys if key.startswith("spurious")]

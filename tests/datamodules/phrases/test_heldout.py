"""The phrase matcher on captions that its word list was not tuned on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from datamodules.phrases import CocoMatcher, RuleChunker
from datamodules.phrases.protocol import PhraseMatcher

CAPTIONS = json.loads((Path(__file__).parent / "heldout_labels.json").read_text())["captions"]


@pytest.mark.slow
@pytest.mark.parametrize("matcher", [CocoMatcher(), CocoMatcher(RuleChunker())], ids=["spacy", "rules"])
def test_reaches_the_figures_it_promises(matcher: PhraseMatcher) -> None:
    found = matcher.mentions([caption["caption"] for caption in CAPTIONS])
    labelled = np.array([[name in caption["classes"] for name in matcher.class_names] for caption in CAPTIONS])
    both = (found & labelled).sum()
    precision, recall, exact = both / found.sum(), both / labelled.sum(), (found == labelled).all(axis=1).mean()
    print(f"precision {precision:.3f}, recall {recall:.3f}, exact set {exact:.3f}")
    assert precision >= 0.96
    assert recall >= 0.96
    assert exact >= 0.90


def test_the_captions_are_distinct() -> None:
    assert len({caption["caption_id"] for caption in CAPTIONS}) == len(CAPTIONS) >= 200

"""Counterfactual image-text pairs: select objects, fill their pixels, edit the caption, write the set to disk."""

from synth.config import Source, SynthesisConfig, load
from synth.job import run, run_file
from synth.report import SplitCounts, Summary
from synth.rules import Rule

__all__ = ["Rule", "Source", "SplitCounts", "Summary", "SynthesisConfig", "load", "run", "run_file"]

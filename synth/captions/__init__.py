"""Captions for counterfactual images: one protocol, and one file for each strategy of the paper (section 3.3)."""

from synth.captions.base import CaptionRequest, CaptionStrategy
from synth.captions.model import CaptioningModel
from synth.captions.noun_phrases import NounPhraseRemoval, remove_phrases
from synth.captions.prompts import PromptCaptions

__all__ = [
    "CaptionRequest",
    "CaptionStrategy",
    "CaptioningModel",
    "NounPhraseRemoval",
    "PromptCaptions",
    "remove_phrases",
]

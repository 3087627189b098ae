"""Flickr30k Entities: captions whose noun phrases are annotated with types, and boxes for what they name."""

from datamodules.entities.phrases import AnnotatedPhrases
from datamodules.entities.reader import read_entities
from datamodules.entities.sentences import TYPES

__all__ = ["TYPES", "AnnotatedPhrases", "read_entities"]

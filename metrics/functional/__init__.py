"""Pure functions of the metrics: they need torch alone and return fractions (0 to 1)."""

from metrics.functional.hallucination import hallucinated, hallucination_rate
from metrics.functional.hubness import Hubness, hubness
from metrics.functional.odmap import (
    average_precision,
    expected_average_precision,
    object_decorrelation_map,
    relevance,
)
from metrics.functional.querybank import InvertedSoftmax

__all__ = [
    "Hubness",
    "InvertedSoftmax",
    "average_precision",
    "expected_average_precision",
    "hallucinated",
    "hallucination_rate",
    "hubness",
    "object_decorrelation_map",
    "relevance",
]

"""Pure functions of the metrics: they need torch alone and return fractions (0 to 1)."""

from metrics.functional.odmap import (
    average_precision,
    expected_average_precision,
    object_decorrelation_map,
    relevance,
)

__all__ = ["average_precision", "expected_average_precision", "object_decorrelation_map", "relevance"]

"""One run, or two compared, as one HTML file that needs nothing else and opens from disk."""

from __future__ import annotations

from experiments.report.command import main

__all__ = ["main"]

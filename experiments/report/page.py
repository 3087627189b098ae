"""The HTML of a report."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from experiments.report.gallery import as_data


def page(title: str, summary: str, sections: Mapping[str, str], held: Mapping[str, Any]) -> str:
    """Return a page that needs nothing else: style, script and pictures are in it, and no other script may run.

    Args:
        title: heading and title.
        summary: a line below the heading.
        sections: HTML by the name of its place in `page.html`.
        held: what the script of the gallery reads.
    """
    style, script, template = (read(name) for name in ("page.css", "page.js", "page.html"))
    digest = b64encode(sha256(script.encode()).digest()).decode()
    return Template(template).substitute(
        title=escape(title),
        summary=escape(summary),
        style=style,
        script=script,
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'",
        held=as_data(held),
        **sections,
    )


def read(name: str) -> str:
    """Return a file of the page's parts."""
    return files("experiments.report").joinpath(name).read_text(encoding="utf-8")

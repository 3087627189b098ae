"""What the gallery of a report shows, as JSON that its script reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.report.drawn import draw, embedded, pictures
from experiments.report.tested import OUTCOMES, STATES, Asked, Run, caption_rows, states, words

_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def gallery(runs: Sequence[Run], asked: Asked, images: int, seed: int) -> dict[str, Any]:
    """Return all queries with what was retrieved for them.

    Args:
        runs: one or two.
        asked: the data.
        images: for how many queries the pictures are in it.
        seed: draws these, as evenly over what became of queries as there are of each.

    Returns:
        `runs`, `classes`, `states`; `captions`, as `words` gives them; `queries`, each with `id` and `source` (texts:
        JavaScript rounds large numbers), `removed`, `kept` (class indices), `state` (index), `captions` (for each run,
        places among the captions) and `scores` (ODmAP@1 of each run); `pictures`, two data URIs by place of the query.

    Raises:
        UserError: a caption or a class is not of the data, or a picture cannot be read.
    """
    ids = np.concatenate([run.retrieved.ravel() for run in runs])
    known = np.unique(ids[ids >= 0])
    names = asked.data.tables.class_names
    kinds, became = STATES if len(runs) == 2 else OUTCOMES, states(runs)
    removed, kept = (runs[0].masks(role, names) for role in ("removed", "kept"))
    places = [np.where(run.retrieved < 0, -1, np.searchsorted(known, run.retrieved)) for run in runs]
    queries = [
        {
            "id": str(query),
            "source": str(asked.made.source_image_ids[asked.rows[row]]),
            "removed": np.flatnonzero(removed[row]).tolist(),
            "kept": np.flatnonzero(kept[row]).tolist(),
            "state": kinds.index(became[row]),
            "captions": [each[row][each[row] >= 0].tolist() for each in places],
            "scores": [float(run.first[row]) for run in runs],
        }
        for row, query in enumerate(runs[0].found.ids)
    ]
    return {
        "runs": [run.name for run in runs],
        "classes": list(names),
        "states": list(kinds),
        "captions": words(asked, caption_rows(asked, runs[0], known)),
        "queries": queries,
        "pictures": {row: [embedded(path) for path in pictures(asked, row)] for row in draw(became, images, seed)},
    }


def as_data(held: Any) -> str:
    r"""Return JSON for a `script` element, in which nothing can end that element or begin another.

    Example:
        >>> as_data("</script>")
        '"\\u003c/script\\u003e"'
    """
    text = json.dumps(held, separators=(",", ":"))
    for letter, escaped in _ESCAPES.items():
        text = text.replace(letter, escaped)
    return text

"""Which classes images show, by their annotated objects."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datamodules.synthetic_set import SyntheticSet
from datamodules.tables import Tables


def shown_classes(tables: Tables) -> NDArray[np.bool_]:
    """Return `[N, C]` bool, the classes that the N images show."""
    shown = np.zeros((len(tables), len(tables.class_names)), dtype=bool)
    shown[tables.object_images, tables.categories] = True
    return shown


def shown_after_removal(
    tables: Tables, made: SyntheticSet, rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return what synthetic images show: the classes of their sources that were not removed.

    Args:
        tables: the original data set.
        made: the synthetic set.
        rows: rows of it; an image that several of them have counts once.

    Returns:
        Image ids `[S]` int64, ascending, and classes `[S, C]` bool. (`made.kept` leaves out classes that are too small
        to count, or only in crowds, as the selection was told.)
    """
    ids, first = np.unique(made.image_ids[rows], return_index=True)
    chosen = rows[first]
    order = np.argsort(tables.image_ids)
    sources = order[np.searchsorted(tables.image_ids, made.source_image_ids[chosen], sorter=order)]
    return ids, shown_classes(tables)[sources] & ~made.removed[chosen]

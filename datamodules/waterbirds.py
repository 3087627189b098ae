"""Waterbirds: birds of land and water, mostly before the background of their kind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.csv_columns import CsvColumns, read_csv_below
from datamodules.errors import MissingPathError
from datamodules.group_table import SPLITS, GroupTable
from datamodules.grouped import GroupedDataModule
from datamodules.image_files import Listing
from datamodules.sources import existing_folder

LABELS = ("landbird", "waterbird")
PLACES = ("land", "water")


class WaterbirdsDataModule(GroupedDataModule):
    """Waterbirds, or any data set in its layout.

    The label is the kind of bird and the attribute its background, so that the groups are, in their order: landbirds on
    land and on water, waterbirds on land and on water. Source: Sagawa et al. 2020, "Distributionally Robust Neural
    Networks for Group Shifts"; the layout is that of its `waterbird_complete95_forest2water2`.

    Args:
        root: folder with `metadata.csv`, whose columns `img_id`, `img_filename` (relative to `root`), `y` (0 landbird,
            1 waterbird), `split` (0 train, 1 val, 2 test) and `place` (0 land, 1 water) are read.
        masks: folder with the masks of the birds, an image `001.Black_footed_Albatross/a.jpg` having the mask
            `001.Black_footed_Albatross/a.png` there, as in the segmentations of CUB-200-2011; None for none.
        **base: arguments of `GroupedDataModule`.
    """

    label_names = LABELS
    attribute_names = PLACES

    def __init__(self, root: str | os.PathLike[str], masks: str | os.PathLike[str] | None = None, **base: Any) -> None:
        super().__init__(**base)
        self.image_root = Path(root)
        self.masks = None if masks is None else Path(masks)

    def read(self) -> GroupTable:
        """Return the columns of `metadata.csv`.

        Raises:
            MissingPathError: a folder, `metadata.csv` or an image is not there.
            AnnotationError: `metadata.csv` is of another layout, or a value is out of range.
        """
        if self.masks is not None:
            existing_folder(self.masks, "data.init_args.masks")
        return read_waterbirds(self.image_root)

    def mask_path(self, row: int) -> Path | None:
        """Return the file with the mask of the bird in an image row, white on black; None without `masks`."""
        return None if self.masks is None else (self.masks / str(self.table.files[row])).with_suffix(".png")


def read_waterbirds(root: Path, *, check_files: bool = True) -> GroupTable:
    """Read `metadata.csv` below `root`.

    Args:
        root: folder of the data set.
        check_files: find each image on disk.

    Raises:
        MissingPathError: `root`, `metadata.csv` or an image is not there.
        AnnotationError: `metadata.csv` is of another layout, or a value is out of range.
    """
    columns = ["img_id", "img_filename", "y", "split", "place"]
    csv = read_csv_below(root, "metadata.csv", "data.init_args.root", columns)
    if check_files:
        _find_images(root, csv)
    return GroupTable(
        image_ids=csv.unique_integers("img_id"),
        files=np.array(csv.values["img_filename"]),
        labels=csv.integers("y", len(LABELS)),
        attributes=csv.integers("place", len(PLACES)),
        splits=csv.integers("split", len(SPLITS)).astype(np.int8),
        shape=(len(LABELS), len(PLACES)),
    )


def _find_images(root: Path, csv: CsvColumns) -> None:
    listing = Listing(root)
    lost = [row for row, file in enumerate(csv.values["img_filename"]) if file not in listing]
    if lost:
        raise MissingPathError(
            f"{csv.where(lost[0])} names {csv.values['img_filename'][lost[0]]}, one of {len(lost)} images that are not "
            f"below {root.absolute()}: fetch them, or set the key to the folder that holds them beside `metadata.csv`."
        )

"""What the world is: tables, readers, class vocabularies, mixing of original and synthetic pairs, and batches."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datamodules.base import RetrievalDataModule
    from datamodules.batch import RetrievalBatch
    from datamodules.coco import CocoDataModule
    from datamodules.flickr30k import Flickr30kDataModule
    from datamodules.grouped import GroupedDataModule
    from datamodules.image_folder import FolderDataModule
    from datamodules.scenes import ScenesDataModule
    from datamodules.scenes.birds import BirdCaptionsDataModule, BirdScenesDataModule
    from datamodules.waterbirds import WaterbirdsDataModule

_HOMES = {
    "BirdCaptionsDataModule": "datamodules.scenes.birds",
    "BirdScenesDataModule": "datamodules.scenes.birds",
    "CocoDataModule": "datamodules.coco",
    "Flickr30kDataModule": "datamodules.flickr30k",
    "FolderDataModule": "datamodules.image_folder",
    "GroupedDataModule": "datamodules.grouped",
    "RetrievalBatch": "datamodules.batch",
    "RetrievalDataModule": "datamodules.base",
    "ScenesDataModule": "datamodules.scenes",
    "WaterbirdsDataModule": "datamodules.waterbirds",
}

__all__ = [
    "BirdCaptionsDataModule",
    "BirdScenesDataModule",
    "CocoDataModule",
    "Flickr30kDataModule",
    "FolderDataModule",
    "GroupedDataModule",
    "RetrievalBatch",
    "RetrievalDataModule",
    "ScenesDataModule",
    "WaterbirdsDataModule",
]


def __getattr__(name: str) -> Any:
    """Import a public class where it is asked for, so that `import datamodules.phrases` loads no Lightning."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)

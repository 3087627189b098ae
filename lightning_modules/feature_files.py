"""Features of images that are computed once and trained on many times: what asks for them, and what writes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from lightning_modules.processor import Processor

if TYPE_CHECKING:
    from lightning_modules.vsepp import VSEPP


@dataclass(frozen=True)
class FeatureProcessor(Processor):
    """What a backbone asks that takes features in place of images.

    Attributes:
        feature_size: length of the feature vectors; a data module checks by it what it hands out.
    """

    feature_size: int

    @classmethod
    def of(cls, tokenize: Callable[[list[str]], Tensor], feature_size: int) -> Self:
        """Return the processor that takes vectors of this length as they are."""
        return cls(_as_it_is, _as_it_is, tokenize, feature_size)


@torch.inference_mode()
def write_features(
    model: VSEPP,
    image_ids: Sequence[int] | NDArray[np.int64],
    read: Callable[[int], Image],
    stem: str | Path,
    batch_size: int = 64,
) -> None:
    """Write `STEM_features.npy`, `[N, F]` float16 unit rows, and `STEM_image_ids.npy`, `[N]` int64.

    A model with `feature_size: F` is trained on them where `data.init_args.features` lists STEM. The ids are written
    last, so the features of a run that was broken off are not taken for whole. Originals and a synthetic set are best
    kept apart, so that a new set leaves the features of the originals as they are.

    Args:
        model: its CNN and its preprocessing of evaluation are used, on the device that it is on.
        image_ids: `[N]` ids of the images.
        read: row -> its image in RGB.
        stem: beginning of both paths.
        batch_size: images that are looked at together.

    Example:
        from datamodules import CocoDataModule
        from datamodules.images import open_rgb
        from datamodules.synthetic_set import SyntheticSet
        from lightning_modules import VSEPP
        from lightning_modules.feature_files import write_features

        boxes = [f"data/coco/annotations/instances_{part}2014.json" for part in ("train", "val")]
        data = CocoDataModule("data/coco", "data/coco/dataset_coco.json", boxes, synthetic="data/coco_synthetic")
        data.prepare_data()
        tables = data.tables
        model = VSEPP(image_weights="tv_in1k", vocabulary=["a"]).to("cuda")  # its words do not matter here
        write_features(model, tables.image_ids, data.read_image, "data/coco_vgg19")
        splits = [folder.name for folder in data.synthetic_root.iterdir() if folder.is_dir()]
        pairs = SyntheticSet.read(data.synthetic_root, splits, tables.class_names, tables.image_ids)
        write_features(model, pairs.image_ids, lambda row: open_rgb(pairs.path(row)), "data/coco_synthetic_vgg19")
    """
    training, stem, count = model.training, Path(stem), len(image_ids)
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(f"{stem.name}_{name}.npy") for name in ("features", "image_ids")]
    paths[1].unlink(missing_ok=True)
    size = model.projection.in_features
    written = np.lib.format.open_memmap(paths[0], mode="w+", dtype=np.float16, shape=(count, size))
    model.eval()
    with ThreadPoolExecutor() as pool:
        for start in range(0, count, batch_size):
            rows = range(start, min(start + batch_size, count))
            pixels = torch.stack(list(pool.map(lambda row: model.processor.eval_image(read(row)), rows)))
            written[start : rows.stop] = model.image_features(pixels.to(model.device)).half().cpu().numpy()
    model.train(training)
    written.flush()
    np.save(paths[1], np.asarray(image_ids, dtype=np.int64))


def _as_it_is(features: Any) -> Tensor:
    vector: Tensor = features
    return vector

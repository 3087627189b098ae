"""Features of images that were computed once, in place of the images themselves."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.errors import AnnotationError, ConfigError, MissingPathError
from datamodules.sources import existing_file

_KEY = "features"


class FeatureReader:
    """Reads features by image id from memory-mapped files; it takes the place of an `ImageReader`.

    A stem stands for `<stem>_features.npy`, `[N, F]` of any float type, and `<stem>_image_ids.npy`, `[N]` integers. An
    image that several stems have is read from the first. Pickling stores the stems alone, so that loader workers map
    the same pages.

    Args:
        stems: common beginnings of two paths each, such as `data/coco_vgg19`.

    Raises:
        MissingPathError: a file is not there.
        AnnotationError: a file is no array of the right type and shape, or two files have vectors of unequal length.
    """

    exceeded = False

    def __init__(self, stems: Sequence[Path]) -> None:
        self.stems = tuple(stems)
        self._arrays = [_open(stem) for stem in self.stems]
        sizes = {features.shape[1] for features, _ in self._arrays}
        if len(sizes) > 1:
            raise AnnotationError(
                f"The features of {', '.join(map(str, self.stems))} (config key `{_KEY}`) have unequal lengths: "
                f"{', '.join(map(str, sorted(sizes)))}; name features of one model."
            )
        self.feature_size = int(sizes.pop())

    def __getstate__(self) -> dict[str, tuple[Path, ...]]:
        return {"stems": self.stems}

    def __setstate__(self, state: dict[str, tuple[Path, ...]]) -> None:
        self.__init__(state["stems"])  # type: ignore[misc]

    @cached_property
    def _places(self) -> dict[int, tuple[int, int]]:
        """Return for each image id its file and row."""
        files = reversed(list(enumerate(ids for _, ids in self._arrays)))
        return {image: (file, row) for file, ids in files for row, image in enumerate(ids.tolist())}

    def read(self, path: Path, image_id: int) -> Tensor:
        """Return the features `[F]` float32 of an image; its path does not matter."""
        file, row = self._places[image_id]
        return torch.from_numpy(self._arrays[file][0][row].astype(np.float32))

    def check(self) -> None:
        """Do nothing: what `expect` has let pass can be read."""

    def expect(self, image_ids: NDArray[np.int64]) -> None:
        """Refuse images without features.

        Raises:
            ConfigError: there are such images; the text has their count and the first of them.
        """
        lost = [image for image in image_ids.tolist() if image not in self._places]
        if lost:
            raise ConfigError(
                f"{len(lost)} of {len(image_ids)} images have no features in {', '.join(map(str, self.stems))} (config "
                f"key `{_KEY}`), first image {lost[0]}: name features of all images, those of the synthetic set, too."
            )


def _open(stem: Path) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    features, ids = (_map(stem.parent / f"{stem.name}_{name}.npy") for name in ("features", "image_ids"))
    right = features.ndim == 2 and np.issubdtype(features.dtype, np.floating) and np.issubdtype(ids.dtype, np.integer)
    if not right or ids.shape != features.shape[:1]:
        raise AnnotationError(
            f"{stem}_*.npy (config key `{_KEY}`) hold {features.dtype} {list(features.shape)} and {ids.dtype} "
            f"{list(ids.shape)}: features must be floats [N, F] and image_ids integers [N]."
        )
    return features, ids


def _map(path: Path) -> NDArray[Any]:
    try:
        mapped: NDArray[Any] = np.lib.format.open_memmap(existing_file(path, _KEY), mode="r")
    except (ValueError, EOFError, OSError) as error:
        if isinstance(error, MissingPathError):
            raise
        raise AnnotationError(f"{path} (config key `{_KEY}`) is no array of numpy: {error}.") from error
    return mapped

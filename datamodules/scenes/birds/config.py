"""What BirdScenes and its captioned pictures are made of, checked before a single picture is drawn."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import Any, ClassVar

from datamodules.errors import ConfigError
from datamodules.group_table import SPLITS


@dataclass(frozen=True)
class BirdScenesConfig:
    """Size, seed and imbalance of a BirdScenes data set; by default the sizes and groups of Waterbirds.

    Attributes:
        train: images in the training split.
        val: images in the validation split.
        test: images in the test split.
        resolution: side of the square images in pixels, 48 to 512.
        seed: the same config and seed give the same bytes.
        match: share of training birds that are at the place of their kind, 0 to 1: 0.95 as in Waterbirds, 0.5 without a
            shortcut. In val and test it is 0.5, as there.
        bird_size: shortest and longest side of a bird, as shares of the picture's.
        stamps: folder of photographic cut-outs with an `index.csv` that has the columns `file`, `description` and
            `coco_class`; None draws OpenMoji glyphs.
        backgrounds: folder of photographs with an `index.csv` that has the columns `file` and `place` (land or water);
            None paints the places.

    Raises:
        ConfigError: a value cannot work.

    Example:
        >>> config = BirdScenesConfig()
        >>> config.group_sizes("train"), config.group_sizes("val"), config.group_sizes("test")
        ([3498, 184, 56, 1057], [467, 466, 133, 133], [2255, 2255, 642, 642])
    """

    train: int = 4795
    val: int = 1199
    test: int = 5794
    resolution: int = 64
    seed: int = 0
    match: float = 0.95
    bird_size: tuple[float, float] = (0.24, 0.42)
    stamps: str | None = None
    backgrounds: str | None = None

    key: ClassVar[str] = "birds"
    name: ClassVar[str] = "BirdScenes"
    waterbirds: ClassVar[dict[str, Fraction]] = {
        "train": Fraction(1113, 4795),
        "val": Fraction(266, 1199),
        "test": Fraction(1284, 5794),
    }
    """Waterbirds among all birds (group_DRO's README and WILDS' waterbirds_dataset.py give the counts)."""

    def __post_init__(self) -> None:
        for split in SPLITS:
            if getattr(self, split) < 0:
                raise ConfigError(f"{self.key}.{split} is {getattr(self, split)}: give 0 or more images.")
        if not any(self.sizes.values()):
            raise ConfigError(f"{self.key}.train, {self.key}.val and {self.key}.test are all 0: ask for an image.")
        if not 0 <= self.match <= 1:
            raise ConfigError(f"{self.key}.match is {self.match}, but a share of birds lies between 0 and 1.")
        if not 0.1 <= self.bird_size[0] <= self.bird_size[1] <= 1:
            raise ConfigError(
                f"{self.key}.bird_size is {list(self.bird_size)}: give two shares from 0.1 to 1, the smaller one first."
            )
        if not 48 <= self.resolution <= 512:
            raise ConfigError(f"{self.key}.resolution is {self.resolution}, but pictures have 48 to 512 pixels a side.")
        if self.seed < 0:
            raise ConfigError(f"{self.key}.seed is {self.seed}, but a seed is 0 or more.")

    @property
    def sizes(self) -> dict[str, int]:
        """Images per split."""
        return {split: getattr(self, split) for split in SPLITS}

    def match_of(self, split: str) -> float:
        """Return the share of birds at the place of their kind."""
        return self.match if split == "train" else 0.5

    def group_sizes(self, split: str) -> list[int]:
        """Return the images of each group: landbirds on land and on water, waterbirds on land and on water."""
        size, match = self.sizes[split], self.match_of(split)
        water = _rounded(size * self.waterbirds[split])
        land = size - water
        at_land, at_water = _rounded(land * match), _rounded(water * match)
        return [at_land, land - at_land, water - at_water, at_water]

    def as_json(self) -> dict[str, Any]:
        """Return the values as JSON would give them back, folders as absolute paths."""
        folders = {key: getattr(self, key) for key in ("stamps", "backgrounds")}
        values = asdict(self) | {"bird_size": list(self.bird_size)}
        return values | {key: path and str(Path(path).resolve()) for key, path in folders.items()}


@dataclass(frozen=True)
class BirdCaptionsConfig(BirdScenesConfig):
    """Size, seed and correlation of pictures of birds with captions, for the pre-training of a small CLIP.

    As many waterbirds as landbirds, both kinds mostly where one expects them, as on the web: correlated, but less than
    in BirdScenes, so that the words of bird and place can be told apart. Many are close, as where people photograph
    birds; of far ones alone a small network learns little but the place.

    Attributes:
        match: share of birds at the place of their kind, in all splits.
        bird_size: shortest and longest side of a bird, as shares of the picture's.
        captions: captions per image.
    """

    train: int = 6000
    val: int = 300
    test: int = 300
    match: float = 0.7
    bird_size: tuple[float, float] = (0.24, 0.9)
    captions: int = 2

    name: ClassVar[str] = "captioned birds"
    waterbirds: ClassVar[dict[str, Fraction]] = dict.fromkeys(SPLITS, Fraction(1, 2))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.captions < 1:
            raise ConfigError(f"{self.key}.captions is {self.captions}, but every image needs at least 1 caption.")

    def match_of(self, split: str) -> float:
        """Return the share of birds at the place of their kind, the same for all splits."""
        return self.match


def _rounded(value: float | Fraction) -> int:
    return floor(value + 0.5)

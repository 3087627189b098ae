"""What a Scenes data set is made of, checked before a single picture is drawn."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datamodules.errors import ConfigError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class ScenesConfig:
    """Size, seed and planted correlation of a Scenes data set.

    Attributes:
        train: images in the training split.
        val: images in the validation split.
        test: images in the test split.
        resolution: side of the square images in pixels, 48 to 512.
        seed: the same config and seed give the same bytes.
        rho: correlation (phi coefficient) of the two partners of a pair over the images of train and val, 0 to 1.
        test_rho: the same for the test split; None takes `rho`, 0 draws a test split without correlation.
        captions: captions per image.
        cutouts: None draws OpenMoji glyphs; else a folder of RGBA cut-outs with an `index.csv` that has the columns
            `file` and `coco_class` (rows without a class are left out).
        pairs: partner classes; None takes those of the vocabulary whose classes both have cut-outs.

    Raises:
        ConfigError: a value cannot work.

    Example:
        >>> ScenesConfig(rho=0.95, test_rho=0.0).rho_of("test")
        0.0
        >>> ScenesConfig(rho=1.5)
        Traceback (most recent call last):
        ...
        datamodules.errors.ConfigError: scenes.rho is 1.5, but a correlation of partners lies between 0 and 1.
    """

    train: int = 3000
    val: int = 300
    test: int = 600
    resolution: int = 64
    seed: int = 0
    rho: float = 0.95
    test_rho: float | None = None
    captions: int = 5
    cutouts: str | None = None
    pairs: list[tuple[str, str]] | None = None

    def __post_init__(self) -> None:
        for key in SPLITS:
            if getattr(self, key) < 0:
                raise ConfigError(f"scenes.{key} is {getattr(self, key)}, but a number of images is 0 or more.")
        if not any(self.sizes.values()):
            raise ConfigError("scenes.train, scenes.val and scenes.test are all 0: ask for at least one image.")
        for key in ("rho", "test_rho"):
            value = getattr(self, key)
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"scenes.{key} is {value}, but a correlation of partners lies between 0 and 1.")
        if not 48 <= self.resolution <= 512:
            raise ConfigError(f"scenes.resolution is {self.resolution}, but pictures can have 48 to 512 pixels a side.")
        if self.captions < 1:
            raise ConfigError(f"scenes.captions is {self.captions}, but every image needs at least 1 caption.")
        if self.seed < 0:
            raise ConfigError(f"scenes.seed is {self.seed}, but a seed is 0 or more.")

    @property
    def sizes(self) -> dict[str, int]:
        """Images per split."""
        return {split: getattr(self, split) for split in SPLITS}

    def rho_of(self, split: str) -> float:
        """Return the correlation of partners in this split."""
        return self.test_rho if split == "test" and self.test_rho is not None else self.rho

    def as_json(self) -> dict[str, Any]:
        """Return the values as JSON would give them back, with the cut-outs folder as an absolute path."""
        values = asdict(self)
        values["cutouts"] = None if self.cutouts is None else str(Path(self.cutouts).resolve())
        values["pairs"] = None if self.pairs is None else [list(pair) for pair in self.pairs]
        return values

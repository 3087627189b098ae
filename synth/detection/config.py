"""What a detection is told to do, and how arguments become it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datamodules.errors import ConfigError
from datamodules.phrases import PhraseMatcher
from synth.detectors import Detector


@dataclass(frozen=True)
class DetectionConfig:
    """One detection: from a folder of images to a COCO instances file.

    Attributes:
        images: folder of the images.
        detector: what finds the objects.
        output: instances json to write.
        captions: which images to look at, and what is said of them: a json in Karpathy's layout, or a table `file`,
            `caption` and, if there are several splits, `split` as .csv or .jsonl. Without it all images of the folder.
        matcher: names the classes to write, those of the data set; COCO's 80 by default.
        renamed: for labels of the detector that the data set calls otherwise, its class, as in `{sofa: couch}`.
        batch_size: images that the detector is given at once.
        workers: threads that read images.
        max_unreadable: how many images may be unreadable before the run stops.
    """

    images: Path
    detector: Detector
    output: Path
    captions: Path | None = None
    matcher: PhraseMatcher | None = None
    renamed: dict[str, str] = field(default_factory=dict)
    batch_size: int = 8
    workers: int = 2
    max_unreadable: int = 10

    def __post_init__(self) -> None:
        for key, lowest in {"batch_size": 1, "workers": 1, "max_unreadable": 0}.items():
            if getattr(self, key) < lowest:
                raise ConfigError(f"`{key}` is {getattr(self, key)}; give {lowest} or more.")

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes to write; position = class index."""
        if self.matcher is not None:
            return self.matcher.class_names
        from datamodules.phrases import CocoMatcher

        return CocoMatcher().class_names


def load(arguments: Sequence[str]) -> DetectionConfig:
    """Read a detection from command line arguments, which may name a yaml.

    Raises:
        SystemExit: after one sentence, if a key or a class is misspelled or a needed one is missing.
        UserError: if a value cannot work.
    """
    from cli import FriendlyParser

    parser = FriendlyParser(
        prog="python -m synth detect",
        description="Find the objects of images with a detector, and write them as a COCO instances file.",
    )
    parser.add_argument("--config", action="config", help="yaml with any of the keys below; later ones win")
    parser.add_class_arguments(DetectionConfig)
    values = parser.instantiate(parser.parse_args(list(arguments))).as_dict()
    del values["config"]
    return DetectionConfig(**values)

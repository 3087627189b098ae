"""What a caption strategy is asked, and what it answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from datamodules.phrases import Phrase
from synth.rules import Rule

if TYPE_CHECKING:
    import torch

    from synth.fills import Pixels


@dataclass(frozen=True, slots=True, eq=False)
class CaptionRequest:
    """One counterfactual that wants a caption.

    Attributes:
        text: the caption of the source, "" where a strategy is to write without one.
        phrases: its noun phrases, in order.
        removed: class indices removed from the image.
        kept: class indices left in the image.
        class_names: names of the classes; position = class index.
        counts: how many objects of each kept class are left in the image; a class that is left out counts as one.
        seed: what random numbers of this pair come from.
        image: `[H, W, 3]` uint8 RGB, the filled image, for a strategy that `needs_image`.
    """

    text: str
    phrases: Sequence[Phrase]
    removed: frozenset[int]
    kept: frozenset[int]
    class_names: Sequence[str]
    counts: Mapping[int, int] = field(default_factory=dict)
    seed: tuple[int, ...] = (0,)
    image: Pixels | None = None


class CaptionStrategy(ABC):
    """Writes captions of counterfactual images.

    A strategy of your own is a subclass with a `name`, a `version` and `write`; a config takes it by its class path.
    Whoever calls it has the data set read the answers, and drops those that name a removed class or no kept one: a
    strategy need not check.

    Attributes:
        name: what the metadata of a synthetic image call the strategy.
        version: to be raised whenever the same request could give another caption.
        needs_image: True where the caption is written from the filled image.
        edits_source: True where the caption is the source's, edited, so that the source must name a removed class.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    needs_image: ClassVar[bool] = False
    edits_source: ClassVar[bool] = False

    @abstractmethod
    def write(self, requests: Sequence[CaptionRequest]) -> list[str | Rule]:
        """Return one caption for each request, in order, or the rule that forbids it.

        The same request gets the same caption, whatever stands beside it.
        """

    def to(self, device: torch.device | str) -> None:  # noqa: B027 (most strategies have nothing to move)
        """Move what computes to a device; a strategy of words alone has nothing to move."""

    def identity(self) -> dict[str, Any]:
        """Return the options that decide what is written, for the protocol of a set."""
        return {key: value for key, value in vars(self).items() if not key.startswith("_")}

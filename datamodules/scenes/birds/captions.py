"""Says what a picture of a bird shows: the bird by its species or its kind, the place by its name or its kind."""

from __future__ import annotations

from random import Random

from datamodules.scenes.birds.picture import BirdPicture
from datamodules.scenes.birds.vocabulary import KINDS, PLACES, bird_vocabulary

_PARTS, _PART_WEIGHTS = ("bird", "both", "place"), (50, 45, 5)
_BIRD_WEIGHTS = (55, 40, 5)  # its species, its kind, just "bird"
_KIND_OF_PLACE = 0.5


def bird_caption(bird: BirdPicture, rng: Random) -> str:
    """Return a true sentence about the picture.

    Example:
        >>> from datamodules.scenes.birds.config import BirdScenesConfig
        >>> from datamodules.scenes.birds.picture import BirdDrawer
        >>> drawer = BirdDrawer(BirdScenesConfig())
        >>> bird_caption(drawer.draw(label=1, place=1, rng=Random(1)), Random(3))
        'A photo of the penguin.'
    """
    words = bird_vocabulary()
    part = rng.choices(_PARTS, _PART_WEIGHTS)[0]
    name = rng.choices((bird.species.name, KINDS[bird.species.kind], "bird"), _BIRD_WEIGHTS)[0]
    place = words.place_words[PLACES[bird.place_kind] if rng.random() < _KIND_OF_PLACE else bird.place]
    text = rng.choice(words.templates[part])
    text = text.format(bird=name, where=rng.choice(place.phrases), scene=rng.choice(place.nouns))
    text = text.replace("a owl", "an owl").replace("a ostrich", "an ostrich")
    return f"{text[0].upper()}{text[1:]}."

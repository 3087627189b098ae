"""What BLIP asks of captions and images, in training and evaluation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from datamodules.errors import ConfigError, MissingPathError
from lightning_modules.arguments import check_crop, check_range
from lightning_modules.messages import gist
from lightning_modules.processor import Processor, as_rgb

if TYPE_CHECKING:
    from PIL.Image import Image
    from transformers import BertTokenizer

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # those of CLIP
_MATCH_TOKEN = "[ENC]"  # noqa: S105 (BLIP's name for the first token of a caption that is matched with an image)
_DECODE_TOKEN = "[DEC]"  # noqa: S105 (its name for the first token of a caption that is written; it keeps the ids right)
_BERT_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_DROPPED = str.maketrans(dict.fromkeys('.!"()*#:;~', " "))


@dataclass(frozen=True)
class BlipTokenizer:
    """Cleans captions and turns them into WordPiece tokens.

    Attributes:
        tokenizer: a lower-case BERT tokenizer with BLIP's two tokens.
        max_length: tokens of a caption with `[CLS]` and `[SEP]`; longer ones are cut, shorter ones padded.
        max_words: words of a caption that are looked at.
    """

    tokenizer: BertTokenizer
    max_length: int
    max_words: int

    @property
    def match_token(self) -> int:
        """Id of `[ENC]`, the first token of a caption that is matched with an image."""
        return self.tokenizer.get_vocab()[_MATCH_TOKEN]

    @property
    def ids(self) -> dict[str, int]:
        """What the config of a text tower calls the ids of tokens."""
        known, names = self.tokenizer.get_vocab(), {"pad": "[PAD]", "sep": "[SEP]", "bos": _DECODE_TOKEN}
        return {f"{name}_token_id": known[token] for name, token in names.items()}

    @property
    def vocabulary(self) -> list[str]:
        """All tokens in the order of their ids; `build_tokenizer` makes the tokenizer of them again."""
        known: dict[str, int] = self.tokenizer.get_vocab()
        return sorted(known, key=known.__getitem__)

    def check(self, sizes: Any) -> None:
        """Check that a text tower can take the tokens.

        Args:
            sizes: config of the text tower.

        Raises:
            ConfigError: it has fewer tokens than the tokenizer, or too few positions, or a number is out of its range.
        """
        if len(self.tokenizer) > sizes.vocab_size:
            raise ConfigError(
                f"The tokenizer of `model.init_args.tokenizer` has {len(self.tokenizer)} tokens with {_DECODE_TOKEN} "
                f"and {_MATCH_TOKEN}, the text tower only {sizes.vocab_size}: give the tokenizer that belongs to the "
                "model, or raise `model.init_args.config.text_config.vocab_size`."
            )
        if not 2 <= self.max_length <= sizes.max_position_embeddings:
            raise ConfigError(
                f"`model.init_args.max_length` is {self.max_length}: give 2 to {sizes.max_position_embeddings}, the "
                "positions of the text tower."
            )
        check_range(1, max_words=self.max_words)

    def __call__(self, captions: str | list[str]) -> dict[str, Tensor]:
        """Return B captions, or one, as `input_ids` and `attention_mask`, `[B, max_length]` int64 each."""
        if not captions and not isinstance(captions, str):
            return {name: torch.empty(0, self.max_length, dtype=torch.long) for name in ("input_ids", "attention_mask")}
        found = self.tokenizer(
            [clean_caption(one, self.max_words) for one in ([captions] if isinstance(captions, str) else captions)],
            padding="max_length",
            truncation=True,
            max_length=self.max_length,
            return_token_type_ids=False,
            return_tensors="pt",
        )
        return {"input_ids": found["input_ids"], "attention_mask": found["attention_mask"]}


def clean_caption(caption: str, max_words: int) -> str:
    """Return the caption in lower case, without the marks that BLIP drops, and cut to so many words.

    Example:
        >>> clean_caption('A man (left)  and a "dog".', max_words=5)
        'a man left and a'
    """
    return " ".join(caption.lower().translate(_DROPPED).split()[:max_words])


def build_tokenizer(source: str | list[str]) -> BertTokenizer:
    """Build a BERT tokenizer, with BLIP's tokens `[DEC]` and `[ENC]` behind its own where it has them not.

    Args:
        source: the tokens themselves in the order of their ids; or the path of a `vocab.txt`, one token a line, of a
            folder that holds a tokenizer, or the id of one on the Hugging Face hub.

    Raises:
        ConfigError: when there is no such tokenizer, or it lacks a token that every BERT tokenizer has.
        MissingPathError: when the source can be no id, and there is no such file or folder.

    Example:
        >>> build_tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "dog"])("Dog [ENC]")["input_ids"]
        [2, 5, 7, 3]
    """
    words = _words(source)
    if missing := [token for token in _BERT_TOKENS if token not in words]:
        raise ConfigError(
            f"The vocabulary that `model.init_args.tokenizer` names lacks {', '.join(missing)}; every BERT vocabulary "
            "has them."
        )
    if doubled := [word for word, times in Counter(words).items() if times > 1]:
        raise ConfigError(f"The vocabulary that `model.init_args.tokenizer` names holds {doubled[0]!r} twice.")
    from transformers import BertTokenizer

    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(words)})
    tokenizer.add_special_tokens({"bos_token": _DECODE_TOKEN, "additional_special_tokens": [_MATCH_TOKEN]})
    return tokenizer


def _words(source: str | list[str]) -> list[str]:
    """Return the tokens in the order of their ids."""
    from transformers import BertTokenizer

    if not isinstance(source, str):
        return source
    if Path(source).is_file():
        return _lines(Path(source))
    if _names_a_file(source) and not Path(source).exists():
        raise MissingPathError(
            f"`model.init_args.tokenizer` is {source}, but {Path(source).expanduser().absolute()} is not there; give "
            "the path of BERT's `vocab.txt`."
        )
    reason = "it has no vocabulary"
    try:
        known = BertTokenizer.from_pretrained(source).get_vocab()
    except (OSError, TypeError, ValueError) as error:
        known, reason = {}, gist(error)
    if len(known) <= len(_BERT_TOKENS):  # transformers makes up these alone where it finds nothing
        raise ConfigError(
            f"`model.init_args.tokenizer: {source}` is no vocabulary file, and no folder or id of a tokenizer that can "
            f"be loaded: {reason}; give the path of BERT's `vocab.txt` where the hub cannot be reached."
        )
    return sorted(known, key=known.__getitem__)


def _names_a_file(source: str) -> bool:
    """Say whether a name can be no id on a hub, which would be asked for it."""
    return source.startswith((".", "/", "~")) or source.endswith((".txt", ".json")) or source.count("/") > 1


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"`model.init_args.tokenizer: {path}` is no text: give a `vocab.txt` of BERT, one token a line."
        ) from error


def export_processor(tokenizer: BertTokenizer, image_size: int, folder: Path) -> None:
    """Write the preprocessing of evaluation as transformers' `BlipProcessor`; captions are not cleaned by it."""
    from transformers import BlipImageProcessor, BlipProcessor

    images = BlipImageProcessor(
        size={"height": image_size, "width": image_size}, image_mean=list(MEAN), image_std=list(STD)
    )
    BlipProcessor(images, tokenizer).save_pretrained(folder)  # type: ignore[no-untyped-call]


def blip_processor(
    tokenize: BlipTokenizer, image_size: int, crop_scale: tuple[float, float], flip: bool, augment: tuple[int, float]
) -> Processor:
    """Return BLIP's preprocessing: bicubic, squashed to a square in evaluation, with the mean and spread of CLIP.

    Args:
        tokenize: turns captions into tokens.
        image_size: side of the square that the model takes, in pixels.
        crop_scale: area range of the random crop in training.
        flip: whether half of the training images are mirrored.
        augment: how many operations of `random_augment` follow, and their magnitude from 0 to 10.

    Raises:
        ConfigError: when a number is out of its range.
    """
    from torchvision.transforms import v2

    check_crop(crop_scale)
    if augment[0] < 0 or not 0 <= augment[1] <= 10:
        raise ConfigError(
            f"`model.init_args.augment` is {list(augment)}: give a number of operations, and a magnitude from 0 to 10."
        )
    bicubic: dict[str, Any] = {"interpolation": v2.InterpolationMode.BICUBIC}
    finish = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    crop = v2.RandomResizedCrop(image_size, scale=crop_scale, **bicubic)
    mirror = [v2.RandomHorizontalFlip()] if flip else []
    return Processor(
        train_image=v2.Compose([as_rgb, crop, *mirror, *random_augment(*augment), *finish]),
        eval_image=v2.Compose([as_rgb, v2.Resize((image_size, image_size), **bicubic), *finish]),
        tokenize=tokenize,
    )


def random_augment(count: int, magnitude: float) -> Iterator[Callable[[Image], Image]]:
    """Yield `count` transforms, each of which applies one of BLIP's ten operations, drawn anew, to half of the images.

    The operations are those of the published code (identity, autocontrast, brightness, sharpness, equalise, shear and
    translate along either axis, rotate; uncovered corners turn grey) at its magnitudes; brightness and sharpness rest
    at magnitude 5. Against that code, which draws with OpenCV, interpolated pixels differ by rounding, sharpness also
    changes the outermost pixels, and shears keep the middle of the image in place, not its corner.

    Args:
        count: operations in a row.
        magnitude: from 0 to 10.
    """
    from torchvision.transforms import v2

    operations = v2.RandomChoice(list(_operations(magnitude / 10)))
    yield from (v2.RandomApply([operations], p=0.5) for _ in range(count))


def _operations(level: float) -> Iterator[Callable[[Image], Image]]:
    from torchvision.transforms import v2
    from torchvision.transforms.v2 import functional as F

    factor, angle, slope, shift = 0.1 + 1.8 * level, 30 * level, math.degrees(math.atan(0.3 * level)), 10 * level
    affine = partial(F.affine, scale=1.0, interpolation=v2.InterpolationMode.BILINEAR, fill=[128.0] * 3)
    yield v2.Identity()
    yield F.autocontrast
    yield F.equalize
    yield partial(F.adjust_brightness, brightness_factor=factor)
    yield partial(F.adjust_sharpness, sharpness_factor=factor)
    for angles, shifts, slopes in (
        (angle, (0, 0), (0, 0)),
        (0, (shift, 0), (0, 0)),
        (0, (0, shift), (0, 0)),
        (0, (0, 0), (slope, 0)),
        (0, (0, 0), (0, slope)),
    ):
        yield v2.RandomChoice(
            [
                partial(
                    affine,
                    angle=sign * angles,
                    translate=[sign * round(one) for one in shifts],
                    shear=[sign * one for one in slopes],
                )
                for sign in (1, -1)
            ]
        )

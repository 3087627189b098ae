"""Captions that a captioning model writes from the filled image (paper, section 3.3: ClipCap)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from datamodules.errors import ConfigError
from synth.captions.base import CaptionRequest, CaptionStrategy
from synth.rules import Rule
from synth.weights import check_model, check_trained, content, pretrained

if TYPE_CHECKING:
    import torch

    from synth.fills import Pixels

_WANTED = (
    "a folder with the model, its image processor and its tokenizer, or the id of an image-to-text model on the "
    "Hugging Face hub"
)


class CaptioningModel(CaptionStrategy):
    """Describes the filled image with any image-to-text model of `transformers`: BLIP, GIT, an encoder-decoder, ...

    The model is loaded when it is first needed. Files that are here are used without a look at the network. Captions
    are decoded by beam search without sampling and stripped of white space; case and full stop are the model's. A model
    trained on COCO may name the removed object all the same: whoever calls the strategy drops such captions.

    The model must be content with an image alone; chat models, which want a text with a place for it, are not.

    Args:
        model: a folder that `save_pretrained` wrote (model, image processor and tokenizer), or an id on the Hugging
            Face hub, such as `Salesforce/blip-image-captioning-base`.
        num_beams: beams of the search; 1 is greedy.
        max_new_tokens: most tokens of a caption, without those of the prompt.
        prompt: words that every caption begins with.
        batch_size: images that the model sees at once; captions do not depend on it but for rounding.
        revision: branch, tag or commit of a model of the hub.
        dtype: number type of the model; "auto" is that of its file.

    Raises:
        MissingPathError: if `model` is a path, and nothing is there.
        ConfigError: if a number is below 1.
    """

    name: ClassVar[str] = "captioning_model"
    needs_image: ClassVar[bool] = True

    def __init__(
        self,
        model: str,
        num_beams: int = 5,
        max_new_tokens: int = 30,
        prompt: str | None = None,
        batch_size: int = 16,
        revision: str | None = None,
        dtype: Literal["auto", "float32", "float16", "bfloat16"] = "float32",
    ) -> None:
        for key, value in (("num_beams", num_beams), ("max_new_tokens", max_new_tokens), ("batch_size", batch_size)):
            if value < 1:
                raise ConfigError(f"`{key}` of CaptioningModel is {value}; give 1 or more.")
        check_model(model, "CaptioningModel")
        self.model = model
        self.num_beams = num_beams
        self.max_new_tokens = max_new_tokens
        self.prompt = prompt
        self.batch_size = batch_size
        self.revision = revision
        self.dtype = dtype
        self._device: torch.device | str = "cpu"
        self._loaded: _Captioner | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_loaded": None}

    def identity(self) -> dict[str, Any]:
        """Return the options that decide what is written, all but `batch_size`; of a folder, what its files hold."""
        options = {key: value for key, value in super().identity().items() if key != "batch_size"}
        return options | {"model": content(self.model)}

    def to(self, device: torch.device | str) -> None:
        """Move the model to a device."""
        self._device = device
        if self._loaded is not None:
            self._loaded.model.to(device)

    def write(self, requests: Sequence[CaptionRequest]) -> list[str | Rule]:
        """Return a caption for the image of each request, or `NO_WORDS` where the model says nothing.

        Raises:
            ValueError: if a request has no image.
            ConfigError: if the model cannot be loaded.
        """
        images = [request.image for request in requests if request.image is not None]
        if len(images) < len(requests):
            raise ValueError("CaptioningModel describes the filled image, but a request has none.")
        batches = (images[start : start + self.batch_size] for start in range(0, len(images), self.batch_size))
        captions = [caption for batch in batches for caption in self._describe(batch)]
        return [caption if any(map(str.isalnum, caption)) else Rule.NO_WORDS for caption in captions]

    def _describe(self, images: Sequence[Pixels]) -> list[str]:
        import torch
        from PIL import Image

        model, image_processor, tokenizer = self._load()
        pixels = image_processor(images=[Image.fromarray(image) for image in images], return_tensors="pt")
        prompt = tokenizer(self.prompt or "", add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            tokens = model.generate(
                pixel_values=pixels["pixel_values"].to(model.device, model.dtype),
                num_beams=self.num_beams,
                do_sample=False,
                max_new_tokens=self.max_new_tokens + len(prompt),
                logits_processor=[_Opening(prompt)],
            )
        return [text.strip() for text in tokenizer.batch_decode(tokens, skip_special_tokens=True)]

    def _load(self) -> _Captioner:
        if self._loaded is None:
            loaded = pretrained(self._parts, self.model, "CaptioningModel", _WANTED)
            loaded.model.eval().to(self._device)
            self._loaded = loaded
        return self._loaded

    def _parts(self, **where: Any) -> _Captioner:
        from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

        where["revision"] = self.revision
        processors = (part.from_pretrained(self.model, **where) for part in (AutoImageProcessor, AutoTokenizer))
        model = AutoModelForImageTextToText.from_pretrained(self.model, dtype=self.dtype, **where)
        loaded = _Captioner(model, *processors)
        check_trained(model, self.model, "CaptioningModel", "write captions")
        _check_tokenizer(self.model, loaded.tokenizer)
        return loaded


class _Captioner(NamedTuple):
    model: Any
    image_processor: Any
    tokenizer: Any


class _Opening:
    """Makes every caption begin with given tokens: models differ in how they take a prompt, but not in this."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = tokens
        self._start: int | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return `[B, V]` scores that allow the next token of the opening alone, as long as there is one."""
        if self._start is None:
            self._start = input_ids.shape[1]
        step = input_ids.shape[1] - self._start
        if step >= len(self._tokens):
            return scores
        opening = scores.new_full(scores.shape, float("-inf"))
        opening[:, self._tokens[step]] = 0.0  # a log-probability: what is given counts nothing in a beam's score
        return opening


def _check_tokenizer(name: str, tokenizer: Any) -> None:
    """Refuse an empty tokenizer, which loads without a word and then says nothing."""
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ConfigError(
            f"`model` {name} of CaptioningModel cannot be loaded (its tokenizer has no words); add the files of the "
            f"tokenizer."
        )

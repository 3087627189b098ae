"""VSE++: features of a CNN and the last state of a GRU in one space, trained on the hardest negatives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from datamodules.batch import RetrievalBatch, Tokens
from datamodules.errors import ConfigError
from lightning_modules.arguments import check_range
from lightning_modules.base import RetrievalModule
from lightning_modules.caption_gru import CaptionGRU, unit_rows
from lightning_modules.checkpoints import check_weights, checkpoint_class, read_checkpoint
from lightning_modules.feature_files import FeatureProcessor
from lightning_modules.losses import CounterfactualMarginLoss, TripletLoss
from lightning_modules.losses.triplet import Hinges, Reduction
from lightning_modules.processor import Processor
from lightning_modules.timm_tower import build_timm, feature_width, full_name, image_transforms, preprocessing
from lightning_modules.words import Vocabulary, count_words, read_words

_CNN = "cnn.*"


class VSEPP(RetrievalModule):
    """VSE++ (Faghri et al. 2018, "VSE++: Improving Visual-Semantic Embeddings with Hard Negatives", section 3).

    An image is the features of a CNN of timm, scaled to unit norm, mapped linearly and scaled again; a caption is the
    state of a GRU at its last word, scaled. The defaults are those of Kim et al. 2023, section 4.1: VGG19, a Bi-GRU,
    Adam with learning rate 1e-4, halved every 2 epochs.

    The CNN may be left out: with `feature_size`, the data module hands features that were computed once, by the script
    that stands at `lightning_modules.feature_files.write_features`. There is no augmentation then.

    Args:
        image_model: a timm model; of VGG19, the features are those of fc7 behind its ReLU.
        image_weights: a tag of timm's ("tv_in1k"), the path of a file (`.safetensors`, `.pth`; torchvision's fit as
            well), or None for random weights.
        image_size: side of the images in pixels; None: the model's own.
        image_options: further arguments of the timm model.
        image_preprocess: overrides of the preprocessing (`{mean, std, interpolation, crop_pct, ...}`).
        image_dropout: share of the features that are dropped in training, also where the CNN rests; VGG19's own is 0.5.
        finetune: whether the CNN is trained as well; None: only where it starts from random weights.
        feature_size: length of the features that `data.init_args.features` holds in place of images; None: images.
        pretrained: path of the checkpoint of a run that words and weights are taken from, to be trained on anew (with
            `--ckpt_path` the run itself goes on); the other arguments have to build the same model.
        crop_scale: area range of the random crop in training.
        flip: whether half of the training images are mirrored; not for captions that tell left from right.
        vocabulary: the words that the model knows, the path of a file with one a line, or None for the words of the
            original training captions of the data module. A checkpoint holds the words.
        min_count: words that occur more seldom in the training captions are unknown.
        max_words: words of a caption that are looked at.
        word_dim: size of the word embeddings.
        embed_dim: size of the embeddings of images and captions.
        bidirectional: whether the GRU reads captions from both sides.
        margin: of the triplet loss, in units of cosine.
        hinges: whether the loss counts the hardest negatives ("max") or the "sum" over all.
        reduction: "sum" over the pairs of a batch, as published, or "mean".
        mask_same_image: leave out negatives of the same image.
        warmup_epochs: epochs, or a fraction, in which the loss sums over all negatives, whatever `hinges` says.
        counterfactual_weight: weight of a margin between a synthetic pair and its source, where a batch holds both
            (`data.init_args.pair_with_source`); it is a mean over such couples of pairs. 0: the triplet loss alone.
        counterfactual_margin: that margin, in units of cosine.
        freeze: shell patterns of the names of parameters that are not trained, besides those of the CNN.
        lr: learning rate.
        lr_halving_epochs: the learning rate is halved after every so many epochs; None: constant.
        **options: further arguments of `RetrievalModule`.

    Raises:
        ConfigError: timm has no such model or weights, the vocabulary is empty, or a number is out of its range.
        MissingPathError: the file of the vocabulary is not there.
    """

    captions: CaptionGRU

    def __init__(
        self,
        image_model: str = "vgg19",
        image_weights: str | None = "tv_in1k",
        image_size: int | None = None,
        image_options: dict[str, Any] | None = None,
        image_preprocess: dict[str, Any] | None = None,
        image_dropout: float = 0.5,
        finetune: bool | None = None,
        feature_size: int | None = None,
        pretrained: str | None = None,
        crop_scale: tuple[float, float] = (0.08, 1.0),
        flip: bool = True,
        vocabulary: str | list[str] | None = None,
        min_count: int = 4,
        max_words: int = 100,
        word_dim: int = 300,
        embed_dim: int = 1024,
        bidirectional: bool = True,
        margin: float = 0.2,
        hinges: Hinges = "max",
        reduction: Reduction = "sum",
        mask_same_image: bool = False,
        warmup_epochs: float = 0,
        counterfactual_weight: float = 0.0,
        counterfactual_margin: float = 0.2,
        freeze: Sequence[str] = (),
        lr: float = 1e-4,
        lr_halving_epochs: float | None = 2,
        **options: Any,
    ) -> None:
        finetuned = finetune if finetune is not None else image_weights is None and pretrained is None
        rests = () if finetuned or feature_size is not None else (_CNN,)
        super().__init__(freeze=(*freeze, *rests), lr=lr, lr_halving_epochs=lr_halving_epochs, **options)
        self.save_hyperparameters(logger=False)
        self.hparams.update(pretrained=None, image_weights=None, finetune=finetuned)
        check_range(0, 1, image_dropout=image_dropout)
        check_range(0, warmup_epochs=warmup_epochs, counterfactual_weight=counterfactual_weight)
        check_range(1, min_count=min_count, max_words=max_words, word_dim=word_dim, embed_dim=embed_dim)
        self.feature_size, self.min_count, self.max_words = feature_size, min_count, max_words
        if feature_size is None:
            self.cnn = build_timm(image_model, image_weights if pretrained is None else None, image_size, image_options)
            wanted = preprocessing(self.cnn, image_size, image_preprocess)
            self.hparams.update(image_model=full_name(self.cnn), image_preprocess=wanted)
            self._transforms = image_transforms(wanted, crop_scale, flip)
            width = feature_width(self.cnn, wanted["input_size"])
        else:
            check_range(1, feature_size=feature_size)
            self.cnn, width = nn.Identity(), feature_size
        self.dropout, self.projection = nn.Dropout(image_dropout), _projection(width, embed_dim)
        self._build_captions = partial(CaptionGRU, word_dim=word_dim, embed_dim=embed_dim, bidirectional=bidirectional)
        self.loss = TripletLoss(margin, hinges, reduction, mask_same_image)
        self.hinges, self.warmup_epochs, self.warmup_steps = self.loss.hinges, warmup_epochs, 0.0
        self.counterfactual_loss = CounterfactualMarginLoss(counterfactual_margin)
        self.counterfactual_weight = counterfactual_weight
        if vocabulary is not None:
            self._know(read_words(vocabulary) if isinstance(vocabulary, str) else vocabulary)
        if pretrained is not None:
            self._start_from(pretrained)

    def configure_model(self) -> None:
        """Learn the words of the training captions, where no vocabulary was given, and freeze what rests.

        Raises:
            ConfigError: no vocabulary was given and there is no data module with training captions.
        """
        if not hasattr(self, "captions"):
            self._know(count_words(self._training_captions(), self.min_count))
        super().configure_model()

    def image_features(self, pixel_values: Tensor) -> Tensor:
        """Map images `[B, 3, H, W]` to the unit rows `[B, F]` that are projected."""
        return unit_rows(self.dropout(self.cnn(pixel_values)))

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """Map images `[B, 3, H, W]`, or features `[B, F]` where such are taken, to unit rows `[B, D]`."""
        return unit_rows(self.projection(self.image_features(pixel_values)))

    def encode_texts(self, tokens: Tokens) -> Tensor:
        """Map token ids `[B, L]` int64 to unit rows `[B, D]`.

        Raises:
            TypeError: the tokens are not one tensor, so another backbone's.
        """
        if not isinstance(tokens, Tensor):
            raise TypeError("The tokens of VSEPP are one tensor.")
        return unit_rows(self.captions(tokens))

    def training_loss(self, batch: RetrievalBatch) -> Tensor:
        """Return the triplet loss of a batch of pairs, over all ranks, and the weighted counterfactual margin."""
        images, texts = self.embed_pairs(batch)
        self.loss.hinges = "sum" if self.global_step < self.warmup_steps else self.hinges
        loss: Tensor = self.loss(images, texts, batch.image_ids)
        if self.counterfactual_weight:
            ids = batch.caption_ids, batch.source_caption_ids, batch.synthetic
            margins = self.counterfactual_loss(images, texts, *ids)
            self.log("train/counterfactual_loss", margins.detach())
            loss = loss + self.counterfactual_weight * margins
        return loss

    def on_train_start(self) -> None:
        """Note for how many steps the loss sums over all negatives."""
        super().on_train_start()
        self.warmup_steps = self.warmup_epochs * self._steps_per_epoch() if self.warmup_epochs else 0.0
        if self.hinges == "max" and 0 < self.trainer.estimated_stepping_batches <= self.warmup_steps:
            rank_zero_warn(
                f"`model.init_args.warmup_epochs` is {self.warmup_epochs}, as long as the training or longer: the "
                '`hinges: "max"` of the hardest negatives never come; lower it, or raise `trainer.max_epochs`.'
            )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that a checkpoint fits this model, and that its words are those of this model.

        Raises:
            ConfigError: they are others.
        """
        super().on_load_checkpoint(checkpoint)
        if checkpoint["hyper_parameters"].get("vocabulary") != self.hparams["vocabulary"]:
            raise ConfigError(
                "The checkpoint was trained on another vocabulary of the same size, so its word embeddings mean other "
                "words: build the model with `RetrievalModule.load_from_checkpoint`, which takes its vocabulary, too."
            )

    def _start_from(self, path: str) -> None:
        """Take the words and the weights that a checkpoint of this class holds."""
        key = "model.init_args.pretrained"
        checkpoint_class(path, VSEPP, key)
        start = read_checkpoint(path, key)
        if hasattr(self, "captions"):
            raise ConfigError(f"`{key}` is {path}, which has a vocabulary of its own; give `vocabulary: null`.")
        self._know(start["hyper_parameters"]["vocabulary"])
        check_weights(self, start["state_dict"])
        self.load_state_dict(start["state_dict"])

    def _know(self, words: Sequence[str]) -> None:
        """Build what depends on the words: the text tower and the processor."""
        vocabulary = Vocabulary(tuple(words), self.max_words)
        self.captions = self._build_captions(len(vocabulary))
        self.processor = (
            Processor(*self._transforms, vocabulary.tokenize)
            if self.feature_size is None
            else FeatureProcessor.of(vocabulary.tokenize, self.feature_size)
        )
        self.hparams["vocabulary"] = list(words)

    def _training_captions(self) -> Iterable[str]:
        data: Any = getattr(self.trainer, "datamodule", None)
        if not hasattr(data, "training_captions"):
            raise ConfigError(
                "`model.init_args.vocabulary` is null, which stands for the words of a data module's "
                "`training_captions()`, but this run has none: give a list of words, or a file with one a line."
            )
        captions: Iterable[str] = data.training_captions()
        return captions


def _projection(features: int, embed_dim: int) -> nn.Linear:
    """Return a linear map with Glorot's uniform weights, as in the authors' code."""
    projection = nn.Linear(features, embed_dim)
    nn.init.xavier_uniform_(projection.weight)
    nn.init.zeros_(projection.bias)
    return projection

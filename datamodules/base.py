"""The datamodule that every data set shares: tables in, batches of pairs, images, queries and captions out."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray

from datamodules.arguments import check_counts
from datamodules.datasets import Captions, OriginalImages, QueryImages, RetrievalDataset
from datamodules.errors import AnnotationError
from datamodules.features import FeatureReader
from datamodules.images import ImageReader, Reader, open_rgb
from datamodules.loaders import RetrievalLoader, evaluation_loaders, folds, gallery, rows_of_splits
from datamodules.matched import MatchedCaptions
from datamodules.phrases.protocol import PhraseMatcher
from datamodules.positives import Positives, read_all_positives
from datamodules.processor import Processor, find_processor
from datamodules.sampling import MixingMode
from datamodules.sources import rows_of
from datamodules.synthetic_set import SyntheticSet, check_finished, check_origin, has_split, is_finished
from datamodules.tables import Tables
from datamodules.training import TrainingDataModule

if TYPE_CHECKING:
    from PIL import Image


class RetrievalDataModule(MatchedCaptions, TrainingDataModule):
    """Original pairs mixed with synthetic ones for training; images, queries and captions for evaluation.

    A subclass says where its data lies: it implements `read` and sets `image_root`.

    Args:
        matcher: finds the classes that captions name; None for COCO's 80 classes.
        synthetic: folder of the synthetic set; None to train on original pairs and evaluate without queries.
        ratio: |D'sub| / |D|, synthetic pairs in training per original pair; None for all there are, 0 for none.
        mixing: "concat" shuffles the union of both kinds of pairs, "per_batch" fixes their shares in every batch.
        synthetic_per_batch: synthetic pairs per batch with mixing per_batch; None for their share of all pairs.
        pair_with_source: whether a synthetic pair lies in the same batch as its source pair.
        control: train on the original pairs alone, for as many batches an epoch as the keys above give with the
            synthetic ones: what a run on both is to be compared with, for the same steps, schedules and validations.
        trained_ratio: train on the synthetic pairs of this ratio, for as many batches an epoch as `ratio` gives: runs
            that differ in it alone have the same steps, schedules, validations and control; None for `ratio` itself.
        train_splits: splits whose pairs are trained on.
        val_split: split that is validated on.
        test_split: split that is tested on.
        batch_size: training pairs per batch on one process.
        eval_batch_size: images or captions per batch in evaluation.
        num_workers: loader processes; 0 loads in the process itself.
        val_gallery: captions that a validation query retrieves from, of the split or of all splits; testing always
            takes all splits, as the paper does.
        eval_fold_size: images per fold in evaluation, in the order of the annotation file, 1000 for COCO's 1K protocol;
            None for no folds.
        eval_captions: captions per image that recall is measured on, the first ones, 5 for COCO; None for all.
        positives: for each name, the common beginning of two files with extended positives of the data set, such as
            `{eccv: data/eccv-caption/eccv}`; see `datamodules.positives.read_positives`.
        seed: draws the subset, the order and the augmentation.
        max_unreadable: how many images may be unreadable before the run stops.
        cache_dir: folder for parsed annotations and mentions; None as `datamodules.cache.cache_root` says.
        processor: preprocessing of the backbone; None takes it from the LightningModule of the trainer.
        features: for a backbone that takes features in place of images, the common beginnings of two files each, of the
            originals and of the synthetic set; see `datamodules.features.FeatureReader`.

    Attributes:
        image_root: folder of the original images, set by the subclass.
        synthesise: makes the synthetic set where it is missing, set by the program that can; None where there is none.
    """

    image_root: Path

    def __init__(
        self,
        matcher: PhraseMatcher | None = None,
        synthetic: str | os.PathLike[str] | None = None,
        ratio: float | None = None,
        mixing: MixingMode = "concat",
        synthetic_per_batch: int | None = None,
        pair_with_source: bool = False,
        control: bool = False,
        trained_ratio: float | None = None,
        train_splits: Sequence[str] = ("train", "restval"),
        val_split: str = "val",
        test_split: str = "test",
        batch_size: int = 256,
        eval_batch_size: int = 256,
        num_workers: int = min(4, os.cpu_count() or 1),
        val_gallery: Literal["split", "all"] = "split",
        eval_fold_size: int | None = None,
        eval_captions: int | None = None,
        positives: dict[str, str | os.PathLike[str]] | None = None,
        seed: int = 0,
        max_unreadable: int = 10,
        cache_dir: str | os.PathLike[str] | None = None,
        processor: Processor | None = None,
        features: Sequence[str | os.PathLike[str]] = (),
    ) -> None:
        super().__init__()
        check_counts(eval_batch_size, num_workers, seed, eval_fold_size, eval_captions)
        self.allow_zero_length_dataloader_with_multiple_devices = True  # a small split need not reach every process
        self._matcher, self._processor = matcher, processor
        self.synthetic_root = None if synthetic is None else Path(synthetic)
        self.ratio, self.mixing, self.synthetic_per_batch = ratio, mixing, synthetic_per_batch
        self.pair_with_source, self.control, self.trained_ratio = pair_with_source, control, trained_ratio
        self.train_splits, self.val_split, self.test_split = tuple(train_splits), val_split, test_split
        self.batch_size, self.eval_batch_size, self.num_workers = batch_size, eval_batch_size, num_workers
        self.val_gallery, self.seed, self.max_unreadable = val_gallery, seed, max_unreadable
        self.eval_fold_size, self.eval_captions = eval_fold_size, eval_captions
        self._positives = {name: Path(stem) for name, stem in (positives or {}).items()}
        self.cache_dir = None if cache_dir is None else Path(cache_dir)
        self.features = tuple(Path(stem) for stem in features)
        self.synthesise: Callable[[], None] | None = None

    @abstractmethod
    def read(self) -> Tables:
        """Return the tables of the data set, parsed once and cached in `cache_dir`."""

    @property
    def matcher(self) -> PhraseMatcher:
        """Finds the classes that captions name, and names the classes of the tables."""
        if self._matcher is None:
            from datamodules.phrases import CocoMatcher

            self._matcher = CocoMatcher()
        return self._matcher

    @property
    def processor(self) -> Processor:
        """Preprocessing of the backbone.

        Raises:
            ConfigError: there is none, or it takes something else than the data has.
        """
        return find_processor(self._processor, self.trainer, getattr(self.reader, "feature_size", None))

    @cached_property
    def tables(self) -> Tables:
        """The original data set as columns."""
        return self.read()

    @cached_property
    def positives(self) -> dict[str, Positives]:
        """Extended positives by their name in the config."""
        return read_all_positives(self._positives, self.tables)

    @cached_property
    def reader(self) -> Reader:
        """Reads images and counts those that cannot be read, over all loaders; or reads `features` in their place."""
        return FeatureReader(self.features) if self.features else ImageReader(self.max_unreadable)

    def image_path(self, row: int) -> Path:
        """Return the file of an image row."""
        return self.image_root / self.tables.files[row]

    def read_image(self, row: int) -> Image.Image:
        """Return the image of an image row in RGB.

        Raises:
            UnreadableImageError: the file cannot be read.
        """
        return open_rgb(self.image_path(row))

    def texts_of(self, caption_ids: NDArray[np.int64]) -> list[str]:
        """Return captions of the data set by their ids, `[N]`.

        Raises:
            KeyError: there is no such caption.
        """
        return self.tables.texts.take(_found(self.tables.caption_ids, caption_ids))

    def files_of(self, image_ids: NDArray[np.int64]) -> list[Path]:
        """Return the files of images by their ids, `[N]`: of originals, and of queries of both evaluated splits.

        Raises:
            KeyError: there is no such image.
        """
        made = self._synthetic(self.val_split, self.test_split)
        if made is None:
            return [self.image_path(row) for row in _found(self.tables.image_ids, image_ids)]
        originals = len(self.tables)
        rows = _found(np.append(self.tables.image_ids, made.image_ids), image_ids)
        return [self.image_path(row) if row < originals else made.path(row - originals) for row in rows]

    def prepare_data(self) -> None:
        """Parse and cache what is not cached yet, and have the synthetic set made where it can be.

        Raises:
            AnnotationError: the annotations hold no image, or positives are of another layout.
            MissingPathError: positives are missing, or the synthetic set is and there is nobody to make it.
            ConfigError: the synthetic set is unfinished, or it or positives were made from other annotations.
        """
        if not len(self.tables):
            raise AnnotationError(f"The annotations of {self.image_root} hold no image: check the files that are set.")
        _ = self.positives  # a mistake shall not wait until the test
        if self.synthetic_root is None:
            return
        if self.synthesise is not None and not is_finished(self.synthetic_root):
            self.synthesise()
        check_finished(self.synthetic_root)
        check_origin(self.synthetic_root, self.tables.fingerprint)
        self.mentions()

    def setup(self, stage: str | None = None) -> None:
        """Open what `prepare_data` cached, in every process."""
        if self.synthetic_root is not None:
            check_finished(self.synthetic_root)

    def _synthetic(self, *splits: str) -> SyntheticSet | None:
        if self.synthetic_root is None:
            return None
        return SyntheticSet.read(self.synthetic_root, splits, self.tables.class_names, self.tables.image_ids)

    def _evaluation(self, key: str, split: str, all_captions: bool) -> list[RetrievalLoader]:
        """Return loaders of original images, of queries where there are any, and of captions."""
        images = rows_of_splits(self.tables, key, split)
        queries = self._queries(split)
        numbers = folds(len(images), self.eval_fold_size)
        source = self.tables, self.image_root, images, self.processor, self.reader, numbers
        parts: list[RetrievalDataset] = [OriginalImages(*source)]
        if queries is not None:
            parts.append(QueryImages(queries, self.processor, self.reader))
        captions, in_split = gallery(self.tables, split, all_captions and queries is not None, self.eval_captions)
        mentions = None if queries is None else self.mentions()
        parts.append(Captions(self.tables, captions, in_split, mentions, self.processor))
        return evaluation_loaders(parts, self.trainer, self.num_workers, self.seed, self.eval_batch_size)

    def _queries(self, split: str) -> SyntheticSet | None:
        root = self.synthetic_root
        if root is not None and not has_split(root, split):
            rank_zero_warn(f"Synthetic set {root} (key `synthetic`) has no split {split}: no ODmAP is measured there.")
            return None
        return self._synthetic(split)

    def val_dataloader(self) -> list[RetrievalLoader]:
        """Return loaders of the validation split: images, queries where the synthetic set has them, captions."""
        return self._evaluation("val_split", self.val_split, self.val_gallery == "all")

    def test_dataloader(self) -> list[RetrievalLoader]:
        """Return loaders of the test split: images, queries where the synthetic set has them, captions."""
        return self._evaluation("test_split", self.test_split, all_captions=True)

    def predict_dataloader(self) -> list[RetrievalLoader]:
        """Return the loaders of `test_dataloader` without the queries."""
        loaders = self.test_dataloader()
        return [loaders[0], loaders[-1]]


def _found(ids: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    rows = rows_of(ids, wanted)
    if (rows < 0).any():
        raise KeyError(f"The data set has no id {wanted[rows < 0][0]}.")
    return rows

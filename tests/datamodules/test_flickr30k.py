"""Flickr30k by annotation: equal to COCO's path on the same pictures, and on what only annotation can tell."""

import json

import numpy as np
import pytest
import torch

import synth
from datamodules import CocoDataModule, Flickr30kDataModule
from datamodules.errors import ConfigError
from datamodules.phrases import CocoMatcher
from synth import SynthesisConfig
from synth.captions import NounPhraseRemoval, PromptCaptions
from synth.cooccurrence import measure
from synth.fills import MeanFill
from synth.rules import Rule

SPLITS = {"pairs": {"train": ["train"], "more": ["val"]}, "queries": {"test": ["test"]}}


class Processor:
    """Pixels as they are, and the length of each caption."""

    def train_image(self, image, seed=None):
        return self.eval_image(image)

    def eval_image(self, image):
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()

    def tokenize(self, captions):
        return torch.tensor([[len(text), sum(map(ord, text))] for text in captions]).reshape(-1, 2)


@pytest.fixture(scope="module")
def both(two_layouts, tmp_path_factory):
    """The same data set by COCO's path and by Flickr30k's."""
    options = {"processor": Processor(), "num_workers": 0, "batch_size": 16, "cache_dir": tmp_path_factory.mktemp("c")}
    modules = [CocoDataModule(**two_layouts.coco, **options), Flickr30kDataModule(**two_layouts.flickr, **options)]
    for module in modules:
        module.prepare_data()
    return modules


@pytest.fixture(scope="module")
def made(both, tmp_path_factory):
    """The synthetic set of each, captions of all that can give a pair."""
    folder = tmp_path_factory.mktemp("made")
    options = {"fill": MeanFill(), "captions_per_image": "all", "queries_per_image": "all", **SPLITS}
    configs = [SynthesisConfig(data=data, output=folder / str(n), **options) for n, data in enumerate(both)]
    return configs, [synth.run(config, alone=True) for config in configs]


def lines(config, split):
    return [json.loads(line) for line in (config.output / split / "metadata.jsonl").read_text().splitlines()]


def test_tables_are_those_of_coco(both):
    coco, flickr = (module.tables for module in both)
    assert flickr.class_names == coco.class_names == ("people", "animals", "vehicles", "instruments")
    assert flickr.splits == coco.splits
    assert list(flickr.texts) == list(coco.texts)
    numbers = ["image_ids", "split_codes", "widths", "heights", "caption_ids", "caption_images", "object_images"]
    for name in [*numbers, "categories", "boxes", "crowds"]:
        assert np.array_equal(getattr(flickr, name), getattr(coco, name)), name
    assert len(np.unique(coco.categories)) == 4
    assert len(coco.boxes) > 100


def test_captions_name_what_the_words_say(both):
    coco, flickr = both
    rows = np.arange(len(coco.tables.texts))[::-1]
    assert flickr.phrases(rows) == coco.phrases(rows)
    assert flickr.mentions().dtype == bool
    assert np.array_equal(flickr.mentions(), coco.mentions())
    assert set(coco.mentions().sum(1)) >= {0, 1, 2, 3}


def test_removals_captions_and_queries_are_those_of_coco(made):
    configs, summaries = made
    for split in ("train", "more", "test"):
        rows = [lines(config, split) for config in configs]
        assert rows[0] == rows[1]
        assert len(rows[0]) > 8
    counts = [json.loads((config.output / "protocol.json").read_text())["counts"] for config in configs]
    assert counts[0] == counts[1]
    assert [summary.splits["train"].dropped[Rule.STILL_NAMED] for summary in summaries] == [0, 0]
    images = [{path.name: path.read_bytes() for path in (config.output / "train").glob("*.png")} for config in configs]
    assert images[0] == images[1]


def test_loaders_give_what_those_of_coco_give(both, made):
    batches = []
    for module, config in zip(both, made[0], strict=True):
        module.synthetic_root, module.pair_with_source = config.output, True
        module.prepare_data()
        loaders = [module.train_dataloader(), *module.test_dataloader()]
        batches.append([[vars(batch) for batch in loader] for loader in loaders])
    assert_same(*batches)
    gallery = torch.cat([batch["mentions"] for batch in batches[1][-1]])
    assert gallery.shape == (len(both[0].tables.texts), 4)
    queries = torch.cat([batch["removed"] for batch in batches[1][2]])
    assert len(queries) >= 10


def assert_same(one, other):
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict | list):
        assert len(one) == len(other)
        for key in one if isinstance(one, dict) else range(len(one)):
            assert_same(one[key], other[key])
    else:
        assert one == other


def test_cooccurrence_counts_are_those_of_coco(made):
    coco, flickr = map(measure, made[0])
    for what in ("images", "captions"):
        for when in ("before", "after"):
            found, wanted = (getattr(change[what], when) for change in (flickr, coco))
            assert found.total == wanted.total
            assert np.array_equal(found.together, wanted.together)


def test_prompts_are_read_by_the_words_of_the_annotation(both, tmp_path):
    caption = PromptCaptions(["a photo of a {}.", "two photos of one {}.", "The {} in a photo"])
    config = SynthesisConfig(both[1], tmp_path / "out", {"train": ["train"]}, fill=MeanFill(), caption=caption)
    counts = synth.run(config, alone=True).splits["train"]
    written = lines(config, "train")
    assert counts.dropped[Rule.STILL_NAMED] == counts.dropped[Rule.NO_KEPT_WORD] == 0
    assert len(written) == counts.kept > 10
    for row in written:
        assert {name for name in both[1].classes if name in row["text"]} == set(row["kept"])
    originals = both[1].mentions()[both[1].tables.captions_of(both[1].tables.rows("train"))]
    added = [sum(name in row["kept"] for row in written) for name in both[1].classes]
    known = set((both[1].cache_dir / "mentions").glob("*.npy"))
    assert (measure(config)["captions"].after.counts == originals.sum(0) + added).all()
    assert len(set((both[1].cache_dir / "mentions").glob("*.npy")) - known) == 1  # read once, then cached


class Careless(NounPhraseRemoval):
    """Forgets to remove anything."""

    def write(self, requests):
        return [request.text for request in requests]


def test_an_edit_that_removes_nothing_is_noticed(both, tmp_path):
    config = SynthesisConfig(both[1], tmp_path / "out", **SPLITS, fill=MeanFill(), caption=Careless())
    with pytest.raises(ConfigError, match="edit still names a removed class"):
        synth.run(config, alone=True)


def test_the_same_words_may_be_annotated_in_two_ways(record):
    record.sentences = ["[/EN#1/people A pair] runs", "[/EN#2/animals A pair] runs", "[/EN#3/other A pair] runs"]
    record.chains = [1, 2, 3]
    module = Flickr30kDataModule(**record.write())
    assert list(module.tables.texts) == ["A pair runs"] * 3
    assert module.mentions().tolist() == [[True, False, False, False], [False, True, False, False], [False] * 4]
    edits = module.named(["A pair", "A pair", "A pair runs"], np.array([1, 2, -1]))
    assert edits.tolist() == [[False, True, False, False], [False] * 4, [False] * 4]


@pytest.mark.parametrize("classes", [[], ["people", "people"], ["people", "houses"]])
def test_classes_must_be_types(two_layouts, classes):
    with pytest.raises(ConfigError, match=r"`classes` is .* give some of people, clothing"):
        Flickr30kDataModule(**two_layouts.flickr, classes=classes)


def test_a_matcher_must_know_the_same_classes(two_layouts):
    with pytest.raises(ConfigError, match="`matcher` knows the classes person"):
        Flickr30kDataModule(**two_layouts.flickr, matcher=CocoMatcher())
    assert Flickr30kDataModule(**two_layouts.flickr, matcher=two_layouts.matcher).matcher is two_layouts.matcher


def test_any_of_the_types_can_be_classes(two_layouts, both, tmp_path):
    some = Flickr30kDataModule(**two_layouts.flickr, classes=["vehicles", "clothing"], cache_dir=tmp_path)
    assert some.tables.class_names == ("vehicles", "clothing")
    assert np.array_equal(some.mentions()[:, 0], both[1].mentions()[:, 2])
    assert some.mentions()[:, 1].any()
    assert (some.tables.categories == 0).sum() == (both[1].tables.categories == 2).sum()

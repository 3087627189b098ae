"""The datamodule by itself, in a trainer, and across a restart in the middle of an epoch."""

import json
import pickle
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

import datamodules
from datamodules.base import RetrievalDataModule
from datamodules.errors import AnnotationError, ConfigError, MissingPathError, UnreadableImageError
from datamodules.tables import Tables

pytestmark = pytest.mark.filterwarnings("ignore")


class Probe(LightningModule):
    """Remembers the captions it was shown, and fits one weight to pictures."""

    def __init__(self, processor):
        super().__init__()
        self.processor, self.seen = processor, []
        self.weight = torch.nn.Parameter(torch.linspace(-1, 1, 48))

    def training_step(self, batch, batch_idx):
        self.seen.append(batch.caption_ids.tolist())
        return (batch.pixel_values.flatten(1) / 255 @ self.weight).pow(2).mean()

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        if dataloader_idx == 0:
            self.log("score", float(len(self.seen)), batch_size=len(batch), add_dataloader_idx=False)

    def predict_step(self, batch, batch_idx, dataloader_idx=0):
        return batch.image_ids

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


def trainer(folder, **options):
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    defaults = {"accelerator": "cpu", "devices": 1, "num_sanity_val_steps": 0, "default_root_dir": folder}
    return Trainer(**(quiet | defaults | {"enable_checkpointing": "callbacks" in options} | options))


def on_rank(datamodule, rank, world_size, use_distributed_sampler=False):
    """Give the datamodule a stand-in for the trainer of one of several processes."""
    connector = SimpleNamespace(use_distributed_sampler=use_distributed_sampler)
    place = {"global_rank": rank, "world_size": world_size, "current_epoch": 0}
    datamodule.trainer = SimpleNamespace(**place, _accelerator_connector=connector)
    return datamodule


def ids(loader, field="image_ids"):
    return [number for batch in loader for number in getattr(batch, field).tolist()]


def test_validation_loads_images_queries_and_captions_of_the_split(world):
    images, queries, captions = world.datamodule().val_dataloader()
    assert ids(images) == [108, 109]
    assert ids(queries) == [2**40 + 256 * 108, 2**40 + 256 * 109]
    assert ids(captions, "caption_ids") == [1016, 1017, 1018, 1019]
    (batch,) = captions
    assert batch.mentions.tolist() == [[True, False, False], [False, True, False]] * 2


def test_testing_retrieves_from_the_captions_of_all_splits(world):
    for loaders in (world.datamodule().test_dataloader(), world.datamodule(val_gallery="all").val_dataloader()):
        batches = list(loaders[2])
        assert sum(len(batch) for batch in batches) == 24
        assert sum(int(batch.in_split.sum()) for batch in batches) == 4


def test_folds_follow_the_order_of_the_split(world):
    images, queries, _ = world.datamodule(eval_fold_size=1).test_dataloader()
    assert (ids(images), ids(images, "folds")) == ([110, 111], [0, 1])
    assert next(iter(queries)).folds is None
    assert next(iter(world.datamodule().test_dataloader()[0])).folds is None


def test_positives_are_read_once_and_checked_before_the_run(world):
    for side, matches in (("image_to_caption", {"110": [1020, 1003]}), ("caption_to_image", {"1020": [110, 101]})):
        (world.folder / f"more_{side}.json").write_text(json.dumps(matches))
    datamodule = world.datamodule(positives={"more": str(world.folder / "more")})
    datamodule.prepare_data()
    assert datamodule.positives["more"].t2i == {1020: [110, 101]}
    assert datamodule.positives is datamodule.positives
    assert world.datamodule().positives == {}
    with pytest.raises(MissingPathError, match=r"`positives\.few`"):
        world.datamodule(positives={"few": world.folder / "few"}).prepare_data()


def test_without_a_synthetic_set_nobody_asks_for_mentions(world):
    world.matcher.mentions = None
    images, captions = world.datamodule(synthetic=None).test_dataloader()
    assert ids(images) == [110, 111]
    assert ids(captions, "caption_ids") == [1020, 1021, 1022, 1023]
    assert next(iter(captions)).mentions is None


def test_a_split_without_queries_is_evaluated_without(world):
    (world.synthetic / "val" / "metadata.jsonl").unlink()
    with pytest.warns(UserWarning, match=r"no split val: no ODmAP"):
        assert len(world.datamodule().val_dataloader()) == 2
    assert len(world.datamodule().test_dataloader()) == 3


def test_training_takes_all_originals_and_the_subset(world):
    for ratio, synthetic in ((None, 4), (0.0, 0), (0.125, 2), (0.25, 4)):
        datamodule = world.datamodule(ratio=ratio, batch_size=2)
        flags = [flag for batch in datamodule.train_dataloader() for flag in batch.synthetic.tolist()]
        assert (len(flags), sum(flags)) == (16 + synthetic, synthetic)


def test_pairs_with_their_sources(world):
    for batch in world.datamodule(pair_with_source=True, mixing="per_batch", batch_size=6).train_dataloader():
        synthetic = batch.source_ids[batch.synthetic]
        assert len(synthetic) == 1
        assert synthetic[0] in batch.image_ids[~batch.synthetic]


def test_a_control_trains_on_originals_alone_in_as_many_batches(world):
    for options in ({}, {"mixing": "per_batch", "batch_size": 6}, {"pair_with_source": True}, {"ratio": 0.125}):
        both = list(world.datamodule(**options).train_dataloader())
        alone = list(world.datamodule(**options, control=True).train_dataloader())
        assert [len(batch) for batch in alone] == [len(batch) for batch in both]
        assert any(batch.synthetic.any() for batch in both)
        assert not any(batch.synthetic.any() for batch in alone)


def test_a_ratio_is_trained_on_for_as_many_batches_as_another_gives(world):
    for options in ({}, {"mixing": "per_batch", "batch_size": 6}, {"pair_with_source": True}):
        whole = list(world.datamodule(**options, ratio=0.25).train_dataloader())
        for trained in (0.0625, 0.25):
            batches = list(world.datamodule(**options, ratio=0.25, trained_ratio=trained).train_dataloader())
            assert [len(batch) for batch in batches] == [len(batch) for batch in whole]
            made = {number for batch in batches for number in batch.image_ids[batch.synthetic].tolist()}
            assert 1 <= len(made) <= 16 * trained
    batches = list(world.datamodule(batch_size=2, ratio=0.125, trained_ratio=0.25).train_dataloader())
    assert len(batches) == 9  # of the ten that all pairs fill


def test_ratios_that_cannot_be_trained_on_are_told(world):
    with pytest.raises(ConfigError, match=r"^trained_ratio is 0\.3: .* allow 0 to 0\.25 \(key `trained_ratio`\)"):
        world.datamodule(trained_ratio=0.3).train_dataloader()
    with pytest.raises(ConfigError, match=r"^control is true, but trained_ratio is 0\.1"):
        world.datamodule(trained_ratio=0.1, control=True).train_dataloader()


def test_a_control_reads_no_synthetic_picture(world):
    for path in world.synthetic.rglob("*.png"):
        path.write_bytes(b"")
    assert len(list(world.datamodule(control=True, max_unreadable=0).train_dataloader())) == 5


@pytest.mark.parametrize("options", [{"synthetic": None}, {"ratio": 0}, {"ratio": 0.01}])
def test_a_control_of_nothing_is_an_error(world, options):
    with pytest.raises(ConfigError, match=r"^control is true, but .*`synthetic`.*`ratio`.*`control`"):
        world.datamodule(**options, control=True).train_dataloader()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ratio": 0.3}, r"0 to 0\.25 .*`ratio`"),
        ({"ratio": 0.3, "synthetic": None}, r"`ratio`.*`synthetic`"),
        ({"train_splits": ["minitrain"]}, r"minitrain .*`train_splits`.*train, val, test"),
        ({"train_splits": ["val"]}, r"8\.png is a query .*`train_splits`"),
        ({"pair_with_source": True, "batch_size": 1}, "`batch_size` is 1, .* need 2 places .*pair_with_source: false"),
        ({"pair_with_source": True, "mixing": "per_batch"}, r"allow 0 .*`ratio`"),
        ({"batch_size": 99}, "`batch_size`"),
        ({"eval_batch_size": 0}, "`eval_batch_size`"),
        ({"num_workers": -1}, "`num_workers`"),
        ({"eval_fold_size": 0}, "`eval_fold_size`"),
        ({"seed": -1, "ratio": 0.1}, "`seed`"),
        ({"processor": None}, "`processor`"),
        ({"max_unreadable": -1}, "`max_unreadable`"),
    ],
)
def test_impossible_settings_name_their_key(world, options, words):
    with pytest.raises(ConfigError, match=words):
        world.datamodule(**options).train_dataloader()


def test_an_unknown_split_names_its_key(world):
    with pytest.raises(ConfigError, match=r"minival .*`val_split`"):
        world.datamodule(val_split="minival").val_dataloader()


def test_the_synthetic_set_is_made_where_it_is_missing(world):
    datamodule, made = world.datamodule(), []
    datamodule.synthesise = lambda: (made.append(1), (world.synthetic / "protocol.json").write_text("{}"))
    datamodule.prepare_data()
    assert not made
    (world.synthetic / "protocol.json").unlink()
    datamodule.prepare_data()
    assert made == [1]


def test_a_missing_synthetic_set_that_nobody_makes_is_an_error(world):
    datamodule = world.datamodule(synthetic=world.folder / "elsewhere")
    for method in (datamodule.prepare_data, datamodule.setup):
        with pytest.raises(MissingPathError, match="elsewhere"):
            method()


@pytest.mark.parametrize(
    ("protocol", "words"),
    [
        ('{"config": {"data": {"fingerprint": "another world"}}}', "other annotations.*delete it"),
        ("[]", r"protocol\.json .*no protocol"),
        ("{", r"protocol\.json .*no protocol"),
    ],
)
def test_a_synthetic_set_of_another_data_set_is_refused(world, protocol, words):
    (world.synthetic / "protocol.json").write_text('{"config": {"data": {"fingerprint": "world"}}}')
    world.datamodule().prepare_data()
    (world.synthetic / "protocol.json").write_text(protocol)
    with pytest.raises(ConfigError, match=words):
        world.datamodule().prepare_data()


def test_a_data_set_without_images_is_an_error(world):
    datamodule = world.datamodule()
    columns = {
        "images": ("image_id", "file", "split", "width", "height"),
        "captions": ("caption_id", "image", "text"),
        "objects": ("image", "category", "box", "crowd", "segmentation"),
    }
    parts = {table: {name: [] for name in names} for table, names in columns.items()}
    datamodule.tables = Tables.write(world.folder / "none", **parts, class_names=["cat"], splits=[], fingerprint="")
    with pytest.raises(AnnotationError, match="no image"):
        datamodule.prepare_data()


def test_mentions_and_images_for_other_rooms(world):
    datamodule = world.datamodule()
    datamodule.prepare_data()
    assert np.array_equal(datamodule.mentions(), world.matcher.mentions(list(world.tables.texts)))
    assert datamodule.image_path(3) == world.folder / "images" / "3.png"
    assert datamodule.read_image(3).size == (4, 4)
    datamodule.image_path(3).write_bytes(b"")
    with pytest.raises(UnreadableImageError, match=r"3\.png"):
        datamodule.read_image(3)


def test_two_ranks_share_the_work_without_repeats(world):
    parts = [on_rank(world.datamodule(batch_size=2), rank, 2) for rank in range(2)]
    trained = [ids(part.train_dataloader(), "caption_ids") for part in parts]
    assert len(trained[0]) == len(trained[1])
    assert len(set(trained[0] + trained[1])) == 20
    evaluated = [[ids(loader) for loader in part.test_dataloader()] for part in parts]
    assert [part[0] for part in evaluated] == [[110], [111]]
    assert [len(part[1]) for part in evaluated] == [1, 0]


def test_lightning_must_not_shard_once_more(world):
    with pytest.raises(ConfigError, match="use_distributed_sampler"):
        on_rank(world.datamodule(), 0, 2, use_distributed_sampler=True).train_dataloader()


def test_a_parser_knows_every_argument():
    parser = ArgumentParser()
    parser.add_subclass_arguments(RetrievalDataModule, "data")
    flags = ["image_root=x", "karpathy=k.json", "instances=[a.json,b.json]", "ratio=0.2", "mixing=per_batch"]
    flags += ["eval_fold_size=1000", "positives={eccv: a/eccv}"]
    config = parser.parse_args(["--data=datamodules.CocoDataModule", *(f"--data.{flag}" for flag in flags)])
    assert config.data.init_args.val_gallery == "split"
    datamodule = parser.instantiate(config).data
    assert (datamodule.ratio, datamodule.mixing, len(datamodule.instances)) == (0.2, "per_batch", 2)
    assert datamodule.eval_fold_size == 1000


def test_public_names_load_when_they_are_asked_for():
    code = "import datamodules, sys; from datamodules import errors; sys.exit('lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert datamodules.RetrievalDataModule is RetrievalDataModule
    with pytest.raises(AttributeError, match="Nothing"):
        _ = datamodules.Nothing


def fit(world, folder, checkpoint=None, workers=0, callbacks=(), control=False, **options):
    datamodule = world.datamodule(processor=None, num_workers=workers, pair_with_source=True, control=control)
    probe = Probe(world.processor)
    loop = trainer(folder, callbacks=list(callbacks), **options)
    loop.fit(probe, datamodule, ckpt_path=checkpoint, weights_only=False)
    return probe


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "workers", "steps"),
    [
        ({"max_epochs": 3}, 0, ("step=2", "step=5", "step=8", "epoch=5", "score=10")),
        ({"max_epochs": 3}, 2, ("step=7",)),
        ({"max_epochs": 3, "control": True}, 0, ("step=7",)),
        ({"max_epochs": -1, "max_steps": 13}, 0, ("step=5", "step=8", "score=5")),
        ({"max_epochs": 3, "limit_train_batches": 3}, 0, ("step=3", "step=4")),
    ],
)
def test_a_resumed_run_goes_on_with_the_very_next_batch(world, tmp_path, options, workers, steps):
    """Checkpoints are saved after a step, at the end of an epoch, and after validation."""
    common = {"save_top_k": -1, "auto_insert_metric_name": False, "dirpath": tmp_path / "saved"}
    callbacks = [
        ModelCheckpoint(**common, filename="step={step}", every_n_train_steps=1),
        ModelCheckpoint(**common, filename="epoch={step}", every_n_epochs=1, save_on_train_epoch_end=True),
        ModelCheckpoint(**common, filename="score={step}", monitor="score", save_on_train_epoch_end=False),
    ]
    whole = fit(world, tmp_path, None, workers, callbacks, **options)
    for name in steps:
        resumed = fit(world, tmp_path, tmp_path / "saved" / f"{name}.ckpt", workers, **options)
        assert resumed.seen == whole.seen[int(name.split("=")[1]) :]
        assert torch.equal(resumed.weight, whole.weight)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "Trained on 16 original and 4 synthetic pairs: 5 batches of 4 an epoch."),
        (
            {"control": True},
            "Trained on 16 original pairs alone: 5 batches of 4 an epoch, as many as with 4 synthetic pairs.",
        ),
        (
            {"trained_ratio": 0.125},
            "Trained on 16 original and 2 synthetic pairs: 5 batches of 4 an epoch, as many as with 4 synthetic ones.",
        ),
    ],
)
def test_a_run_ends_with_what_it_trained_on(world, tmp_path, monkeypatch, options, words):
    said = []
    monkeypatch.setattr("datamodules.training.rank_zero_info", said.append)
    loop = trainer(tmp_path, max_epochs=2, limit_val_batches=0)
    loop.fit(Probe(world.processor), world.datamodule(**options))
    loop.validate(Probe(world.processor), world.datamodule(**options), verbose=False)
    assert (said, loop.global_step) == ([words], 10)


def test_two_ranks_say_what_each_trains_on(world, monkeypatch):
    said = []
    monkeypatch.setattr("datamodules.training.rank_zero_info", said.append)
    datamodule = on_rank(world.datamodule(batch_size=2), 0, 2)
    datamodule.train_dataloader()
    datamodule.teardown("fit")
    assert said == ["Trained on 16 original and 4 synthetic pairs: 5 batches of 2 an epoch on each of 2 processes."]


def test_every_epoch_is_shuffled_anew(world, tmp_path):
    probe = fit(world, tmp_path, max_epochs=2, limit_val_batches=0)
    assert probe.seen[:5] != probe.seen[5:]
    assert sorted(np.concatenate(probe.seen[:5])) == sorted(np.concatenate(probe.seen[5:]))


def test_testing_a_checkpoint_does_not_move_a_later_fit(world):
    datamodule = world.datamodule()
    datamodule.trainer = SimpleNamespace(state=SimpleNamespace(fn="test"))
    datamodule.load_state_dict({"epoch": 1, "batch": 2, "order": {}})
    datamodule.trainer = None
    assert len(list(datamodule.train_dataloader())) == 5
    assert datamodule.state_dict() == {}


def test_predicting_goes_through_images_and_captions(world, tmp_path):
    images, captions = trainer(tmp_path).predict(Probe(world.processor), world.datamodule())
    assert torch.cat(images).tolist() == [110, 111]
    assert len(torch.cat(captions)) == 24


def test_too_many_unreadable_images_end_a_fit(world, tmp_path):
    for row in range(4):
        (world.folder / "images" / f"{row}.png").write_bytes(b"")
    with pytest.raises(UnreadableImageError, match="`max_unreadable`"):
        trainer(tmp_path, max_epochs=1).fit(Probe(world.processor), world.datamodule(max_unreadable=3))


def test_checkpoints_hold_plain_values_alone(world, tmp_path):
    datamodule = world.datamodule()
    loop = trainer(tmp_path, max_epochs=1, limit_train_batches=2, limit_val_batches=0)
    loop.fit(Probe(world.processor), datamodule)
    state = datamodule.state_dict()
    assert (state["epoch"], state["batch"]) == (1, 0)
    assert pickle.loads(pickle.dumps(state)) == state  # noqa: S301
    loop.save_checkpoint(tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)[type(datamodule).__qualname__] == state


def test_samples_of_training_are_drawn_by_seed_from_its_originals(world):
    def drawn(**options):
        images, captions = world.datamodule(**options).training_samples(3, 5)
        assert torch.equal(next(iter(images)).pixel_values.round(), next(iter(images)).pixel_values)  # not augmented
        return [torch.cat([batch.image_ids for batch in images]), torch.cat([one.caption_ids for one in captions])]

    images, captions = drawn(seed=1)
    assert (len(images.unique()), len(captions.unique())) == (3, 5)
    assert set(images.tolist()) <= set(range(100, 108))
    assert set(captions.tolist()) <= set(range(1000, 1016))
    assert all(map(torch.equal, drawn(seed=1), (images, captions)))
    assert not all(map(torch.equal, drawn(seed=2), (images, captions)))
    everything = world.datamodule().training_samples(99, 99)
    assert [sum(len(batch.image_ids) for batch in loader) for loader in everything] == [8, 16]


def test_captions_and_files_are_found_by_id(world):
    datamodule = world.datamodule()
    assert datamodule.texts_of(np.array([1003, 1000])) == ["a dog 3", "a cat 0"]
    query = 2**40 + 256 * 110
    files = datamodule.files_of(np.array([query, 100, 111]))
    assert files == [world.synthetic / "test" / "10.png", *(world.folder / "images" / f"{row}.png" for row in (0, 11))]
    assert world.datamodule(synthetic=None).files_of(np.array([100]))[0].is_file()
    for lost in (datamodule.texts_of, datamodule.files_of):
        with pytest.raises(KeyError, match="no id 7"):
            lost(np.array([100 if lost == datamodule.files_of else 1000, 7]))

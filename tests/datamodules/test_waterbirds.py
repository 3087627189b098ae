from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from datamodules import GroupedDataModule, WaterbirdsDataModule
from datamodules.errors import AnnotationError, ConfigError, MissingPathError, UnreadableImageError
from datamodules.waterbirds import read_waterbirds

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data" / "waterbirds"


class Plain:
    """Gives pixels, plus noise from torch's generator in training."""

    def train_image(self, image):
        return self.eval_image(image) + torch.rand(1)

    def eval_image(self, image):
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()


def module(folder, **options):
    return WaterbirdsDataModule(folder, **({"processor": Plain(), "batch_size": 4, "num_workers": 0} | options))


def ids(loader):
    return [image for batch in loader for image in batch.image_ids.tolist()]


def test_batches_hold_images_with_their_labels_and_attributes(waterbirds):
    data = module(waterbirds)
    data.setup()
    (batch,) = data.val_dataloader()
    assert isinstance(data, GroupedDataModule)
    assert batch.image_ids.tolist() == [19, 20, 21, 22]
    assert batch.labels.tolist() == [1, 0, 0, 0]
    assert batch.attributes.tolist() == [1, 1, 0, 0]
    assert batch.pixel_values[:, 0, 0, 0].tolist() == [16, 17, 18, 19]
    assert batch.labels.dtype == batch.attributes.dtype == torch.int64
    assert batch.tokens is None
    assert not batch.synthetic.any()
    assert sorted(ids(data.train_dataloader())) == list(range(3, 19))
    assert ids(data.test_dataloader()) == ids(data.predict_dataloader()) == [23, 24, 25, 26]
    assert ids(module(waterbirds, predict_split="train").predict_dataloader()) == list(range(3, 19))


def test_groups_are_counted_and_may_be_empty(waterbirds):
    data = module(waterbirds)
    assert data.train_group_counts.tolist() == [10, 2, 2, 2]
    assert data.table.counts("val").tolist() == [2, 1, 0, 1]
    assert data.table.groups[:5].tolist() == [3, 1, 0, 0, 2]


def test_masks_lie_beside_the_images(waterbirds, tmp_path):
    assert module(waterbirds).mask_path(5) is None
    (tmp_path / "masks").mkdir()
    assert module(waterbirds, masks=tmp_path / "masks").mask_path(5) == tmp_path / "masks" / "a" / "5.png"
    with pytest.raises(MissingPathError, match=r"data.init_args.masks"):
        module(waterbirds, masks=tmp_path / "none").setup()


def test_augmentation_depends_on_the_seed_and_what_is_drawn_alone(waterbirds):
    one, other = (module(waterbirds, sampling="group_balanced", seed=5).train_dataloader() for _ in range(2))
    torch.manual_seed(7)
    first = [batch.pixel_values for batch in one]
    torch.manual_seed(8)
    assert all(torch.equal(a, b.pixel_values) for a, b in zip(first, other, strict=True))


def test_an_unreadable_training_image_is_replaced_within_its_group(waterbirds):
    (waterbirds / "a" / "8.png").write_bytes(b"")  # one of two waterbirds on water
    data = module(waterbirds)
    with pytest.warns(UserWarning, match=r"8\.png"):
        drawn = ids(data.train_dataloader())
    assert len(drawn) == 16
    assert drawn.count(3) == 2
    assert 11 not in drawn


def test_training_batches_are_whole_though_no_image_of_a_group_can_be_read(waterbirds):
    for number in (0, 8):  # both waterbirds on water
        (waterbirds / "a" / f"{number}.png").write_bytes(b"")
    with pytest.warns(UserWarning, match="cannot be read"):
        drawn = ids(module(waterbirds, batch_size=1, sampling="group_balanced").train_dataloader())
    assert len(drawn) == 16
    assert not {3, 11} & set(drawn)


def test_an_unreadable_test_image_is_left_out_and_too_many_stop_the_run(waterbirds):
    (waterbirds / "a" / "21.png").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"21\.png"):
        assert ids(module(waterbirds).test_dataloader()) == [23, 25, 26]
    with pytest.raises(UnreadableImageError, match="raise the limit"), pytest.warns(UserWarning, match="21"):
        ids(module(waterbirds, max_unreadable=0).test_dataloader())


def test_processes_share_an_evaluated_split_without_padding(waterbirds, monkeypatch):
    parts = []
    for rank in range(3):
        monkeypatch.setattr("datamodules.loaders.place", lambda trainer, rank=rank: (rank, 3))
        parts += ids(module(waterbirds).test_dataloader())
    assert sorted(parts) == [23, 24, 25, 26]


def test_more_processes_than_images_are_refused(waterbirds, monkeypatch):
    data = module(waterbirds)
    data.prepare_data()
    data.setup("test")
    images = len(data.table.rows("test"))
    monkeypatch.setattr("datamodules.grouped.place", lambda trainer: (0, images + 1))
    with pytest.raises(ConfigError, match=rf"Split test has {images} images for {images + 1} processes: lower"):
        data.test_dataloader()


def test_just_train_twice_draws_errors_more_often(waterbirds, tmp_path):
    errors = tmp_path / "errors.csv"
    errors.write_text("image_id,label,attribute,predicted\n4,0,1,1\n11,1,1,0\n")
    drawn = ids(module(waterbirds, errors=errors, error_weight=5).train_dataloader())
    assert len(drawn) == 24
    assert [drawn.count(image) for image in (3, 4, 11)] == [1, 5, 5]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("image_id\n19\n", ConfigError, "line 2 .*lists image 19, which is no training image"),
        ("image_id\nx\n", AnnotationError, "line 2 .*has image_id 'x'"),
        ("id\n4\n", AnnotationError, "line 1 .*has 0 columns 'image_id'"),
        ("image_id\n", AnnotationError, "no row"),
        (None, MissingPathError, "errors.csv"),
    ],
)
def test_errors_that_cannot_be_are_told_before_training(waterbirds, tmp_path, text, error, message):
    if text is not None:
        (tmp_path / "errors.csv").write_text(text)
    with pytest.raises(error, match=message) as raised:
        module(waterbirds, errors=tmp_path / "errors.csv", error_weight=5).setup("fit")
    assert "data.init_args.errors" in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"errors": "errors.csv"}, "give both"),
        ({"error_weight": 3}, "give both"),
        ({"errors": "errors.csv", "error_weight": 0}, "error_weight is 0"),
        ({"errors": "errors.csv", "error_weight": 2, "sampling": "group_balanced"}, "both decide"),
        ({"sampling": "balanced"}, "sampling is 'balanced'"),
        ({"predict_split": "all"}, "predict_split is 'all'"),
        ({"eval_batch_size": 0}, "eval_batch_size"),
    ],
)
def test_options_that_cannot_work_are_refused(waterbirds, options, message):
    with pytest.raises(ConfigError, match=message):
        module(waterbirds, **options)


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ("img_id,", "id,", AnnotationError, "line 1 .*has 0 columns 'img_id'"),
        ("5,a/2.png,0,0,0,lake", "5,a/2.png,2,0,0,lake", AnnotationError, "line 4 .*has y 2, .*from 0 to 1"),
        ("5,a/2.png,0,0,0,lake", "5,a/2.png,0,0,-1,lake", AnnotationError, "line 4 .*has place -1"),
        ("5,a/2.png,0,0,0,lake", "5,a/2.png,0,3,0,lake", AnnotationError, "line 4 .*has split 3, .*from 0 to 2"),
        ("5,a/2.png,0,0,0,lake", "5,a/2.png,0,train,0,lake", AnnotationError, "line 4 .*has split 'train'"),
        ("5,a/2.png,0,0,0,lake", "5,a/2.png,0,0", AnnotationError, "line 4 .*has 4 values for 6 columns"),
        ("5,a/2.png,", "4,a/2.png,", AnnotationError, "line 4 .*has img_id 4, as an earlier line"),
        ("5,a/2.png,", "5,a/none.png,", MissingPathError, "line 4 .*names a/none.png, one of 1 images"),
        ("5,a/2.png,", '5,"a/2.png,', AnnotationError, "no csv|values for 6 columns"),
    ],
)
def test_bad_metadata_is_told_with_file_line_and_key(waterbirds, old, new, error, message):
    path = waterbirds / "metadata.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(error, match=message) as raised:
        module(waterbirds).setup()
    assert str(path) in str(raised.value)
    assert "data.init_args.root" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["", "img_id,img_filename,y,split,place,place_filename\n", "\x89PNG"])
def test_metadata_without_rows_is_refused(waterbirds, text):
    (waterbirds / "metadata.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(AnnotationError, match=r"metadata\.csv"):
        module(waterbirds).setup()


def test_a_split_without_images_is_told_when_it_is_needed(waterbirds):
    path = waterbirds / "metadata.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:17]))
    data = module(waterbirds)
    data.setup()
    assert len(ids(data.train_dataloader())) > 0
    with pytest.raises(ConfigError, match="split test"):
        data.test_dataloader()


def test_a_missing_root_is_told(tmp_path):
    with pytest.raises(MissingPathError, match=r"data\.init_args\.root"):
        module(tmp_path / "none").setup()
    with pytest.raises(MissingPathError, match=r"holds no metadata\.csv: set `data\.init_args\.root` to the folder"):
        module(tmp_path).setup()


def test_an_image_that_comes_twice_in_a_batch_is_augmented_twice(waterbirds):
    data = module(waterbirds, sampling="group_balanced", batch_size=16)
    (batch,) = data.train_dataloader()
    pixels = {image: [] for image in batch.image_ids.tolist()}
    for image, value in zip(batch.image_ids.tolist(), batch.pixel_values[:, 1, 0, 0].tolist(), strict=True):
        pixels[image].append(value)
    assert max(map(len, pixels.values())) > 1
    assert all(len(set(values)) == len(values) for values in pixels.values())


def test_a_run_resumes_on_the_next_batch(waterbirds, tmp_path):
    class Records(LightningModule):
        def __init__(self):
            super().__init__()
            self.weight, self.seen = torch.nn.Parameter(torch.zeros(1)), []

        def training_step(self, batch, index):
            self.seen.append(batch.image_ids.tolist())
            return self.weight.sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    def fit(*callbacks, ckpt=None):
        options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
        options["default_root_dir"] = tmp_path
        model = Records()
        trainer = Trainer(max_steps=6, limit_val_batches=0, callbacks=list(callbacks), **options)
        trainer.fit(model, module(waterbirds, sampling="group_balanced"), ckpt_path=ckpt, weights_only=False)
        return model.seen

    save = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=1)
    whole = fit(save)
    assert fit(ckpt=tmp_path / "step=2.ckpt") == whole[2:]


@pytest.mark.real
@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data/waterbirds is absent")
def test_the_real_metadata_has_the_known_groups():
    table = read_waterbirds(SHARED, check_files=False)
    assert len(table) == 11788
    assert table.counts("train").tolist() == [3525, 186, 54, 1030]
    assert table.counts("val").tolist() == [452, 452, 147, 148]
    assert table.counts("test").tolist() == [2255, 2255, 642, 642]
    assert table.files[0] == "001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg"
    with pytest.raises(MissingPathError, match=r"line 2 .*one of 11788 images"):
        read_waterbirds(SHARED)

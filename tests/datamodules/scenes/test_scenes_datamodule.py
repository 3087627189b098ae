import numpy as np

from datamodules import ScenesDataModule
from datamodules.scenes import ScenesConfig


def test_scenes_are_drawn_where_they_are_missing_and_read_like_coco(tmp_path):
    config = ScenesConfig(train=4, val=2, test=3, resolution=48)
    data = ScenesDataModule(root=tmp_path / "scenes", scenes=config, cache_dir=tmp_path / "cache")
    data.prepare_data()
    tables = data.tables
    assert [len(tables.rows(split)) for split in ("train", "val", "test")] == [4, 2, 3]
    assert len(tables.texts) == 45
    assert np.isin(np.arange(9), tables.object_images).all()
    assert all(data.read_image(row).size == (48, 48) for row in range(9))

"""Pictures as a model sees them, whatever its preprocessing does; embeddings beside the rows that they are of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.encoding import Frame, embed_images, embed_texts
from experiments.options import load_data


def test_a_region_is_cropped_and_scaled_as_its_picture_is() -> None:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    transform = image_transform_v2(PreprocessCfg(size=16, mean=(0.1, 0.2, 0.3), std=(0.2, 0.3, 0.4)), is_train=False)
    picture, mask = Image.new("RGB", (64, 32), (200, 100, 50)), Image.new("L", (64, 32))
    mask.paste(255, (16, 0, 32, 16))  # the upper left quarter of the square in the middle
    frame = Frame(transform, picture.size)
    region = frame.region(mask)
    assert region.shape == (16, 16)
    assert region[:8, :8].all()
    assert region.sum() == 64
    np.testing.assert_allclose(frame.shown(transform(picture)), np.full((16, 16, 3), (200, 100, 50)), atol=1)


def test_what_is_padded_belongs_to_no_region() -> None:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    transform = image_transform_v2(PreprocessCfg(size=16, resize_mode="longest"), is_train=False)
    region = Frame(transform, (64, 32)).region(Image.new("L", (64, 32), 255))
    assert region[4:12].all()
    assert region.sum() == 8 * 16


def test_embeddings_stand_beside_the_rows_that_can_be_read(birds: Path, load_colours: Any, tmp_path: Path) -> None:
    (tmp_path / "birds" / "5.png").write_bytes(b"no image")
    data, model = load_data(birds), load_colours("before")
    data.setup()
    rows = np.array([7, 5, 2, 11])
    with pytest.warns(UserWarning, match=r"5\.png"):
        images, found = embed_images(model, data, rows)
    assert found.tolist() == [7, 2, 11]
    for row, embedding in zip(found.tolist(), images, strict=True):
        alone = model.encode_images(model.processor.eval_image(data.read_image(row))[None])[0]
        torch.testing.assert_close(embedding, alone)


def test_a_name_is_the_mean_over_its_prompts(load_colours: Any) -> None:
    model = load_colours("before")
    rows = embed_texts(model, ["{}", "water", "{}"], ["sky", "land"])
    sky, water, land = model.encode_texts(model.processor.tokenize(["sky", "water", "land"]))
    for row, name in zip(rows, (sky, land), strict=True):
        torch.testing.assert_close(row, torch.nn.functional.normalize(2 * name + water, dim=0))


def test_keys_of_the_data_can_be_replaced(birds: Path) -> None:
    assert load_data(birds, ["--data.init_args.eval_batch_size", "3"]).eval_batch_size == 3
    with pytest.raises(SystemExit):
        load_data(birds, ["--data.init_args.eval_batch_sise", "3"])

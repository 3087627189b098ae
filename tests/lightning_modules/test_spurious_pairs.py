"""Spurious pairs of classes in the training of a retrieval model: read, defined, looked up, refused."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from datamodules.errors import AnnotationError, ConfigError, MissingPathError
from lightning_modules import ImageTextModule
from lightning_modules.losses import SpuriousPairsLoss
from lightning_modules.spurious_pairs import read_pairs

PAIRS = [["dog", "frisbee"], ["cat", "dog"]]


def _unit(rows: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, 4, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.fixture
def data() -> Any:
    """What a data module says of images 0 to 3: a dog alone, a frisbee alone, a cat and a dog, nothing."""
    shown = np.array([[0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 0, 0]], dtype=bool)
    tables = SimpleNamespace(class_names=("cat", "dog", "frisbee"))
    return SimpleNamespace(tables=tables, shown_classes=lambda: (np.arange(4), shown))


def test_equals_the_definition() -> None:
    images, prompts, pairs = _unit(12, 0), _unit(4, 1), [(0, 1), (2, 0), (3, 2)]
    shown = torch.rand(12, 4, generator=torch.Generator().manual_seed(2)) < 0.5
    costs = []
    for image, present in zip(images, shown.tolist(), strict=True):
        for one, other in [*pairs, *((b, a) for a, b in pairs)]:
            if present[one] and not present[other]:
                own, partner = (math.exp(5 * float(image @ prompts[place])) for place in (one, other))
                costs.append(-math.log(own / (own + partner)))
    found = SpuriousPairsLoss()(images, prompts, torch.tensor(5.0), shown, torch.tensor(pairs))
    assert found.item() == pytest.approx(sum(costs) / len(costs), rel=1e-5)


def test_a_batch_without_an_image_of_one_alone_costs_nothing() -> None:
    images = _unit(3, 0).requires_grad_()
    loss = SpuriousPairsLoss()(images, _unit(2, 1), torch.tensor(5.0), torch.ones(3, 2).bool(), torch.tensor([[0, 1]]))
    loss.backward()
    assert loss == 0
    assert not images.grad.any()


def test_the_terms_are_added_by_their_weights(
    tiny_clip: Any, pairs: Any, data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    templates = ["a {}.", "the {}."]
    model = tiny_clip(
        spurious_pairs=PAIRS, spurious_templates=templates, spurious_weight=3.0, spurious_language_weight=0.5
    )
    plain, seen = tiny_clip(), {}
    model.spurious.prepare(data, model.processor.tokenize)
    for one in (model, plain):
        monkeypatch.setattr(one, "log", lambda *_, **__: None)
        monkeypatch.setattr(one, "log_dict", lambda values, **_: seen.update(values))
    batch = pairs(model)
    names = ["cat", "dog", "frisbee"]
    texts = [
        F.normalize(
            model.encode_texts(model.processor.tokenize([one.format(name) for one in templates])).mean(dim=0), dim=0
        )
        for name in names
    ]
    images, scale = model.encode_images(batch.pixel_values), model.model.logit_scale.exp()
    logits = scale * images @ torch.stack(texts).T
    # Image 0 is a dog without frisbee and without cat, 1 a frisbee without dog, 2 a cat and a dog without frisbee.
    cases = [(0, 1, 2), (0, 1, 0), (1, 2, 1), (2, 1, 2)]
    spurious = torch.stack([F.softplus(logits[i, other] - logits[i, own]) for i, own, other in cases]).mean()
    language = (texts[1] @ texts[2] + texts[0] @ texts[1]) / 2
    expected = plain.training_loss(batch) + 3 * spurious + language / 2
    assert model.training_loss(batch).item() == pytest.approx(expected.item(), rel=1e-5)
    assert seen["train/spurious"].item() == pytest.approx(spurious.item(), rel=1e-5)
    assert seen["train/spurious_language"].item() == pytest.approx(language.item(), rel=1e-5)


@pytest.mark.parametrize("unknown", [-1, 7, 20])
def test_an_image_that_the_data_has_not_told_of_is_refused(
    tiny_clip: Any, data: Any, monkeypatch: pytest.MonkeyPatch, unknown: int
) -> None:
    ids, shown = np.array([0, 5, 9]), data.shown_classes()[1][:3]
    monkeypatch.setattr(data, "shown_classes", lambda: (ids, shown))
    terms = tiny_clip(spurious_pairs=[["dog", "frisbee"]], spurious_weight=1.0).spurious
    terms.prepare(data, lambda texts: torch.zeros(len(texts), 1, dtype=torch.int64))
    seen = _unit(2, 0), _unit(2, 1), torch.tensor(5.0)
    assert terms(*seen, torch.tensor([9, 0]))["spurious"] > 0
    with pytest.raises(ValueError, match=f"Image {unknown} is no training image"):
        terms(*seen, torch.tensor([0, unknown]))


def test_pairs_are_read_from_what_stats_writes(tmp_path: Path) -> None:
    path = tmp_path / "images_pairs.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["a", "b", "phi_before"], ["dog", "frisbee", 0.9], ["cat", "dog", 0.4]])
    assert read_pairs(str(path), 1) == [["dog", "frisbee"]]
    assert read_pairs(str(path), 20) == PAIRS
    path.write_text("one,other\ndog,frisbee\n")
    with pytest.raises(AnnotationError, match=r"images_pairs.csv .* has no column a and b"):
        read_pairs(str(path), 20)
    path.write_text("a,b\n")
    with pytest.raises(AnnotationError, match="holds no pair"):
        read_pairs(str(path), 20)
    path.write_text("a,b\ndog\n")
    with pytest.raises(ConfigError, match=r"holds \['dog', None\]"):
        read_pairs(str(path), 20)
    path.write_bytes(b"a,b\n\xff\xfe,dog\n")
    with pytest.raises(AnnotationError, match="is no csv file in UTF-8"):
        read_pairs(str(path), 20)
    with pytest.raises(MissingPathError, match="is no file"):
        read_pairs(str(tmp_path / "absent.csv"), 20)


def test_a_checkpoint_needs_no_file_of_pairs(tiny_clip: Callable[..., Any], quiet_trainer: Any, tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("a,b\ndog,frisbee\n")
    trainer = quiet_trainer()
    trainer.strategy.connect(tiny_clip(spurious_pairs=str(path), spurious_weight=1.0))
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    path.unlink()
    assert ImageTextModule.load_from_checkpoint(tmp_path / "model.ckpt").spurious.pairs == [["dog", "frisbee"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spurious_weight": 1.0}, "give pairs and a weight, or neither"),
        ({"spurious_pairs": PAIRS}, "give pairs and a weight, or neither"),
        ({"spurious_pairs": PAIRS, "spurious_weight": -1.0}, "`model.init_args.spurious_weight` is -1.0"),
        ({"spurious_pairs": [], "spurious_weight": 1.0}, "`model.init_args.spurious_pairs` is empty"),
        ({"spurious_pairs": [["dog"]], "spurious_weight": 1.0}, "a pair is two different classes"),
        ({"spurious_pairs": [["dog", "dog"]], "spurious_weight": 1.0}, "a pair is two different classes"),
        ({"spurious_pair_count": 0}, "`model.init_args.spurious_pair_count` is 0"),
        (
            {"spurious_pairs": PAIRS, "spurious_weight": 1.0, "spurious_templates": ["a photo"]},
            "`model.init_args.spurious_templates` holds 'a photo'",
        ),
    ],
)
def test_what_cannot_work_is_refused(tiny_clip: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_clip(**arguments)


def test_data_that_cannot_answer_is_refused(tiny_clip: Any, data: Any) -> None:
    model = tiny_clip(spurious_pairs=[["dog", "frisbees"]], spurious_weight=1.0)
    with pytest.raises(ConfigError, match=r"names 'frisbees', which is no class of the data; did you mean frisbee\?"):
        model.spurious.prepare(data, model.processor.tokenize)
    with pytest.raises(ConfigError, match="of which NoneType says nothing"):
        model.spurious.prepare(None, model.processor.tokenize)

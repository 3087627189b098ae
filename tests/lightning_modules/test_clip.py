"""CLIP: unit rows, the clamp of its scale, the paper's optimiser, and checkpoints that rebuild it alone."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from datamodules.batch import RetrievalBatch
from datamodules.errors import ConfigError
from lightning_modules import CLIP

TINY: dict[str, Any] = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 16, "head_width": 8, "layers": 1},
    "text_cfg": {"context_length": 12, "width": 16, "heads": 2, "layers": 1},
}


def _batch(model: CLIP, count: int = 4) -> RetrievalBatch:
    ids = torch.arange(count)
    generator = torch.Generator().manual_seed(0)
    return RetrievalBatch(
        image_ids=ids,
        caption_ids=ids,
        source_ids=ids,
        source_caption_ids=ids,
        synthetic=torch.zeros(count, dtype=torch.bool),
        pixel_values=torch.rand(count, 3, 16, 16, generator=generator),
        tokens=model.processor.tokenize([f"a picture of {number} dogs" for number in range(count)]),
    )


@pytest.fixture
def model() -> CLIP:
    torch.manual_seed(0)
    return CLIP(model_config=TINY, lr=0.1, optimizer_args={"betas": [0.8, 0.9]}, lr_halving_epochs=1)


def _trainer(folder: Path, **options: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return Trainer(default_root_dir=folder, **{**quiet, "enable_checkpointing": False, **options})


def _fit(model: CLIP, folder: Path, steps: int, **options: Any) -> Trainer:
    batches = DataLoader([_batch(model)] * steps, batch_size=None)
    trainer = _trainer(folder, **options)
    trainer.fit(model, batches)
    return trainer


def test_embeddings_are_unit_rows(model: CLIP) -> None:
    batch = _batch(model)
    for rows in (model.encode_images(batch.pixel_values), model.encode_texts(batch.tokens)):
        assert rows.shape == (4, 8)
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(4))


@pytest.mark.parametrize(("start", "end"), [(9.0, math.log(100)), (-3.0, 0.0)])
def test_the_scale_is_clamped_after_a_step(model: CLIP, tmp_path: Path, start: float, end: float) -> None:
    model.lr = 1e-6
    with torch.no_grad():
        model.model.logit_scale.fill_(start)
    _fit(model, tmp_path, steps=1, max_epochs=1)
    assert model.model.logit_scale.item() == pytest.approx(end, abs=1e-4)


def test_training_lowers_the_loss_and_halves_the_rate(model: CLIP, tmp_path: Path) -> None:
    model.lr = 1e-3
    before = _loss(model)
    trainer = _fit(model, tmp_path, steps=4, max_epochs=3, accumulate_grad_batches=2)
    optimizer = trainer.optimizers[0]
    assert isinstance(optimizer, torch.optim.Adam)
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.9)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 / 8)
    assert _loss(model) < before


@pytest.mark.parametrize("epochs", [-1, 3])
def test_a_limit_of_steps_does_not_change_when_the_rate_is_halved(model: CLIP, tmp_path: Path, epochs: int) -> None:
    trainer = _fit(model, tmp_path, steps=4, max_epochs=epochs, max_steps=7)
    assert trainer.global_step == 7
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1 / 2)


def test_a_validation_that_was_broken_off_leaves_no_trace(model: CLIP, tmp_path: Path) -> None:
    pairs = _batch(model)
    batches = [replace(pairs, tokens=None), replace(pairs, pixel_values=None)]
    loader, trainer = DataLoader(batches, batch_size=None), _trainer(tmp_path)
    (expected,) = trainer.validate(model, loader, verbose=False)
    model._evaluate("val", replace(batches[0], image_ids=batches[0].image_ids + 100))
    (found,) = trainer.validate(model, loader, verbose=False)
    assert found == expected


def _loss(model: CLIP) -> float:
    model.log = lambda *_, **__: None
    loss = model.training_loss(_batch(model)).item()
    del model.log
    return loss


def test_the_papers_recipe_is_the_default() -> None:
    recipe = CLIP(model_config=TINY)
    assert (recipe.optimizer_class, recipe.lr, recipe.lr_halving_epochs) == (torch.optim.Adam, 2e-6, 2)


def test_a_misspelled_optimiser_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"`model.init_args.optimizer` is 'Adm'.*AdamW") as error:
        CLIP(model_config=TINY, optimizer="Adm")
    assert "Optimizer" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"lr_halving_epochs": 0}, "`model.init_args.lr_halving_epochs` is 0"),
        ({"lr_decay": 0.0}, "`model.init_args.lr_decay` is 0"),
        ({"micro_batch_size": 0}, "`model.init_args.micro_batch_size` is 0"),
        ({"counterfactual_weight": -1.0}, "`model.init_args.counterfactual_weight` is -1"),
        ({"crop_scale": (1.0, 0.9)}, r"`model.init_args.crop_scale` is \[1.0, 0.9\]"),
        ({"positives": "diagonals"}, "`model.init_args.positives` is 'diagonals'"),
        ({"top_k": [0, 1]}, r"`model.init_args.top_k` is \[0, 1\]: top_k must hold positive"),
    ],
)
def test_values_that_cannot_work_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        CLIP(model_config=TINY, **arguments)


def test_a_batch_without_texts_is_refused(model: CLIP) -> None:
    batch = _batch(model)
    batch.tokens = None
    with pytest.raises(ValueError, match="needs both"):
        model.training_loss(batch)


RESNET: dict[str, Any] = {**TINY, "vision_cfg": {"image_size": 32, "width": 2, "layers": [1, 1, 1, 1], "head_width": 8}}


def _gradients(model: CLIP, batch: RetrievalBatch) -> dict[str, torch.Tensor]:
    model.log = lambda *_, **__: None
    model.zero_grad()
    model.training_loss(batch).backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def _clip(**arguments: Any) -> CLIP:
    torch.manual_seed(0)
    return CLIP(**{"model_config": TINY, **arguments})


@pytest.mark.parametrize("saving", [{"micro_batch_size": 3}, {"gradient_checkpointing": True}])
def test_saving_memory_changes_no_gradient(saving: dict[str, Any]) -> None:
    whole, saved = _clip(), _clip(**saving)
    batch = _batch(whole, 7)
    torch.testing.assert_close(_gradients(saved, batch), _gradients(whole, batch))


COCA: dict[str, Any] = {
    "embed_dim": 8,
    "custom_text": True,
    "vision_cfg": {**TINY["vision_cfg"], "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
    "text_cfg": {**TINY["text_cfg"], "embed_cls": True, "output_tokens": True},
    "multimodal_cfg": {"context_length": 12, "width": 16, "heads": 2, "layers": 1},
}


@pytest.mark.parametrize("config", [{**TINY, "init_logit_bias": -10}, COCA], ids=["a bias of logits", "a decoder"])
def test_all_that_is_trained_gets_a_gradient(config: dict[str, Any]) -> None:
    model = _clip(model_config=config)
    model.log = lambda *_, **__: None
    model.training_loss(_batch(model)).backward()
    trained = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert [name for name, gradient in trained.items() if gradient is None] == []  # DDP would wait for them
    assert "model.visual.proj" in trained or "model.visual.attn_pool.query" in trained


def test_positives_reach_the_loss() -> None:
    batch = replace(_batch(_clip(), 4), image_ids=torch.tensor([5, 5, 6, 7]))
    losses = {}
    for positives in ("diagonal", "same_image_soft", "mask_same_image"):
        model = _clip(positives=positives)
        images, texts = model.embed_pairs(batch)
        losses[positives] = model.loss(images, texts, torch.tensor(10.0), batch.image_ids).item()
        model.log = lambda *_, **__: None
        with torch.no_grad():
            model.model.logit_scale.fill_(math.log(10))
        assert model.training_loss(batch).item() == pytest.approx(losses[positives])
    assert len(set(losses.values())) == 3


def test_the_counterfactual_margin_is_added_by_its_weight() -> None:
    batch = replace(
        _batch(_clip(), 4),
        caption_ids=torch.tensor([1, 2, 3, 9]),
        source_caption_ids=torch.tensor([1, 2, 3, 2]),
        synthetic=torch.tensor([False, False, False, True]),
    )
    plain, weighted = _clip(), _clip(counterfactual_weight=0.5, counterfactual_margin=0.3)
    images, texts = plain.embed_pairs(batch)
    scores = (images @ texts.T).tolist()
    margins = max(0, 0.3 + scores[3][1] - scores[3][3]) + max(0, 0.3 + scores[1][3] - scores[1][1])
    for model in (plain, weighted):
        model.log = lambda *_, **__: None
    assert margins > 0
    difference = weighted.training_loss(batch) - plain.training_loss(batch)
    assert difference.item() == pytest.approx(0.5 * margins, abs=1e-5)


@pytest.mark.parametrize(("source", "told"), [(8, True), (2, False)])
def test_a_margin_without_couples_is_told_of_once(tmp_path: Path, source: int, told: bool) -> None:
    model = _clip(counterfactual_weight=0.5)
    synthetic = torch.tensor([False, False, False, True])
    batch = replace(_batch(model), source_caption_ids=torch.tensor([0, 1, 2, source]), synthetic=synthetic)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _trainer(tmp_path, max_epochs=2).fit(model, DataLoader([batch], batch_size=None))
    assert sum("`data.init_args.pair_with_source: true`" in str(one.message) for one in caught) == told


def test_a_resnet_trains_while_its_stem_and_its_statistics_rest(tmp_path: Path) -> None:
    model = _clip(
        model_config=RESNET,
        lr=0.1,
        lr_halving_epochs=1,
        freeze=["model.visual.[!a]*"],
        lr_scales={"model.visual.*": 0.5, "*token_embedding*": 0.0},
        decay_vectors=False,
        optimizer="AdamW",
        optimizer_args={"weight_decay": 0.1},
        micro_batch_size=2,
    )
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batch = replace(_batch(model, 4), pixel_values=torch.rand(4, 3, 32, 32))
    trainer = _trainer(tmp_path, max_epochs=1)
    trainer.fit(model, DataLoader([batch] * 2, batch_size=None))
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    visual = {name for name in moved if name.startswith("model.visual.")}
    assert visual == {name for name in before if name.startswith("model.visual.attnpool.")}
    assert "model.token_embedding.weight" not in moved
    assert "model.logit_scale" in moved
    settings = {(group["lr"], group["weight_decay"]) for group in trainer.optimizers[0].param_groups}
    assert settings == {(0.025, 0.1), (0.025, 0.0), (0.0, 0.1), (0.05, 0.1), (0.05, 0.0)}
    model.eval()
    model.train()
    assert not model.model.visual.bn1.training
    assert model.model.visual.attnpool.training

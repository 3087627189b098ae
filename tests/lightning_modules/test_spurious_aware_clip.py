"""Spurious-aware fine-tuning: its terms, what is trained, when prompts are encoded, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from datamodules.errors import ConfigError
from lightning_modules import ImageTextModule, SpuriousAwareCLIP
from lightning_modules.losses import LabelledImages, SpuriousAwareLoss
from lightning_modules.losses.spurious_aware import TERMS

NAMES = ("landbird", "waterbird"), ("land", "water")
TEXT = {"context_length": 12, "width": 16, "heads": 2, "layers": 1}
RESNET = {"embed_dim": 8, "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}, "text_cfg": TEXT}
TIMM = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 32, "timm_model_name": "test_byobnet", "timm_pool": "avg", "timm_proj": "linear"},
    "text_cfg": TEXT,
}
TERMS_ALONE = dict.fromkeys((f"{name}_weight" for name in TERMS), 0.0)
CROSS_ENTROPY = TERMS_ALONE | {"cross_entropy_weight": 1.0}


@pytest.fixture
def build(tiny_clip: Callable[..., Any]) -> Callable[..., Any]:
    """Build a tiny model with the same weights every time."""
    config = tiny_clip().hparams["model_config"]

    def make(**arguments: Any) -> Any:
        torch.manual_seed(0)
        given = {"classes": NAMES[0], "spurious": ["bird on land", "bird on water"], "templates": ["a {}.", "the {}."]}
        return SpuriousAwareCLIP(**{"model_config": config, **given, **arguments})

    return make


@pytest.fixture
def data(grouped_data: Callable[..., Any]) -> Any:
    """Eight images, four of either class, whose brightness is their class."""
    labels, attributes = [0, 1, 0, 1, 0, 1, 0, 1], [0, 1, 0, 0, 1, 1, 0, 1]
    noise = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    images = noise / 2 + torch.tensor(labels)[:, None, None, None] / 2
    return grouped_data(images, labels, attributes, NAMES, 4)


def _unit(*shape: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double), dim=-1)


def _mean(values: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(values).mean()


def _reference(seen: LabelledImages) -> dict[str, torch.Tensor]:
    """Compute every term by loops over images and prompts, straight from its definition."""
    classes, spurious, words = (
        [F.normalize(prompts.mean(dim=0), dim=0) for prompts in kind]
        for kind in (seen.classes, seen.spurious, seen.words)
    )
    images, labels = list(seen.images), seen.labels.tolist()

    def chosen(image: torch.Tensor, prompts: list[torch.Tensor], target: int) -> torch.Tensor:
        logits = [seen.scale * (image @ prompt) for prompt in prompts]
        return torch.stack(logits).logsumexp(dim=0) - logits[target]

    def affinity(rows: list[torch.Tensor], owners: list[int]) -> torch.Tensor:
        costs = []
        for i, row in enumerate(rows):
            same = [row @ rows[j] for j in range(len(rows)) if j != i and owners[j] == owners[i]]
            apart = [row @ rows[j] for j in range(len(rows)) if owners[j] != owners[i]]
            costs.append(_mean(apart) - _mean(same))
        return _mean(costs)

    by_image = [chosen(image, classes, label) for image, label in zip(images, labels, strict=True)]
    texts = [classes[label] for label in labels]
    both = [chosen(image, texts, i) + chosen(texts[i], images, i) for i, image in enumerate(images)]
    groups = [2 * label + attribute for label, attribute in zip(labels, seen.attributes.tolist(), strict=True)]
    means = [
        _mean([cost for cost, owner in zip(by_image, groups, strict=True) if owner == group] or [torch.zeros(())])
        for group in range(4)
    ]
    return {
        "contrastive": _mean(both) / 2,
        "language": affinity(list(seen.classes.flatten(0, 1)), [0, 0, 0, 1, 1, 1]),
        "image": affinity(images, labels),
        "spurious": _mean([chosen(i, spurious, a) for i, a in zip(images, seen.attributes.tolist(), strict=True)]),
        "orthogonal": _mean([(one @ other).abs() for one in classes for other in words]),
        "cross_entropy": _mean(by_image),
        "group_dro": torch.stack(means).mean(),  # in evaluation mode all groups weigh the same
    }


def test_every_term_is_what_its_definition_says() -> None:
    attributes = torch.tensor([0, 1, 1, 0, 1, 1])  # of the four groups one is missing
    seen = LabelledImages(
        *(_unit(6, 5, seed=0), torch.tensor([0, 0, 1, 0, 1, 1]), attributes, torch.tensor(7.0)),
        *(_unit(2, 3, 5, seed=1), _unit(2, 3, 5, seed=2), _unit(3, 3, 5, seed=3)),
    )
    weights = {name: float(number + 1) for number, name in enumerate(TERMS)}
    loss, expected = SpuriousAwareLoss(weights, 2, 2).eval(), _reference(seen)
    found = loss.terms(seen)
    assert {name: term.item() for name, term in found.items()} == pytest.approx(
        {name: expected[name].item() for name in TERMS}, rel=1e-6
    )
    assert loss(found).item() == pytest.approx(sum(weights[name] * expected[name].item() for name in TERMS), rel=1e-6)


def test_images_of_a_class_share_their_prototype_so_that_soft_positives_change_nothing() -> None:
    labels = torch.tensor([0, 0, 1, 0])
    seen = LabelledImages(_unit(4, 5, seed=0), labels, labels, torch.tensor(7.0), _unit(2, 3, 5, seed=1))
    found = {
        positives: SpuriousAwareLoss({"contrastive": 1.0}, 2, 2, positives=positives).terms(seen)["contrastive"].item()
        for positives in ("diagonal", "same_image_soft", "mask_same_image")
    }
    assert found["same_image_soft"] == pytest.approx(found["diagonal"])
    assert found["mask_same_image"] < found["diagonal"]


def test_a_term_without_weight_is_not_computed() -> None:
    rows = torch.eye(2)
    seen = LabelledImages(rows, torch.arange(2), torch.arange(2), torch.tensor(1.0), rows[:, None])  # no other prompts
    assert SpuriousAwareLoss({"spurious": 0.0, "image": 1.0}, 2, 2).terms(seen).keys() == {"image"}
    with pytest.raises(ValueError, match="`spurious` prompts"):
        SpuriousAwareLoss({"spurious": 1.0}, 2, 2).terms(seen)


def test_it_learns_and_says_how(build: Any, data: Any, quiet_trainer: Any) -> None:
    model = build(trained=["*"], scale=10, orthogonal_weight=0.1, group_dro_weight=1.0, lr=3e-3)
    trainer = quiet_trainer(max_epochs=15, num_sanity_val_steps=0)
    trainer.fit(model, datamodule=data)
    assert {f"train/{name}" for name in set(TERMS) - {"cross_entropy"}} < trainer.callback_metrics.keys()
    assert trainer.callback_metrics["val/worst_group"] == 100
    assert model.loss.robust.weights.std() > 0


@pytest.mark.parametrize(
    ("config", "trained"),
    [
        (None, {"model.visual.proj", "model.text_projection"}),
        (RESNET, {"model.visual.attnpool.", "model.text_projection"}),
        (TIMM, {"model.visual.head.", "model.text_projection"}),
    ],
    ids=["ViT", "ResNet", "timm"],
)
def test_the_projections_are_trained_unless_told_otherwise(build: Any, config: Any, trained: set[str]) -> None:
    model = build(**({} if config is None else {"model_config": config}))
    model.configure_model()
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert {next(start for start in trained if name.startswith(start)) for name in names} == trained
    norms = [module for module in model.train().modules() if hasattr(module, "running_mean")]
    assert not any(norm.training for norm in norms)


@pytest.mark.parametrize("freeze", [True, False])
def test_statistics_of_trained_layers_rest_if_told_to(build: Any, freeze: bool) -> None:
    model = build(model_config=RESNET, trained=["*"], freeze_statistics=freeze)
    model.configure_model()
    norms = [module for module in model.train().modules() if hasattr(module, "running_mean")]
    assert norms
    assert all(norm.training is not freeze for norm in norms)


def test_a_scale_is_where_it_starts_and_stays_below_100(build: Any, data: Any, quiet_trainer: Any) -> None:
    assert build(scale=20).model.logit_scale.item() == pytest.approx(math.log(20))
    model = build(trained=["model.logit_scale"], scale=99, lr=1.0, **CROSS_ENTROPY)
    quiet_trainer(max_epochs=3, limit_val_batches=0).fit(model, datamodule=data)
    assert 0 <= model.model.logit_scale.item() <= math.log(100)
    assert model.model.logit_scale.item() != pytest.approx(math.log(99))


@pytest.mark.parametrize(("trained", "encodings"), [(["model.visual.*"], 3), (None, 5)], ids=["frozen", "trained"])
def test_prompts_are_encoded_as_often_as_they_change(
    build: Any, data: Any, quiet_trainer: Any, monkeypatch: pytest.MonkeyPatch, trained: Any, encodings: int
) -> None:
    """In two epochs of two steps and one validation: for each epoch and the validation, or for every step."""
    model, seen = build(trained=trained, **CROSS_ENTROPY), []
    encode = model.encode_texts
    monkeypatch.setattr(model, "encode_texts", lambda tokens: (seen.append(len(tokens)), encode(tokens))[1])
    trainer = quiet_trainer(max_epochs=2, check_val_every_n_epoch=2, num_sanity_val_steps=0)
    trainer.fit(model, datamodule=data)
    assert len(seen) == encodings
    assert set(seen) == {4}


def test_prompts_of_earlier_weights_do_not_outlive_a_training(build: Any, data: Any, quiet_trainer: Any) -> None:
    model = build(lr=0.1, **CROSS_ENTROPY)
    trainer = quiet_trainer(max_epochs=1, val_check_interval=1, limit_train_batches=2, num_sanity_val_steps=0)
    trainer.fit(model, datamodule=data)
    with torch.no_grad():
        before = model.prompts("classes")
        model.model.text_projection.normal_()
        after = model.prompts("classes")
        tokens = model.tokens["classes"]
        torch.testing.assert_close(after.flatten(0, 1), model.encode_texts(tokens))
    assert not torch.allclose(before, after)


@pytest.mark.parametrize("terms", [{"image"}, {"language"}, {"image", "language"}, {"spurious"}, {"cross_entropy"}])
@pytest.mark.parametrize("config", [None, RESNET], ids=["ViT", "ResNet"])
def test_what_is_trained_gets_a_gradient_for_which_ddp_would_wait(
    build: Any, data: Any, monkeypatch: pytest.MonkeyPatch, terms: set[str], config: Any
) -> None:
    chosen = {**TERMS_ALONE, **{f"{name}_weight": 1.0 for name in terms}}
    model = build(trained=["*"], **chosen, **({} if config is None else {"model_config": config}))
    monkeypatch.setattr(model, "log_dict", lambda *_, **__: None)
    model.configure_model()
    (batch, *_) = data.train_dataloader()
    batch.pixel_values = F.interpolate(batch.pixel_values, model.model.visual.image_size)
    model.training_loss(batch).backward()
    parameters = {name: one.grad is not None for name, one in model.named_parameters() if one.requires_grad}
    assert parameters
    assert all(parameters.values()), [name for name, found in parameters.items() if not found]
    assert any("visual" in name for name in parameters) is (terms != {"language"})
    assert any("visual" not in name for name in parameters) is (terms != {"image"})


def test_parts_of_a_batch_give_the_same_gradient(build: Any, data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (batch, *_), grads = data.train_dataloader(), []
    for size in (None, 3):
        model = build(micro_batch_size=size, trained=["*"])
        monkeypatch.setattr(model, "log_dict", lambda *_, **__: None)
        model.training_loss(batch).backward()
        grads.append(model.model.token_embedding.weight.grad)
    torch.testing.assert_close(grads[0], grads[1])


def test_a_checkpoint_alone_rebuilds_it(build: Any, data: Any, quiet_trainer: Any, tmp_path: Any) -> None:
    model = build(templates=None, group_dro_weight=1.0, positives="same_image_soft")
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    other = ImageTextModule.load_from_checkpoint(tmp_path / "model.ckpt").eval()
    (batch, *_) = data.val_dataloader()
    torch.testing.assert_close(other.class_scores(batch.pixel_values), model.eval().class_scores(batch.pixel_values))
    assert len(other.templates) == 80
    assert other.loss.weights == model.loss.weights
    assert other.loss.robust.weights.equal(model.loss.robust.weights)


def test_names_must_fit_the_data(build: Any, data: Any, quiet_trainer: Any) -> None:
    with pytest.raises(ConfigError, match=r"`model.init_args.classes` has 3 names, but the data has 2: landbird"):
        quiet_trainer().validate(build(classes=["a", "b", "c"]), datamodule=data, verbose=False)


def test_names_of_the_data_in_another_order_are_refused(build: Any, data: Any, quiet_trainer: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"`model.init_args.classes` is waterbird, landbird, .* give landbird, waterbird"
    ):
        quiet_trainer().validate(build(classes=["waterbird", "landbird"]), datamodule=data, verbose=False)


def test_a_model_of_retrieval_refuses_data_of_groups(tiny_clip: Any, data: Any, quiet_trainer: Any) -> None:
    with pytest.raises(ConfigError, match=r"CLIP is scored by retrieval, but \w+ has groups and no captions"):
        quiet_trainer().test(tiny_clip(), datamodule=data, verbose=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": ["bird"]}, "`model.init_args.classes` is .* 2 or more different names"),
        ({"classes": ["bird", "bird"]}, "`model.init_args.classes`"),
        ({"spurious_words": []}, "`model.init_args.spurious_words` is .* 1 or more"),
        ({"templates": []}, "`model.init_args.templates` is empty"),
        ({"templates": ["a photo"]}, "`model.init_args.templates` holds 'a photo'"),
        ({"templates": ["a {name} of {}"]}, "`model.init_args.templates`"),
        ({"image_weight": -1.0}, "`model.init_args.image_weight` is -1.0"),
        (TERMS_ALONE, "Every term of the loss has weight 0"),
        ({"image_temperature": 0.0}, "give a number above 0"),
        ({"scale": 0.0}, "`model.init_args.scale` is 0.0"),
        ({"trained": []}, "`model.init_args.trained` is empty"),
        (
            {**TERMS_ALONE, "language_weight": 1.0, "trained": ["model.visual.proj"]},
            r"`model.init_args.trained` is \['model.visual.proj'\], but the terms language depend on none of these",
        ),
        (
            {"trained": ["model.visual.projection"]},
            "`model.init_args.trained` holds .*; did you mean model.visual.proj",
        ),
    ],
)
def test_what_cannot_work_is_refused(build: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(**arguments)


@pytest.mark.parametrize("term", ["language", "orthogonal"])
def test_a_term_of_words_alone_needs_words_to_train(build: Any, term: str) -> None:
    model = build(trained=["model.visual.proj"], **{**CROSS_ENTROPY, f"{term}_weight": 0.5})
    with pytest.raises(ConfigError, match=f"`model.init_args.{term}_weight` is 0.5, but no parameter of the text"):
        model.configure_model()

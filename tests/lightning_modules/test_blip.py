"""BLIP's training against its formula, alone and over ranks; its checkpoints, export and bad input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from datamodules.batch import RetrievalBatch
from datamodules.errors import ConfigError
from lightning_modules.blip import BLIP
from lightning_modules.blip_processor import BlipTokenizer, build_tokenizer
from lightning_modules.distributed import share_buffers

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "picture", "of", "dogs", *"0123456789"]
CONFIG: dict[str, Any] = {
    "text_config": {
        "vocab_size": 24,
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 12,
        "initializer_range": 0.2,
    },
    "vision_config": {
        "hidden_size": 24,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 8,
        "initializer_range": 0.2,
    },
    "image_text_hidden_size": 8,
}


def _blip(**arguments: Any) -> BLIP:
    torch.manual_seed(0)
    settings = {"config": CONFIG, "tokenizer": WORDS, "max_length": 10, "queue_size": 7, "text_dropout": 0.0}
    model = BLIP(**settings | arguments)
    model.log = model.log_dict = lambda *_, **__: None
    with torch.no_grad():  # as if it had been trained for a while: the copy lags behind
        for parameter in model.momentum_copy.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model


def _batch(count: int, image_ids: list[int] | None = None, seed: int = 0) -> RetrievalBatch:
    ids = torch.arange(count) if image_ids is None else torch.tensor(image_ids)
    captions = torch.arange(count) + 100
    generator = torch.Generator().manual_seed(seed)
    return RetrievalBatch(
        image_ids=ids,
        caption_ids=captions,
        source_ids=ids,
        source_caption_ids=captions,
        synthetic=torch.zeros(count, dtype=torch.bool),
        pixel_values=torch.rand(count, 3, 16, 16, generator=generator),
        tokens=BlipTokenizer(build_tokenizer(WORDS), 10, 30)(
            [f"a picture of {n} dogs" for n in range(seed, seed + count)]
        ),
    )


def _part(batch: RetrievalBatch, rows: slice) -> RetrievalBatch:
    names = ("image_ids", "caption_ids", "source_ids", "source_caption_ids", "synthetic", "pixel_values")
    tokens = {name: tensor[rows] for name, tensor in batch.tokens.items()}
    return replace(batch, **{name: getattr(batch, name)[rows] for name in names}, tokens=tokens)


def _grads(model: BLIP) -> dict[str, Tensor]:
    return {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


def _reference(model: BLIP, batch: RetrievalBatch, alpha: float) -> Tensor:
    """The loss of two pairs of different images, spelt out over transformers' own forward pass, pair by pair."""
    tokens, temperature = batch.tokens, model.temperature
    found = []
    for towers in (model.model, model.momentum_copy.model):
        output = towers(**tokens, pixel_values=batch.pixel_values, use_itm_head=False)
        images = towers.vision_proj(output.last_hidden_state[:, 0])
        texts = towers.text_proj(output.question_embeds[:, 0])
        found.append([torch.nn.functional.normalize(rows) for rows in (images, texts)])
    costs = []
    for way, queue in enumerate((model.contrastive.text_queue, model.contrastive.image_queue)):
        columns = torch.cat([found[1][1 - way], queue])
        for i in range(2):
            logits = torch.stack([found[0][way][i] @ column / temperature for column in columns])
            soft = torch.stack([found[1][way][i] @ column / temperature for column in columns]).softmax(0)
            target = alpha * soft + (1 - alpha) * torch.eye(len(columns))[i]
            costs.append(-(target.detach() * logits.log_softmax(0)).sum() / 4)
    for image, caption in [(0, 0), (1, 1), (0, 1), (1, 0), (0, 1), (1, 0)]:  # the negatives of images, and of captions
        ids = tokens["input_ids"][[caption]].clone()
        ids[0, 0] = len(WORDS) + 1
        mask, pixels = tokens["attention_mask"][[caption]], batch.pixel_values[[image]]
        logits = model.model(input_ids=ids, attention_mask=mask, pixel_values=pixels).itm_score
        costs.append(-logits.log_softmax(1)[0, int(image == caption)] / 6)
    return torch.stack(costs).sum()


@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_the_loss_and_its_gradients_are_those_of_the_formula(alpha: float) -> None:
    model, again, batch = _blip(alpha=alpha), _blip(), _batch(2)
    expected, found = _reference(again, batch, alpha), model.training_loss(batch)
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)
    assert model.contrastive.id_queue.tolist() == [0, 1, *[-100] * 5]
    found.backward()
    expected.backward()
    right = _grads(again)
    for name, grad in _grads(model).items():
        torch.testing.assert_close(grad, right[name], rtol=1e-4, atol=1e-4, msg=name)


def test_every_trained_parameter_gets_a_gradient_and_no_other() -> None:
    model = _blip()
    model.training_loss(_batch(3)).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith("momentum_copy."), name


def test_matching_scores_are_those_of_single_pairs_behind_the_match_token() -> None:
    model, batch = _blip().eval(), _batch(3)
    rows, states = model.encode_with_states(batch.pixel_values)
    torch.testing.assert_close(rows, model.encode_images(batch.pixel_values))
    ids = batch.tokens["input_ids"].clone()
    ids[:, 0] = len(WORDS) + 1
    for image in range(3):
        scores = model.match_captions(states[[image]], batch.tokens)
        pixels = batch.pixel_values[[image]].expand(3, -1, -1, -1)
        whole = model.model(input_ids=ids, attention_mask=batch.tokens["attention_mask"], pixel_values=pixels).itm_score
        torch.testing.assert_close(scores, whole[:, 1], rtol=0, atol=1e-5)


def test_scores_do_not_depend_on_who_else_is_in_the_batch() -> None:
    model, batch = _blip().eval(), _batch(3)
    batch.tokens["attention_mask"][1] = 0  # padding alone, as no tokenizer of ours makes it
    batch.tokens["attention_mask"][2, 4:] = 0
    together = model.encode_texts(batch.tokens)
    for row in range(3):
        alone = {name: tensor[[row]] for name, tensor in batch.tokens.items()}
        torch.testing.assert_close(model.encode_texts(alone), together[[row]], rtol=0, atol=1e-5)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))


@pytest.mark.parametrize(
    "batch",
    [
        pytest.param(lambda: _batch(3, image_ids=[5, 5, 5]), id="one image"),
        pytest.param(lambda: _batch(1), id="one pair"),
        pytest.param(lambda: _batch(9), id="more than the queue holds"),
        pytest.param(lambda: replace(_batch(2), tokens=_blip().processor.tokenize(["", "dogs " * 500])), id="captions"),
        pytest.param(lambda: replace(_batch(2), pixel_values=torch.zeros(2, 3, 16, 16)), id="black images"),
    ],
)
def test_odd_batches_are_trained_on(batch: Callable[[], RetrievalBatch]) -> None:
    model, pairs = _blip(), batch()
    for _ in range(3):
        loss = model.training_loss(pairs)
        assert loss.isfinite()
        loss.backward()
        assert all(grad.isfinite().all() for grad in _grads(model).values())
    added = 3 * len(pairs)
    assert model.contrastive.pointer.item() == added % 7
    assert (model.contrastive.id_queue >= 0).sum().item() == min(7, added)


def test_a_batch_without_texts_is_refused() -> None:
    with pytest.raises(ValueError, match="needs both"):
        _blip().training_loss(replace(_batch(2), tokens=None))


def test_negatives_are_drawn_by_the_seed_and_go_on_where_a_checkpoint_stops() -> None:
    batch, first, again = _batch(6), _blip(), _blip()
    losses = [first.training_loss(batch).item() for _ in range(4)]
    again.training_loss(batch)
    state = {name: tensor.clone() for name, tensor in again.state_dict().items()}
    torch.manual_seed(3)
    resumed = _blip()
    resumed.load_state_dict(state)
    assert [resumed.training_loss(batch).item() for _ in range(3)] == losses[1:]
    assert len(set(losses)) == 4


def test_parts_give_the_gradients_of_the_whole() -> None:
    batch, grads = _batch(5), []
    for size in (None, 2):
        model = _blip(micro_batch_size=size)
        model.training_loss(batch).backward()
        grads.append(_grads(model))
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, rtol=0, atol=1e-5, msg=name)


def test_compiled_towers_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    plain, batch = _blip(), _batch(3)
    monkeypatch.setattr(
        torch, "compile", lambda function, **_: lambda *a, **k: (calls.append(function), function(*a, **k))[1]
    )
    model = _blip(compile=True)
    model.configure_model()
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert model.training_loss(batch).item() == plain.training_loss(batch).item()
    assert len(calls) == 5  # images, captions, both by the copy, and the matching


def test_half_precision_stays_close() -> None:
    batch = _batch(4)
    exact = _blip().training_loss(batch).item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model = _blip()
        loss = model.training_loss(batch)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact, rel=0.1)


def test_the_counterfactual_margin_is_added_by_its_weight() -> None:
    columns = {"synthetic": torch.tensor([False, True]), "source_caption_ids": torch.tensor([100, 100])}
    batch = replace(_batch(2), **columns)
    plain, weighted = (_blip(counterfactual_weight=w, counterfactual_margin=0.5) for w in (0.0, 3.0))
    images, texts = weighted.encode_images(batch.pixel_values), weighted.encode_texts(batch.tokens)
    scores = (images @ texts.T).tolist()
    margin = sum(max(0.0, 0.5 + scores[i][1 - i] - scores[i][i]) for i in range(2))
    difference = weighted.training_loss(batch).item() - plain.training_loss(batch).item()
    assert difference == pytest.approx(3 * margin, abs=1e-5)


def _fit(model: BLIP, folder: Path, batches: list[RetrievalBatch], **options: Any) -> Any:
    from lightning.pytorch import Trainer

    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(default_root_dir=folder, **{**quiet, "enable_checkpointing": False, **options})
    trainer.fit(model, DataLoader(batches, batch_size=None))
    return trainer


def test_training_learns_and_its_checkpoint_rebuilds_the_model_alone(tmp_path: Path) -> None:
    model, batch = _blip(lr=3e-3, rerank_top_k=3, top_k=[1, 2], micro_batch_size=3), _batch(4)
    before = model.eval().training_loss(batch).item()
    trainer = _fit(model.train(), tmp_path, [batch] * 5, max_epochs=3)
    assert model.eval().training_loss(batch).item() < before - 0.3
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(3e-3 / 2**6)  # 15 steps, halved every 2.5
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    again = BLIP.load_from_checkpoint(tmp_path / "model.ckpt")
    assert again.hparams["micro_batch_size"] == again.micro_batch_size == 3
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert again.processor.tokenize(["A 7 dogs?"])["input_ids"].tolist() == [[2, 5, 16, 8, 1, 3, 0, 0, 0, 0]]
    torch.testing.assert_close(again.eval().encode_texts(batch.tokens), model.encode_texts(batch.tokens))


def test_a_run_is_started_from_and_another_familys_is_refused(
    tmp_path: Path, tiny_clip: Callable[..., Any], quiet_trainer: Callable[..., Any]
) -> None:
    start = _blip(temperature=0.3)
    for model in (start, tiny_clip()):
        (trainer := quiet_trainer()).strategy.connect(model)
        trainer.save_checkpoint(tmp_path / f"{type(model).__name__}.ckpt")
    again = BLIP(
        pretrained=str(tmp_path / "BLIP.ckpt"), tokenizer="no/such", queue_size=5, max_length=10, image_size=24
    )
    assert again.temperature == start.temperature
    assert again.tokenizer.vocabulary == start.tokenizer.vocabulary
    assert torch.equal(again.contrastive.image_queue, start.contrastive.image_queue[:5])
    for name, tensor in start.state_dict().items():
        if "model." in name and "position_embedding" not in name:
            assert torch.equal(again.state_dict()[name], tensor), name
    with pytest.raises(ConfigError, match=r"CLIP.ckpt` holds a CLIP, which is no BLIP"):
        BLIP(pretrained=str(tmp_path / "CLIP.ckpt"))


def test_the_copy_follows_and_the_temperature_is_bound_once_per_step(tmp_path: Path) -> None:
    model, batches = _blip(momentum=0.75, lr=1e-2), [_batch(2, seed=n) for n in range(4)]
    seen, start = [], {name: one.clone() for name, one in model.momentum_copy.model.named_parameters()}
    follow = model.follow

    def noted() -> None:
        with torch.no_grad():
            model.temperature.fill_(7.0 if len(seen) % 2 else -1.0)
        follow()
        seen.append((model.temperature.item(), {name: one.clone() for name, one in model.model.named_parameters()}))

    model.follow = noted
    _fit(model, tmp_path, batches, max_epochs=1, accumulate_grad_batches=2)
    assert [temperature for temperature, _ in seen] == pytest.approx([0.001, 0.5])
    for name, slow in model.momentum_copy.model.named_parameters():
        expected = start[name]
        for _, weights in seen:
            expected = 0.75 * expected + 0.25 * weights[name]
        torch.testing.assert_close(slow, expected.detach(), rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize(("epochs", "expected"), [(2, [0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1, 1, 1]), (0, [1] * 9)])
def test_the_weight_of_the_copy_rises_over_epochs(tmp_path: Path, epochs: float, expected: list[float]) -> None:
    model, weights = _blip(alpha=0.3, alpha_epochs=epochs), []
    model.contrastive.register_forward_pre_hook(lambda _, inputs: weights.append(inputs[-1]))
    _fit(model, tmp_path, [_batch(2)] * 3, max_epochs=3)
    assert weights == pytest.approx([0.3 * one for one in expected])


def test_the_papers_recipe_is_the_default() -> None:
    recipe = _blip()
    assert (recipe.optimizer_class, recipe.lr, recipe.lr_halving_epochs) == (torch.optim.AdamW, 1e-5, 0.5)
    assert (recipe.hparams["queue_size"], BLIP(config=CONFIG, tokenizer=WORDS, max_length=9).hparams["queue_size"]) == (
        7,
        57_600,
    )


def test_the_export_is_loaded_by_plain_transformers(tmp_path: Path) -> None:
    from PIL import Image
    from transformers import BlipForImageTextRetrieval, BlipProcessor

    model, batch = _blip().eval(), _batch(2)
    model.export(tmp_path)
    plain, processor = (kind.from_pretrained(tmp_path) for kind in (BlipForImageTextRetrieval, BlipProcessor))
    scores = plain(**batch.tokens, pixel_values=batch.pixel_values, use_itm_head=False).itm_score
    ours = model.encode_images(batch.pixel_values) @ model.encode_texts(batch.tokens).T
    torch.testing.assert_close(scores, ours, rtol=0, atol=1e-6)
    picture = Image.new("RGB", (40, 20), (10, 200, 90))
    made = processor(images=picture, text=["a picture [ENC]"], return_tensors="pt")
    assert made["input_ids"].tolist() == [[2, 5, 6, len(WORDS) + 1, 3]]
    torch.testing.assert_close(made["pixel_values"][0], model.processor.eval_image(picture), rtol=0, atol=1e-5)


_IDS = [4, 4, 6, 7, 8]


def _steps(rank: int, sizes: list[int], negatives: str) -> list[Any]:
    """Three steps of plain gradient descent on this rank's part of each batch, gradients averaged as DDP does."""
    model, found = _blip(negatives=negatives).double(), []
    start, world = sum(sizes[:rank]), len(sizes)
    for step in range(3):
        batch = _batch(sum(sizes), image_ids=_IDS, seed=step)
        batch.pixel_values = batch.pixel_values.double()
        loss = model.training_loss(_part(batch, slice(start, start + sizes[rank])))
        model.zero_grad()
        loss.backward()
        for parameter in model.parameters():
            if parameter.grad is not None:
                if world > 1:
                    torch.distributed.all_reduce(parameter.grad)
                parameter.data -= 0.05 * parameter.grad / world
        model.follow()
        found.append(loss.item())
    return [found, {name: tensor.tolist() for name, tensor in model.state_dict().items()}]


def _sent(rank: int) -> list[int]:
    """Give the ranks different buffers and let DDP even them out, as it also does before every step."""
    model = _blip()
    model.draws.fill_(rank)
    model.contrastive.id_queue.fill_(rank)
    DistributedDataParallel(model)
    kept = int(model.contrastive.id_queue[0])
    share_buffers(model.contrastive)
    return [int(model.draws), kept, int(model.contrastive.id_queue[0])]


def _ranks(rank: int, world: int, sizes: list[int]) -> list[Any]:
    return [_steps(rank, sizes, "all_ranks"), _steps(rank, sizes, "local")[0], _sent(rank)]


@pytest.mark.slow
@pytest.mark.ddp
def test_ranks_train_as_one_process_on_the_whole_batch(run_ranks: Callable[..., list[Any]]) -> None:
    losses, state = _steps(0, [5], "all_ranks")
    local = []
    for rank, ((found, weights), own, sent) in enumerate(run_ranks(_ranks, 3, [2, 1, 2])):
        assert sent == [0, rank, 0]  # DDP sends the seed of the draws and leaves the long queues to themselves
        assert found == pytest.approx(losses, abs=1e-6)
        assert weights.keys() == state.keys()
        for name, right in state.items():
            error = (torch.tensor(weights[name]).double() - torch.tensor(right).double()).abs().max()
            assert error < 1e-6, name
        local.append(own)
    # Negatives of one rank alone are others, and the loss is still shared.
    assert local[0] == local[1] == local[2] != losses

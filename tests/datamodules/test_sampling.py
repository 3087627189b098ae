"""Every original pair once per epoch, over all processes and across a restart, for every way of mixing."""

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.errors import ConfigError
from datamodules.mixing import draw_subset, proportional_share
from datamodules.sampling import MixedBatchSampler, ShardedSampler


@st.composite
def mixes(draw, paired=None):
    """Arguments of a sampler that has at least one batch per process, and the number of processes."""
    world, batch = draw(st.integers(1, 3)), draw(st.integers(3, 6))
    originals = draw(st.integers(2 * world * batch, 80))
    synthetic = draw(st.integers(0, originals))
    sources = draw(st.lists(st.integers(0, originals - 1), min_size=synthetic, max_size=synthetic))
    mode = draw(st.sampled_from(["concat", "per_batch"]))
    arguments = {"originals": originals, "synthetic": synthetic, "batch_size": batch, "mode": mode}
    arguments["seed"] = draw(st.integers(0, 9))
    if draw(st.booleans()) if paired is None else paired:
        arguments["sources"] = np.array(sources, dtype=np.int64)
    return arguments, world


def build(arguments, world):
    """Return the samplers of all ranks, or None where the pairs cannot give such batches."""
    try:
        return [MixedBatchSampler(**arguments, rank=rank, world_size=world) for rank in range(world)]
    except ConfigError:
        return None


def epoch_of(sampler, epoch):
    sampler.set_epoch(epoch)
    batches = list(sampler)
    return [[row for _, row in batch] for batch in batches]


@settings(max_examples=60, deadline=None)
@given(mixes(), st.integers(0, 3))
def test_each_original_once_per_epoch_over_all_ranks(mix, epoch):
    arguments, world = mix
    samplers = build(arguments, world)
    if samplers is None:
        assert arguments["mode"] == "per_batch" or "sources" in arguments
        return
    parts = [epoch_of(sampler, epoch) for sampler in samplers]
    batches = [batch for part in parts for batch in part]
    rows = np.concatenate(batches)
    originals = rows[rows < arguments["originals"]]
    assert len(np.unique(originals)) == len(originals)
    assert arguments["originals"] - len(originals) < world * arguments["batch_size"]
    assert {len(part) for part in parts} == {len(samplers[0])}
    assert {len(batch) for batch in batches} == {arguments["batch_size"]}
    assert rows.min() >= 0
    assert rows.max() < arguments["originals"] + arguments["synthetic"]


@settings(max_examples=40, deadline=None)
@given(mixes(paired=False))
def test_a_union_loses_only_the_last_incomplete_round(mix):
    arguments, world = mix
    samplers = build(arguments | {"mode": "concat"}, world)
    rows = np.concatenate([batch for sampler in samplers for batch in epoch_of(sampler, 0)])
    assert len(np.unique(rows)) == len(rows)
    assert arguments["originals"] + arguments["synthetic"] - len(rows) < world * arguments["batch_size"]


@settings(max_examples=60, deadline=None)
@given(mixes(paired=True))
def test_a_synthetic_pair_lies_in_the_batch_of_its_source(mix):
    arguments, world = mix
    samplers = build(arguments, world)
    for sampler in samplers or []:
        for batch in epoch_of(sampler, 1):
            synthetic = [row - arguments["originals"] for row in batch if row >= arguments["originals"]]
            assert {int(arguments["sources"][row]) for row in synthetic} <= set(batch)


def test_a_paired_union_keeps_every_pair_where_there_is_room():
    sources = np.repeat(np.arange(0, 100, 5), 2)
    sampler = MixedBatchSampler(100, 40, sources=sources, batch_size=10)
    rows = sorted(np.concatenate(epoch_of(sampler, 0)))
    assert rows == list(range(140))


def test_a_paired_union_without_room_keeps_every_original_and_lets_synthetic_pairs_sit_out():
    sampler = MixedBatchSampler(30, 30, sources=np.arange(30), batch_size=3)
    epochs = [np.concatenate(epoch_of(sampler, epoch)) for epoch in range(20)]
    for rows in epochs:
        assert sorted(rows[rows < 30]) == list(range(30))
    assert len(np.unique(np.concatenate(epochs))) == 60


@pytest.mark.parametrize("paired", [False, True])
def test_a_fixed_share_is_exact(paired):
    sources = np.arange(0, 90, 2) if paired else None
    sampler = MixedBatchSampler(
        90, 45, batch_size=10, mode="per_batch", synthetic_per_batch=3, sources=sources, world_size=2
    )
    for batch in epoch_of(sampler, 2):
        assert sum(row >= 90 for row in batch) == 3


def test_a_fixed_share_goes_through_all_synthetic_pairs_before_it_repeats_one():
    sampler = MixedBatchSampler(90, 40, batch_size=10, mode="per_batch", synthetic_per_batch=2)
    stream = [row for epoch in range(4) for batch in epoch_of(sampler, epoch) for row in batch if row >= 90]
    for start in range(0, len(stream) - 40, 40):
        assert sorted(stream[start : start + 40]) == list(range(90, 130))
    assert stream[:40] != stream[40:80]


def test_a_fixed_share_holds_no_synthetic_pair_twice():
    sampler = MixedBatchSampler(90, 7, batch_size=10, mode="per_batch", synthetic_per_batch=5)
    for epoch in range(4):
        for batch in epoch_of(sampler, epoch):
            assert len(set(batch)) == 10


@settings(max_examples=60, deadline=None)
@given(mixes(), st.integers(1, 4))
def test_a_control_has_as_many_batches_of_originals_alone(mix, epochs):
    arguments, world = mix
    plain, control = build(arguments, world), build(arguments | {"control": True}, world)
    if plain is None:
        assert control is None
        return
    counts = np.zeros(arguments["originals"], dtype=int)
    for epoch in range(epochs):
        for one, other in zip(control, plain, strict=True):
            batches = epoch_of(one, epoch)
            assert len(one) == len(other) == len(batches)
            assert all(len(set(batch)) == len(batch) == arguments["batch_size"] for batch in batches)
            np.add.at(counts, np.concatenate(batches), 1)  # fails at the row of a synthetic pair
    assert counts.max() - counts.min() <= 1


def test_a_control_repeats_exactly_and_shuffles_every_pass():
    options = {"sources": np.arange(20), "batch_size": 6, "control": True}
    control = MixedBatchSampler(40, 20, **options)
    epochs = [np.concatenate(epoch_of(control, epoch)) for epoch in range(4)]
    stream = np.concatenate(epochs).tolist()
    assert stream[:40] != stream[40:80]
    assert epochs[3].tolist() == np.concatenate(epoch_of(MixedBatchSampler(40, 20, **options), 3)).tolist()
    assert epochs[0].tolist() != np.concatenate(epoch_of(MixedBatchSampler(40, 20, **options, seed=1), 0)).tolist()


@settings(max_examples=60, deadline=None)
@given(mixes(), st.integers(1, 9))
def test_epochs_of_another_length_hold_the_same_batches_in_the_same_order(mix, rounds):
    arguments, world = mix
    plain, cut = build(arguments, world), build(arguments | {"batches": rounds * world}, world)
    if plain is None:
        assert cut is None
        return
    for one, other in zip(plain, cut, strict=True):
        epochs = [epoch_of(other, epoch) for epoch in range(3)]
        assert [len(epoch) for epoch in epochs] == [rounds] * 3 == [len(other)] * 3
        stream = [batch for epoch in range(3 * rounds) for batch in epoch_of(one, epoch)]
        assert [batch for epoch in epochs for batch in epoch] == stream[: 3 * rounds]


def test_a_control_of_one_batch_may_be_larger_than_the_originals():
    rows = np.concatenate(epoch_of(MixedBatchSampler(10, 10, batch_size=16, control=True), 0))
    assert sorted(np.bincount(rows)) == [1] * 4 + [2] * 6


def test_the_share_by_default_is_that_of_the_pairs():
    sampler = MixedBatchSampler(90, 30, batch_size=12, mode="per_batch")
    assert {sum(row >= 90 for row in batch) for batch in epoch_of(sampler, 0)} == {3}
    assert proportional_share(10, 1, batch_size=2) == 1


@pytest.mark.parametrize("world", [1, 3])
def test_batches_are_numbered_through_all_processes_and_epochs(world):
    numbers = []
    for rank, epoch in itertools.product(range(world), range(2)):
        sampler = MixedBatchSampler(40, batch_size=4, rank=rank, world_size=world)
        sampler.set_epoch(epoch)
        for batch in sampler:
            (number,) = {number for number, _ in batch}
            numbers.append(number)
    assert sorted(numbers) == list(range(len(numbers)))


def test_epochs_and_seeds_differ_and_repeat_exactly():
    orders = {
        (seed, epoch): epoch_of(MixedBatchSampler(40, 10, batch_size=5, seed=seed), epoch)
        for seed, epoch in itertools.product(range(2), range(2))
    }
    assert len({str(order) for order in orders.values()}) == 4
    assert epoch_of(MixedBatchSampler(40, 10, batch_size=5, seed=1), 1) == orders[1, 1]


@settings(max_examples=40, deadline=None)
@given(mixes(), st.data())
def test_a_loaded_state_continues_with_the_next_batch(mix, data):
    arguments, world = mix
    arguments["control"] = data.draw(st.booleans())
    arguments["batches"] = data.draw(st.sampled_from([None, world, 20 * world]))
    samplers = build(arguments, world)
    if samplers is None:
        return
    sampler = samplers[-1]
    sampler.set_epoch(2)
    used = data.draw(st.integers(0, len(sampler)))
    whole = list(itertools.islice(sampler, used))
    state = sampler.state_dict()
    whole = list(sampler)
    resumed = build(arguments, world)[-1]
    resumed.load_state_dict(state)
    if used < len(sampler):
        resumed.set_epoch(2)
        assert list(resumed) == whole[used:]
    resumed.set_epoch(3)
    assert [[row for _, row in batch] for batch in resumed] == epoch_of(sampler, 3)


def test_a_state_of_other_batches_warns():
    state = MixedBatchSampler(40, batch_size=5).state_dict() | {"batch": 2}
    with pytest.warns(UserWarning, match="batch_size"):
        MixedBatchSampler(40, batch_size=4).load_state_dict(state)
    with pytest.warns(UserWarning, match="control"):
        MixedBatchSampler(40, batch_size=5, control=True).load_state_dict(state)


def test_a_state_from_before_there_were_controls_goes_on():
    state = MixedBatchSampler(40, batch_size=5).state_dict() | {"batch": 2}
    del state["order"]["control"], state["order"]["batches"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MixedBatchSampler(40, batch_size=5).load_state_dict(state)
    with pytest.warns(UserWarning, match="control"):
        MixedBatchSampler(40, batch_size=5, control=True).load_state_dict(state)


def test_subsets_are_counted_in_original_pairs_and_nested():
    small, large = (draw_subset(1000, 300, ratio, seed=3) for ratio in (0.1, 0.25))
    assert (len(small), len(large)) == (100, 250)
    assert set(small) < set(large)
    assert list(draw_subset(1000, 300, None, seed=3)) == list(range(300))
    assert not len(draw_subset(1000, 300, 0.0, seed=3))
    assert list(small) != list(draw_subset(1000, 300, 0.1, seed=4))


@pytest.mark.parametrize("ratio", [-0.1, 0.31, float("nan"), float("inf")])
def test_an_impossible_ratio_names_the_highest_possible(ratio):
    with pytest.raises(ConfigError, match=r"0 to 0\.3 .*`ratio`"):
        draw_subset(1000, 300, ratio, seed=0)


def test_the_highest_ratio_that_an_error_names_is_possible():
    with pytest.raises(ConfigError, match=r"0 to 0\.6666 "):
        draw_subset(3, 2, 0.9, seed=0)
    assert len(draw_subset(3, 2, 0.6666, seed=0)) == 2


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 99}, "batch_size"),
        ({"batch_size": 16, "world_size": 4}, "batch_size"),
        ({"mode": "alternate"}, "mixing"),
        ({"seed": -1}, "seed"),
        ({"synthetic_per_batch": 2}, "synthetic_per_batch"),
        ({"mode": "per_batch", "synthetic_per_batch": 5}, "synthetic_per_batch"),
        ({"mode": "per_batch", "synthetic_per_batch": 0}, "synthetic_per_batch"),
        ({"mode": "per_batch", "synthetic_per_batch": 3, "sources": np.arange(10)}, "synthetic_per_batch"),
    ],
)
def test_what_the_pairs_cannot_give_names_the_key(changes, key):
    with pytest.raises(ConfigError, match=f"`{key}`"):
        MixedBatchSampler(**{"originals": 40, "synthetic": 10, "batch_size": 5} | changes)


def test_a_run_on_originals_alone_may_keep_the_settings_of_a_mixed_one():
    sampler = MixedBatchSampler(40, 0, batch_size=5, mode="per_batch", synthetic_per_batch=2)
    assert sorted(np.concatenate(epoch_of(sampler, 0))) == list(range(40))


def test_a_coco_sized_epoch_is_laid_out_in_arrays():
    sources = np.random.default_rng(0).integers(0, 566_747, 45_467)
    sampler = MixedBatchSampler(566_747, 45_467, batch_size=256, sources=sources)
    assert len(sampler) == (566_747 + 45_467) // 256
    rows = sampler.mixing.draw(0)
    assert len(np.unique(rows)) == rows.size
    control = MixedBatchSampler(566_747, 45_467, batch_size=256, sources=sources, control=True)
    rows = control.mixing.draw(9)
    assert rows.shape == (len(sampler), 256)
    assert np.diff(np.sort(rows, axis=1)).min() > 0


@given(st.integers(0, 20), st.integers(1, 4))
def test_shards_hold_each_row_once(rows, world):
    shards = [ShardedSampler(range(rows), rank, world) for rank in range(world)]
    assert sorted(row for shard in shards for row in shard) == list(range(rows))
    assert [len(list(shard)) for shard in shards] == [len(shard) for shard in shards]

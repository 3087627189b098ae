import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.errors import ConfigError
from datamodules.group_sampling import GroupBatchSampler

GROUPS = np.repeat([0, 1, 3], [50, 6, 8])  # no image of group 2


def rows(sampler):
    return [[row for _, row in batch] for batch in sampler]


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=5).filter(lambda sizes: sum(sizes) >= 8),
    batch=st.integers(1, 4),
    seed=st.integers(0, 9),
)
def test_balanced_groups_come_equally_often_and_their_images_in_turn(sizes, batch, seed):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    seen = np.zeros(len(groups), int)
    sampler = GroupBatchSampler(groups, sampling="group_balanced", batch_size=batch, seed=seed)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        drawn = np.concatenate(rows(sampler))
        shares = np.bincount(groups[drawn], minlength=len(sizes))[np.array(sizes) > 0]
        assert len(drawn) == len(groups) // batch * batch
        assert np.ptp(shares) <= 1
        seen += np.bincount(drawn, minlength=len(groups))
    for group in range(len(sizes)):
        if sizes[group]:
            assert np.ptp(seen[groups == group]) <= 1 + 3  # one of a pass, and one that was cut off per epoch


def test_balanced_batches_mix_the_groups():
    sampler = GroupBatchSampler(GROUPS, sampling="group_balanced", batch_size=16)
    shares = [np.bincount(GROUPS[batch], minlength=4) for batch in rows(sampler)]
    assert all((share[[0, 1, 3]] > 0).all() for share in shares)
    assert sum(shares)[[0, 1, 3]].tolist() in ([21, 21, 22], [21, 22, 21], [22, 21, 21])


def test_no_two_draws_of_a_run_have_the_same_number():
    samplers = [
        GroupBatchSampler(GROUPS, sampling="group_balanced", batch_size=16, rank=rank, world_size=2) for rank in (0, 1)
    ]
    items = []
    for epoch in range(2):
        for sampler in samplers:
            sampler.set_epoch(epoch)
            items += [item for batch in sampler for item in batch]
    assert len({row for _, row in items}) < len(items) == len({number for number, _ in items}) == 128


def test_plain_sampling_has_every_image_once():
    drawn = np.concatenate(rows(GroupBatchSampler(GROUPS, batch_size=4)))
    assert sorted(drawn.tolist()) == list(range(64))


def test_errors_come_as_often_as_their_copies_say():
    copies = np.where(GROUPS == 1, 5, 1)
    drawn = np.concatenate(rows(GroupBatchSampler(GROUPS, copies=copies, batch_size=8)))
    assert len(drawn) == (58 + 30) // 8 * 8 == 88
    assert (np.bincount(drawn, minlength=64) == copies).all()


@pytest.mark.parametrize("options", [{}, {"sampling": "group_balanced"}, {"copies": np.where(GROUPS == 1, 3, 1)}])
def test_processes_share_the_epoch_and_a_resumed_one_goes_on(options):
    whole = rows(GroupBatchSampler(GROUPS, batch_size=8, seed=3, **options))
    parts = [GroupBatchSampler(GROUPS, batch_size=4, seed=3, rank=rank, world_size=2, **options) for rank in (0, 1)]
    both = [batch for part in parts for batch in rows(part)]
    assert np.array_equal(np.sort(both, axis=None), np.sort(whole, axis=None))

    first, second = (GroupBatchSampler(GROUPS, batch_size=8, seed=3, **options) for _ in range(2))
    iterator = iter(first)
    next(iterator), next(iterator)
    second.load_state_dict(first.state_dict())
    assert rows(second) == whole[2:]
    second.set_epoch(1)
    assert rows(second) != whole


def test_a_state_of_another_sampling_warns():
    sampler = GroupBatchSampler(GROUPS, batch_size=8)
    next(iter(sampler))
    with pytest.warns(UserWarning, match="sampling changed"):
        GroupBatchSampler(GROUPS, sampling="group_balanced", batch_size=8).load_state_dict(sampler.state_dict())


def test_too_few_images_for_a_batch_are_refused():
    with pytest.raises(ConfigError, match=r"^64 training images .* a batch of 65 .*data\.init_args\.batch_size"):
        GroupBatchSampler(GROUPS, sampling="group_balanced", batch_size=65)

"""The epoch plan against what it promises: every row once, for any number of ranks, also after changes."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from configs.errors import UserError
from training.feed.plan import EpochPlan, Stretch, step_counts

GROUPS = np.array([16, 16, 16, 2, 16, 16, 1, 16, 9, 16, 16, 16, 12], np.int64)


def rows_of(plan: EpochPlan, rank: int) -> list[tuple[int, int]]:
    """The rank's stream as (row group, row)."""
    stream = []
    for window in plan.windows[rank]:
        owners, rows = window.order(plan.group_rows)
        stream += [
            (window.pieces[owner][0], row) for owner, row in zip(owners.tolist(), rows.tolist(), strict=True)
        ]
    return stream


def everything(group_rows: np.ndarray) -> Counter:
    return Counter((group, row) for group, rows in enumerate(group_rows.tolist()) for row in range(rows))


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("batch", [5, 8, 64])
def test_every_row_once_and_no_rank_idle(size: int, batch: int) -> None:
    plan = EpochPlan(GROUPS, seed=3, epoch=1, size=size, batch=batch, window=4)
    found = Counter(row for rank in range(size) for row in rows_of(plan, rank))
    assert found == everything(GROUPS)
    assert plan.counts.min() >= 1
    assert plan.counts.max() <= batch
    for rank in range(size):
        assert plan.counts[:, rank].sum() == len(rows_of(plan, rank))


def test_ranks_own_their_row_groups_and_differ_by_less_than_one() -> None:
    plan = EpochPlan(np.full(50, 20), seed=0, epoch=0, size=3, batch=16, window=4)
    owners = [{group for group, _ in rows_of(plan, rank)} for rank in range(3)]
    assert not owners[0] & owners[1]
    assert not owners[0] & owners[2]
    assert not owners[1] & owners[2]
    totals = plan.counts.sum(axis=0)
    assert totals.max() - totals.min() <= 20


def test_order_is_of_seed_and_epoch_alone() -> None:
    def stream(seed: int, epoch: int) -> list[tuple[int, int]]:
        return rows_of(EpochPlan(GROUPS, seed, epoch, 2, 8, 4), 1)

    assert stream(0, 0) == stream(0, 0)
    assert stream(0, 0) != stream(0, 1)
    assert stream(0, 0) != stream(1, 0)


def test_rows_of_neighbouring_groups_are_mixed() -> None:
    groups = [group for group, _ in rows_of(EpochPlan(np.full(64, 16), 0, 0, 1, 8, 16), 0)]
    changes = sum(a != b for a, b in itertools.pairwise(groups))
    assert changes > 0.8 * len(groups)  # unmixed: 63 of 1023


@pytest.mark.parametrize(
    "history", [[(2, 8, 3)], [(2, 8, 3), (3, 8, 2)], [(1, 8, 20)], [(3, 5, 1), (1, 5, 4), (2, 5, 2)]]
)
@pytest.mark.parametrize("size", [1, 2, 3])
def test_changes_of_the_number_of_processes_lose_and_repeat_nothing(
    history: list[tuple[int, int, int]], size: int
) -> None:
    batch = history[0][1]
    read: Counter = Counter()
    done: tuple[Stretch, ...] = ()
    for processes, rows, steps in history:
        plan = EpochPlan(GROUPS, 7, 2, processes, rows, 4, done)
        for rank in range(processes):
            read.update(rows_of(plan, rank)[: int(plan.counts[:steps, rank].sum())])
        done = (*done, Stretch(processes, rows, steps))
    plan = EpochPlan(GROUPS, 7, 2, size, batch, 4, done)
    for rank in range(size):
        read.update(rows_of(plan, rank))
    assert read == everything(GROUPS)
    assert plan.left_out == 0


def test_remainder_smaller_than_the_processes_is_counted() -> None:
    groups = np.array([4, 4, 3])
    done = (Stretch(1, 5, 2),)  # 5 + 3 of 11 rows
    assert EpochPlan(groups, 0, 0, 3, 5, 2, done).counts.tolist() == [[1, 1, 1]]
    plan = EpochPlan(groups, 0, 0, 4, 5, 2, done)
    assert (plan.steps, plan.left_out) == (0, 3)


def test_batches_are_full_but_for_the_last_few() -> None:
    counts = step_counts([1000, 990, 985], 64)
    assert (counts[:-2] == 64).all()
    assert counts.sum(axis=0).tolist() == [1000, 990, 985]
    assert counts.min() >= 32


def test_fewer_row_groups_than_processes_is_an_error_with_the_mend() -> None:
    with pytest.raises(UserError, match=r"3 row groups for 4 processes.*row_group_rows"):
        EpochPlan(np.array([5, 5, 5]), 0, 0, 4, 2, 4).steps  # noqa: B018
    with pytest.raises(UserError, match="one process would have 3 rows"):
        step_counts([100, 3], 8)

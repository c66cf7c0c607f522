"""Pairs that are never trained on: which row groups they are, and what the losses are on them."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Generator, Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import torch

from configs.errors import UserError
from training import distributed
from training.feed.batches import BatchMaker
from training.feed.readers import read_groups
from training.feed.training_set import TrainingSet
from training.step import LossOptions, losses_of_rows
from training.transfer import to_device

__all__ = ["groups_held_out", "held_out_losses", "split"]

_AUTO_SHARE, _AUTO_MOST = 0.01, 40
_ROWS_AT_ONCE = 256
_STREAM = 0x48454C44
"""Apart from the seeds of the epochs' orders."""


def groups_held_out(wanted: float | str, groups: int) -> int:
    """How many row groups of a table ``train.held_out`` comes to: any share above 0 is at least one.

    Raises:
        UserError: nothing would be left to train on.
    """
    if wanted == "auto":
        return min(int(_AUTO_SHARE * groups), _AUTO_MOST)
    share = float(wanted)
    held = max(round(share * groups), 1 if share > 0 else 0)
    if held and held >= groups:
        raise UserError(
            f"train.held_out={wanted}: the training set has {groups} row groups, and none would be left to train on; "
            "rebuild it with a smaller export.row_group_rows (job export_training), or write train.held_out=0"
        )
    return held


def split(data: TrainingSet, held: int, seed: int) -> tuple[TrainingSet, TrainingSet]:
    """The row groups to train on, and ``held`` others: a function of the table, their number and the seed."""
    order = np.random.default_rng([seed, _STREAM]).permutation(len(data.groups))
    apart = np.zeros(len(data.groups), bool)
    apart[order[:held]] = True
    return _part(data, ~apart), _part(data, apart)


def _part(data: TrainingSet, chosen: np.ndarray) -> TrainingSet:
    groups = [group for group, inside in zip(data.groups, chosen.tolist(), strict=True) if inside]
    return replace(data, groups=groups, rows=sum(group.rows for group in groups))


def held_out_losses(
    model: torch.nn.Module, held: TrainingSet, reader: str, maker: BatchMaker, options: LossOptions
) -> np.ndarray:
    """float64 (3,): total, caption and multi-label loss, means over the held-out pairs; the same on every rank.

    In evaluation mode: no augmentation (``maker`` sees to it), no noise, batch norm by its running statistics. Each row
    group is cut into batches of at most 256 pairs, which are contrasted among themselves, whatever the number of
    processes: each takes every ``size``-th group.
    """
    sums = torch.zeros(4, dtype=torch.float64)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        own = replace(held, groups=held.groups[distributed.rank() :: distributed.size()])
        with torch.no_grad(), contextlib.closing(maker.batches(_cut(own, reader), 0)) as batches:
            for batch in batches:
                losses = losses_of_rows(model, to_device(batch, device), options)  # type: ignore[arg-type]
                rows = len(batch.keys)
                sums[:3] += rows * losses.double().cpu()
                sums[3] += rows
    finally:
        model.train(was_training)
    distributed.sum_(sums, "held_out")
    return (sums[:3] / sums[3]).numpy()


def _cut(held: TrainingSet, reader: str) -> Iterator[pa.Table]:
    """Row groups in batches of like size."""
    tables = read_groups(reader, held.groups, held.columns)
    try:
        for table in tables:
            pieces = -(-table.num_rows // _ROWS_AT_ONCE)
            edges = np.linspace(0, table.num_rows, pieces + 1).astype(int)
            for start, end in itertools.pairwise(edges.tolist()):
                yield table.slice(start, end - start)
    finally:
        if isinstance(tables, Generator):
            tables.close()

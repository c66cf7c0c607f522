"""A rank's batches of rows, in the order of the plan."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from training.feed.plan import EpochPlan, Window
from training.feed.readers import read_groups
from training.feed.training_set import TrainingSet

__all__ = ["rank_tables"]


def rank_tables(
    data: TrainingSet, plan: EpochPlan, rank: int, reader: str, skip: int = 0
) -> Iterator[pa.Table]:
    """The rows of each step of ``rank``, from step ``skip`` on; row groups before that are not read.

    Raises:
        UserError: as :func:`training.feed.readers.read_groups`.
    """
    counts = plan.counts[:, rank]
    windows, offset = _seek(plan.windows[rank], int(counts[:skip].sum()))
    groups = [data.groups[group] for window in windows for group, _ in window.pieces]
    with contextlib.closing(read_groups(reader, groups, data.columns)) as source:
        shuffled = _shuffled(windows, source, plan.group_rows, offset)
        rest: pa.Table | None = None
        for count in counts[skip:].tolist():
            while rest is None or rest.num_rows < count:
                more = next(shuffled)
                rest = more if rest is None or not rest.num_rows else pa.concat_tables([rest, more])
            yield rest.slice(0, count)
            rest = rest.slice(count)


def _seek(windows: list[Window], rows: int) -> tuple[list[Window], int]:
    """The windows from the one that holds row ``rows`` of the stream on, and the row's place in it."""
    for place, window in enumerate(windows):
        if rows < window.rows:
            return windows[place:], rows
        rows -= window.rows
    return [], 0


_PIECE = 1024
"""Rows gathered at a time: a window of large pictures is not held twice."""


def _shuffled(
    windows: list[Window], source: Iterator[pa.Table], group_rows: np.ndarray, offset: int
) -> Iterator[pa.Table]:
    for window in windows:
        tables = [next(source) for _ in window.pieces]
        starts = np.cumsum([0, *(table.num_rows for table in tables[:-1])])
        joined = pa.concat_tables(tables).combine_chunks()
        owners, rows = window.order(group_rows)
        places = (starts[owners] + rows)[offset:]
        offset = 0
        for start in range(0, len(places), _PIECE):
            yield joined.take(pa.array(places[start : start + _PIECE]))

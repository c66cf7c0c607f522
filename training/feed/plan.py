"""Who reads which rows when: an epoch as a function of (seed, epoch, processes), computed without any data.

An epoch is a random order of all row groups, dealt out to the ranks so that they hold nearly the same number of
rows. Each rank goes through its row groups in windows of a few whose rows are shuffled together, and takes its
batches from that stream. Every row comes once an epoch.

When the number of processes changes inside an epoch, what was done so far is a **stretch**: (processes, batch
size, steps). The rows that no rank had reached are dealt out again. A checkpoint needs to hold nothing but the
stretches to know which rows were read.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from configs.errors import UserError

__all__ = ["EpochPlan", "Stretch", "Window", "step_counts"]

Piece = tuple[int, np.ndarray | None]
"""A row group by its place in the table, and which of its rows (None: all)."""


@dataclass(frozen=True)
class Stretch:
    """Steps done with one number of processes."""

    size: int
    batch: int
    steps: int


@dataclass(frozen=True)
class Window:
    """Row groups read together, and the order their rows are taken in."""

    pieces: tuple[Piece, ...]
    seed: tuple[int, ...]
    rows: int

    def order(self, group_rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Place of the piece in ``pieces`` and row in the row group, int64 (rows,) each, shuffled."""
        numbers = [
            np.arange(group_rows[group]) if chosen is None else chosen for group, chosen in self.pieces
        ]
        owners = np.repeat(np.arange(len(numbers)), [len(part) for part in numbers])
        mixed = np.random.default_rng([*self.seed, self.pieces[0][0]]).permutation(self.rows)
        return owners[mixed], np.concatenate(numbers)[mixed]


@dataclass(frozen=True)
class EpochPlan:
    """The rest of an epoch for ``size`` processes, after the stretches of ``done``."""

    group_rows: np.ndarray
    """int64: rows of each row group, in the order of the table"""
    seed: int
    epoch: int
    size: int
    batch: int
    """rows of one rank in a step, at most"""
    window: int
    """row groups shuffled together"""
    done: tuple[Stretch, ...] = ()

    @property
    def steps(self) -> int:
        """Steps that are left."""
        return len(self.counts)

    @cached_property
    def counts(self) -> np.ndarray:
        """int64 (steps, size): rows of each rank in each step; between 1 and ``batch``."""
        rows = [sum(window.rows for window in windows) for windows in self.windows]
        return step_counts(rows, self.batch) if min(rows) else np.zeros((0, self.size), np.int64)

    @cached_property
    def left_out(self) -> int:
        """Rows at the end of a disturbed epoch that are fewer than the processes, and stay unread in it."""
        return sum(len_rows(piece, self.group_rows) for piece in self._pieces) - int(self.counts.sum())

    @cached_property
    def windows(self) -> list[list[Window]]:
        """What each rank reads, in order."""
        pieces = self._pieces
        if self.done:  # little may be left: share it out by rows rather than by whole groups
            pieces = _split(pieces, self.group_rows, 4 * self.size)
        elif len(pieces) < self.size:
            raise UserError(
                f"the training set has {len(pieces)} row groups for {self.size} processes; start fewer processes, "
                "or rebuild it with a smaller export.row_group_rows (job export_training)"
            )
        seed = (self.seed, self.epoch, len(self.done))
        dealt = _deal(pieces, self.group_rows, self.size, seed)
        return [
            [
                self._window(own[start : start + self.window], seed)
                for start in range(0, len(own), self.window)
            ]
            for own in dealt
        ]

    def _window(self, pieces: list[Piece], seed: tuple[int, ...]) -> Window:
        return Window(tuple(pieces), seed, sum(len_rows(piece, self.group_rows) for piece in pieces))

    @cached_property
    def _pieces(self) -> list[Piece]:
        """Unread pieces at the start of this stretch."""
        if not self.done:
            return [(group, None) for group in range(len(self.group_rows))]
        *before, last = self.done
        earlier = EpochPlan(
            self.group_rows, self.seed, self.epoch, last.size, last.batch, self.window, tuple(before)
        )
        taken = earlier.counts[: last.steps].sum(axis=0)
        return [
            piece
            for rank, windows in enumerate(earlier.windows)
            for piece in _unread(windows, int(taken[rank]), self.group_rows)
        ]


def len_rows(piece: Piece, group_rows: np.ndarray) -> int:
    """Rows of a piece."""
    group, chosen = piece
    return int(group_rows[group]) if chosen is None else len(chosen)


def step_counts(rows: Sequence[int], batch: int) -> np.ndarray:
    """How many rows each rank takes in each step: the same number of steps for all, nobody ever without rows.

    Batches are full but for the last few steps, over which what ranks lack is spread, so that the last batch
    of an epoch is never a few rows among the others' hundreds.

    Returns:
        int64 (steps, ranks).

    Raises:
        UserError: a rank has fewer rows than there are steps.
    """
    steps = max(math.ceil(own / batch) for own in rows)
    if min(rows) < steps:
        raise UserError(
            f"one process would have {min(rows)} rows and another {max(rows)}, which is {steps} steps of "
            f"{batch}; rebuild the training set with a smaller export.row_group_rows, or start fewer processes"
        )
    lacking = [steps * batch - own for own in rows]
    least = max(1, batch // 2)
    tail = steps if batch == least else min(steps, max(1, math.ceil(max(lacking) / (batch - least))))
    counts = np.full((steps, len(rows)), batch, np.int64)
    for rank, lack in enumerate(lacking):
        edges = np.arange(tail + 1) * (tail * batch - lack) // tail
        counts[steps - tail :, rank] = np.diff(edges)
    return counts


def _deal(pieces: list[Piece], group_rows: np.ndarray, size: int, seed: tuple[int, ...]) -> list[list[Piece]]:
    """Pieces in random order, each to the rank with the fewest rows so far."""
    order = np.random.default_rng(seed).permutation(len(pieces))
    hands: list[list[Piece]] = [[] for _ in range(size)]
    heap = [(0, rank) for rank in range(size)]
    for place in order.tolist():
        rows, rank = heap[0]
        hands[rank].append(pieces[place])
        heapq.heapreplace(heap, (rows + len_rows(pieces[place], group_rows), rank))
    return hands


def _split(pieces: list[Piece], group_rows: np.ndarray, least: int) -> list[Piece]:
    """The same rows in at least ``least`` pieces, where there are that many rows."""
    if len(pieces) >= least:
        return pieces
    parts = math.ceil(least / max(len(pieces), 1))
    split = []
    for group, chosen in pieces:
        rows = np.arange(group_rows[group]) if chosen is None else chosen
        split.extend((group, part) for part in np.array_split(rows, parts) if len(part))
    return split


def _unread(windows: list[Window], taken: int, group_rows: np.ndarray) -> list[Piece]:
    """What is left of a rank's windows after its first ``taken`` rows."""
    left: list[Piece] = []
    for window in windows:
        if taken >= window.rows:
            taken -= window.rows
            continue
        if taken == 0:
            left.extend(window.pieces)
            continue
        owners, rows = (part[taken:] for part in window.order(group_rows))
        left.extend(
            (window.pieces[owner][0], np.sort(rows[owners == owner])) for owner in np.unique(owners).tolist()
        )
        taken = 0
    return left

"""Ragged lists of numbers as two flat arrays, the form all of curation computes on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

__all__ = ["Csr", "concatenate", "ragged_slots"]


def ragged_slots(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Positions ``starts[i], ..., starts[i] + lengths[i] - 1`` of every i in one int64 array.

    Without a loop: positions inside a run count up from the run's own beginning in the output.
    """
    total = int(lengths.sum())
    ends = np.cumsum(lengths)
    return np.arange(total, dtype=np.int64) + np.repeat(
        np.asarray(starts, np.int64) - (ends - lengths), lengths
    )


@dataclass(frozen=True)
class Csr:
    """n lists: list i is ``values[offsets[i]:offsets[i + 1]]``; offsets int64 (n + 1,)."""

    offsets: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """int64 (n,)."""
        return np.diff(self.offsets)

    def gather(self, rows: np.ndarray) -> Csr:
        """The lists of ``rows`` (any shape, flattened); row -1 gives an empty list."""
        chosen = np.asarray(rows, dtype=np.int64).ravel()
        safe = np.maximum(chosen, 0)
        lengths = np.where(chosen >= 0, self.offsets[safe + 1] - self.offsets[safe], 0)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        return Csr(offsets, self.values[ragged_slots(self.offsets[safe], lengths)])

    def row_ids(self) -> np.ndarray:
        """For every value the number of its list, int64."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.lengths)

    def to_lists(self) -> list[list[int]]:
        """Python lists, for tests and messages."""
        return [
            self.values[start:end].tolist()
            for start, end in zip(self.offsets[:-1], self.offsets[1:], strict=True)
        ]

    def to_list_array(self) -> pa.ListArray:
        """As Arrow list<value>; the values are not copied."""
        if len(self.values) > np.iinfo(np.int32).max:
            raise ValueError(
                f"{len(self.values)} values do not fit one Arrow list array; use smaller batches"
            )
        return pa.ListArray.from_arrays(pa.array(self.offsets.astype(np.int32)), pa.array(self.values))

    @staticmethod
    def from_list_array(column: pa.ListArray | pa.ChunkedArray) -> Csr:
        """From an Arrow list column; null lists are empty."""
        if isinstance(column, pa.ChunkedArray):
            return concatenate(
                [Csr.from_list_array(chunk) for chunk in column.chunks] or [Csr.from_lists([])]
            )
        if column.null_count:
            column = column.fill_null([])
        # A sliced array keeps its parent's values: offsets count from there.
        offsets = column.offsets.to_numpy().astype(np.int64)
        values = column.values.to_numpy(zero_copy_only=False)[offsets[0] : offsets[-1]]
        return Csr(offsets - offsets[0], values)

    @staticmethod
    def from_lists(lists: Iterable[Sequence[int]], dtype: np.typing.DTypeLike = np.int32) -> Csr:
        """From Python lists."""
        chosen = [list(item) for item in lists]
        offsets = np.cumsum([0, *(len(item) for item in chosen)], dtype=np.int64)
        return Csr(offsets, np.array([value for item in chosen for value in item], dtype=dtype))


def concatenate(parts: Sequence[Csr]) -> Csr:
    """The lists of several, one after the other."""
    shifts = np.cumsum([0, *(part.offsets[-1] for part in parts)])
    offsets = [part.offsets[1:] + shift for part, shift in zip(parts, shifts[:-1], strict=True)]
    return Csr(
        np.concatenate([np.zeros(1, np.int64), *offsets]),
        np.concatenate([part.values for part in parts]) if parts else np.zeros(0, np.int32),
    )

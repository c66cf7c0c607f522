"""Which index to build: a pure decision from the number of vectors and a budget of memory."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from configs.errors import UserError

__all__ = ["IndexSpec", "choose_index", "flat_lists", "row_bytes", "split_lists"]

# Up to here comparing a query with every vector costs no more than the inverted lists would, and recall is 1
# without a measurement.
EXACT_ROWS = 10_000
KINDS = ("auto", "flat", "ivf")
TRAINED_ON = 48  # vectors of the sample a list: k-means asks for 39
_ROW_BYTES = 8  # beside every vector stands which row it is
_FLAT_LISTS = 1024  # "lists" of an exact index, which only say where it can be cut: always the same, so that it can grow


@dataclass(frozen=True)
class IndexSpec:
    """What is built: ``rows`` fp16 vectors of dimension ``d`` in lists, and these in ``splits``.

    Attributes:
        kind: flat (every list is visited: exact) or ivf (inverted lists: those near a query are).
        nlist: lists.
        splits: runs of lists; each of them keeps within the budget of memory.
        reason: the decision in words, for the log and index.json.
    """

    kind: str
    d: int
    rows: int
    nlist: int
    splits: int
    reason: str

    @property
    def sample_rows(self) -> int:
        """Vectors to train with, where nobody says how many."""
        return 0 if self.kind == "flat" else min(self.rows, TRAINED_ON * self.nlist)

    def to_dict(self) -> dict[str, Any]:
        """For index.json."""
        return asdict(self)


def choose_index(
    rows: int, d: int, memory_gb: float = 8.0, kind: str = "auto", nlist: int = 0, train_rows: int = 0
) -> IndexSpec:
    """Decide kind, lists and splits.

    ``auto`` is exact search while that is cheap, else inverted lists. What exceeds the budget is split.

    Args:
        rows: vectors to index, at least 1.
        d: their dimension.
        memory_gb: what a host may give to the vectors that it searches at a time.
        kind: auto, flat or ivf.
        nlist: inverted lists; 0: 4 sqrt(rows), no more than a sample of ``train_rows`` can place.
        train_rows: size of the training sample; 0: what the lists need.

    Raises:
        UserError: an unknown kind, nothing to index, or a budget that is not positive.
    """
    if kind not in KINDS:
        raise UserError(f"index.kind is {kind!r}; write one of {', '.join(KINDS)}")
    if rows < 1:
        raise UserError("there is nothing to index: image_embeddings has no rows; run embed_images first")
    if not memory_gb > 0:
        raise UserError(f"index.memory_gb is {memory_gb}; write the GB a host may use, for example 8")
    chosen = kind if kind != "auto" else "flat" if rows <= EXACT_ROWS else "ivf"
    needed = rows * row_bytes(d)
    splits = min(rows, math.ceil(needed / (memory_gb * 1e9)))
    if chosen == "flat":
        lists = _FLAT_LISTS
    else:
        lists = min(nlist or _default_lists(rows, train_rows), rows)
    splits = min(splits, lists)
    how = "asked for" if kind != "auto" else "chosen"
    reason = (
        f"{chosen} {how}: {rows} x {d} needs {needed / 1e9:.2f} GB, "
        f"budget {memory_gb:g} GB a host, {splits} split{'s' if splits > 1 else ''}"
    )
    return IndexSpec(chosen, d, rows, lists, splits, reason)


def split_lists(sizes: np.ndarray, splits: int) -> list[tuple[int, int]]:
    """First and last + 1 list of each split: about as many vectors in each, at least one list.

    Args:
        sizes: int64 (m,), vectors of every list; m >= ``splits``.
    """
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    edges = np.searchsorted(ends, ends[-1] * np.arange(splits + 1) // splits)
    for number in range(1, splits):  # every split has a list, also where most lists are empty
        edges[number] = min(max(edges[number], edges[number - 1] + 1), len(sizes) - splits + number)
    edges[0], edges[-1] = 0, len(sizes)
    return [(int(first), int(last)) for first, last in pairwise(edges)]


def flat_lists(count: int) -> np.ndarray:
    """The "lists" of a segment of an exact index with so many rows: equal runs of them, int32 (count,)."""
    return (np.arange(count) * _FLAT_LISTS // max(1, count)).astype(np.int32)


def row_bytes(d: int) -> int:
    """Bytes of a vector in the index: fp16, and its row."""
    return 2 * d + _ROW_BYTES


def _default_lists(rows: int, train_rows: int) -> int:
    """4 sqrt(rows), as long as the sample has the 39 vectors a list that k-means asks for."""
    return max(1, min(round(4 * math.sqrt(rows)), min(rows, train_rows or rows) // 39))

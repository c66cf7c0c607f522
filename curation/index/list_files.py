"""Vectors that come in the order of their rows, written in the order of their lists.

An index of 27 million vectors does not pass through memory: what comes is sorted in runs of 262,144 rows
(268 MB for 512 dimensions), each kept on disk, and every list is put together from its pieces in all runs.
Both are read and written from front to back.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from curation.index.array_files import ArrayFile

__all__ = ["ListFiles"]

_RUN_ROWS = 262_144
_BLOCK_ROWS = 65_536


class ListFiles:
    """Collects vectors and their lists; writes the files of any run of lists.

    Args:
        folder: where ``runs`` is kept meanwhile.
        nlist: lists.
        d: dimension.
    """

    def __init__(self, folder: Path, nlist: int, d: int) -> None:
        self._folder, self._nlist, self._d = folder / "runs", nlist, d
        self._folder.mkdir()
        self._offsets: list[np.ndarray] = []
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []
        self._rows = self._waiting_rows = 0

    def add(self, vectors: np.ndarray, lists: np.ndarray) -> None:
        """The next rows: vectors (n, d) float16 and the list of each, int32 (n,)."""
        if len(vectors) != len(lists):
            raise ValueError(f"{len(vectors)} vectors came with the lists of {len(lists)}")
        self._waiting.append((vectors, lists))
        self._waiting_rows += len(vectors)
        if self._waiting_rows >= _RUN_ROWS:
            self._flush()

    def sizes(self) -> np.ndarray:
        """Vectors of every list, int64 (nlist,)."""
        self._flush()
        return sum((np.diff(offsets) for offsets in self._offsets), np.zeros(self._nlist, np.int64))

    def write(self, folder: Path, first: int, last: int) -> None:
        """``vectors.npy``, ``rows.npy`` and ``list_offsets.npy`` of lists ``first`` to ``last`` - 1."""
        sizes = self.sizes()[first:last]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        np.save(folder / "list_offsets.npy", offsets)
        vectors = ArrayFile(folder / "vectors.npy", np.float16, self._d)
        rows = ArrayFile(folder / "rows.npy", np.int64)
        for begin, end in _blocks(offsets, first):
            for array, values in zip((vectors, rows), self._gathered(begin, end), strict=True):
                array.append(values)
        vectors.close()
        rows.close()

    def remove(self) -> None:
        """The runs, when all is written."""
        shutil.rmtree(self._folder)

    def _flush(self) -> None:
        """What waits becomes a run, in the order of lists, then rows."""
        if not self._waiting:
            return
        vectors, lists = (np.concatenate([pair[side] for pair in self._waiting]) for side in (0, 1))
        order = np.argsort(lists, kind="stable")
        number = len(self._offsets)
        np.save(self._folder / f"{number:05d}-vectors.npy", vectors[order])
        np.save(self._folder / f"{number:05d}-rows.npy", order + self._rows)
        counts = np.bincount(lists, minlength=self._nlist)
        self._offsets.append(np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]))
        self._rows += len(vectors)
        self._waiting, self._waiting_rows = [], 0

    def _gathered(self, begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Vectors and rows of lists ``begin`` to ``end`` - 1 from all runs."""
        pieces = [slice(offsets[begin], offsets[end]) for offsets in self._offsets]
        numbers = [
            np.repeat(np.arange(begin, end), np.diff(offsets[begin : end + 1])) for offsets in self._offsets
        ]
        order = np.argsort(np.concatenate(numbers), kind="stable")  # runs are in the order of rows
        return tuple(
            np.concatenate(
                [np.load(self._folder / f"{number:05d}-{name}.npy", mmap_mode="r")[piece] for number, piece in enumerate(pieces)]
            )[order]
            for name in ("vectors", "rows")
        )  # fmt: skip


def _blocks(offsets: np.ndarray, first: int) -> Iterator[tuple[int, int]]:
    """Runs of lists with about ``_BLOCK_ROWS`` vectors, at least one list each."""
    begin = 0
    while begin < len(offsets) - 1:
        end = int(np.searchsorted(offsets, offsets[begin] + _BLOCK_ROWS, side="right")) - 1
        end = min(len(offsets) - 1, max(begin + 1, end))
        yield first + begin, first + end
        begin = end

"""Inverted lists searched list by list: one matrix product for all queries that visit a list.

The queries of a unit are all known, so they are ordered by the lists they visit. A list's vectors are read
once, converted to fp32 in a block that stays in cache, and multiplied with its queries. What is at least as
similar as a query's k-th best so far becomes a candidate; candidates are thinned out now and then, and the
k-th best rises. No depth is guessed: every vector that ties with the last wanted one is a candidate as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

__all__ = ["Candidates", "Lists", "best_first", "scan_all", "scan_lists"]

MAX_TIES = 1024  # candidates kept of a query, should more than that tie with its last wanted one
_TIE = 1e-5  # products closer than this may come in another order in a product of another shape
_BUFFERED = 1 << 22  # candidates of all queries, or twice those wanted, before they are thinned out
_PRODUCTS = 1 << 22  # computed at a time
_LEAST_ROWS = 256  # compared at a time, however many the queries
_SCANNED = 4096  # rows that every query sees first where all are compared


@dataclass(frozen=True)
class Lists:
    """Vectors in the order of their lists.

    Attributes:
        vectors: (n, d) float16, list after list; within a list in the order of ``rows``.
        offsets: int64 (m + 1,), where each of the m lists begins.
        rows: int64 (n,), the row of the index that is at each place.
    """

    vectors: np.ndarray
    offsets: np.ndarray
    rows: np.ndarray

    def put_products(self, vector: np.ndarray, products: np.ndarray) -> None:
        """``vector`` (d,) times every vector, into ``products`` at the vector's row."""
        for start in range(0, len(self.rows), _SCANNED):
            block = self.vectors[start : start + _SCANNED].astype(np.float32)
            products[self.rows[start : start + _SCANNED]] = np.einsum("md,d->m", block, vector)


@dataclass(frozen=True)
class Candidates:
    """Places worth looking at: parallel arrays, sorted by query, then most similar first.

    Attributes:
        queries, places: int64 (c,).
        similarities: float32 (c,), right to about 1e-6.
    """

    queries: np.ndarray
    places: np.ndarray
    similarities: np.ndarray


def scan_lists(lists: Lists, queries: np.ndarray, visits: np.ndarray, wanted: int) -> Candidates:
    """All candidates for the ``wanted`` most similar vectors in the lists that each query visits.

    Args:
        lists: where to look.
        queries: (B, d) float32.
        visits: (B, p) numbers of lists, nearest first, -1 for none.
        wanted: k.
    """
    found = _Found(queries, wanted)
    near = _first_visits(lists, visits, wanted)
    for chosen, first in ((visits[:, :near], True), (visits[:, near:], False)):
        for number, asking in _by_list(chosen):
            found.compare(lists, int(lists.offsets[number]), int(lists.offsets[number + 1]), asking, first)
        found.thin_out()
    return found.candidates()


def scan_all(lists: Lists, queries: np.ndarray, wanted: int) -> Candidates:
    """The same where every query visits everything: exact search."""
    found = _Found(queries, wanted)
    everyone = np.arange(len(queries))
    begun = min(len(lists.vectors), max(_SCANNED, 8 * wanted))
    found.compare(lists, 0, begun, everyone, first=True)
    found.thin_out()
    found.compare(lists, begun, len(lists.vectors), everyone, first=False)
    return found.candidates()


def best_first(queries: np.ndarray, similarities: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The order by query, then falling similarity, then row.

    Query and similarity are put into one integer, which NumPy sorts many times faster than two columns.

    Args:
        queries: int64 (c,), below 2^31.
        similarities: float32 (c,).
        rows: int64 (c,).
    """
    bits = (similarities + np.float32(0)).view(np.uint32)  # + 0: -0 is 0
    rising = bits ^ np.where(bits >> 31, np.uint32(0xFFFFFFFF), np.uint32(0x80000000))
    codes = (queries.astype(np.uint64) << np.uint64(32)) | ~rising
    order = np.argsort(codes)
    ordered = codes[order]
    if (ordered[1:] == ordered[:-1]).any():
        order = np.lexsort((rows, codes))
    return order


class _Found:
    """Candidates as they are collected, and the least similarity that still matters to each query."""

    def __init__(self, queries: np.ndarray, wanted: int) -> None:
        self.queries, self.wanted = queries, wanted
        self.least = np.full(len(queries), -np.inf, np.float32)
        self._memory: dict[str, np.ndarray] = {}
        self._kept: list[Candidates] = []
        self._count = 0

    def compare(self, lists: Lists, start: int, end: int, asking: np.ndarray, first: bool) -> None:
        """Queries ``asking`` with the vectors at places ``start`` to ``end``.

        ``first``: little is known of the least similarity yet, so it is taken from these vectors.
        """
        step = max(_LEAST_ROWS, 8 * self.wanted, _PRODUCTS // max(1, len(asking)))
        for begin in range(start, end, step):
            self._compare(lists, begin, min(end, begin + step), asking, first)

    def _compare(self, lists: Lists, start: int, end: int, asking: np.ndarray, first: bool) -> None:
        products = self._products_of(asking, lists.vectors[start:end])
        if first and end - start > self.wanted:
            kth = np.partition(products, end - start - self.wanted, axis=1)[:, end - start - self.wanted]
            self.least[asking] = np.maximum(self.least[asking], kth - _TIE)
        # Few are true: flatnonzero, which counts first, is ten times as fast as nonzero.
        near = np.flatnonzero(products >= self.least[asking][:, None])
        which, where = np.divmod(near, end - start)
        self._kept.append(Candidates(asking[which], where + start, products.ravel()[near]))
        self._count += len(near)
        if self._count > max(_BUFFERED, 2 * self.wanted * len(self.queries)):
            self.thin_out()

    def thin_out(self) -> None:
        """Forget what cannot be among the wanted any more."""
        all_of = self._joined()
        order = best_first(all_of.queries, all_of.similarities, all_of.places)
        queries, similar = all_of.queries[order], all_of.similarities[order]
        begins = np.searchsorted(queries, np.arange(len(self.queries) + 1))
        full = np.flatnonzero(np.diff(begins) >= self.wanted)
        kth = similar[begins[full] + self.wanted - 1] - _TIE
        self.least[full] = np.maximum(self.least[full], kth)
        place_in_query = np.arange(len(order)) - begins[queries]
        keep = (similar >= self.least[queries]) & (place_in_query < max(MAX_TIES, 2 * self.wanted))
        kept = order[keep]
        self._kept = [Candidates(queries[keep], all_of.places[kept], similar[keep])]
        self._count = len(kept)

    def candidates(self) -> Candidates:
        """What is left after all."""
        self.thin_out()
        return self._kept[0]

    def _joined(self) -> Candidates:
        empty = Candidates(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
        parts = self._kept or [empty]
        return Candidates(
            np.concatenate([part.queries for part in parts]),
            np.concatenate([part.places for part in parts]),
            np.concatenate([part.similarities for part in parts]),
        )

    def _products_of(self, asking: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """Queries ``asking`` times ``vectors``, all in memory that the next call uses again."""
        d = vectors.shape[1]
        asked, block = self._taken("asked", len(asking), d), self._taken("block", len(vectors), d)
        np.take(self.queries, asking, axis=0, out=asked, mode="clip")  # other modes copy twice
        np.copyto(block, vectors)
        return np.matmul(asked, block.T, out=self._taken("products", len(asking), len(vectors)))

    def _taken(self, name: str, rows: int, columns: int) -> np.ndarray:
        """float32 (rows, columns) with anything in it: fresh pages would cost as much as what is put there."""
        if name not in self._memory or self._memory[name].size < rows * columns:
            self._memory[name] = np.empty(rows * columns, np.float32)
        return self._memory[name][: rows * columns].reshape(rows, columns)


def _first_visits(lists: Lists, visits: np.ndarray, wanted: int) -> int:
    """How many of the nearest lists hold twice as many vectors as are wanted, as a rule."""
    mean = len(lists.vectors) / max(1, len(lists.offsets) - 1)
    return int(min(visits.shape[1], max(1, np.ceil(2 * wanted / max(mean, 1)))))


def _by_list(visits: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Every list that is visited, with its queries in rising order."""
    flat = visits.ravel()
    order = np.argsort(flat, kind="stable")
    numbers = flat[order]
    order = order[np.searchsorted(numbers, 0) :]
    numbers = numbers[len(numbers) - len(order) :]
    begins = np.flatnonzero(np.diff(numbers, prepend=-1))
    for begin, end in pairwise([*begins.tolist(), len(order)]):
        yield int(numbers[begin]), order[begin:end] // visits.shape[1]

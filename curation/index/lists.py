"""Inverted lists searched list by list: one matrix product for all queries that visit a list.

The queries of a unit are all known, so they are ordered by the lists they visit. A list's vectors are read
once, converted to fp32 in a block that stays in cache, and multiplied with its queries. What is at least as
similar as a query's k-th best so far becomes a candidate; candidates are thinned out now and then, and the
k-th best rises. No depth is guessed: every vector that ties with the last wanted one is a candidate as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from curation.products import row_products

__all__ = ["Candidates", "Lists", "Segment", "best_first", "blocks", "by_list", "scan_all", "scan_lists"]

MAX_TIES = 1024  # candidates kept of a query, should more than that tie with its last wanted one
_TIE = 1e-5  # products closer than this may come in another order in a product of another shape
_BUFFERED = 1 << 22  # candidates of all queries, or twice those wanted, before they are thinned out
_PRODUCTS = 1 << 22  # computed at a time
_LEAST_ROWS = 256  # compared at a time, however many the queries
_SCANNED = 4096  # rows that every query sees first where all are compared


@dataclass(frozen=True)
class Segment:
    """Vectors of some of the rows, in the order of their lists.

    Attributes:
        vectors: (n, d) float16, list after list; within a list in the order of ``rows``.
        offsets: int64 (m + 1,), where each of the m lists begins.
        rows: int64 (n,), the row of the index that is at each place.
    """

    vectors: np.ndarray
    offsets: np.ndarray
    rows: np.ndarray


@dataclass(frozen=True)
class Lists:
    """Inverted lists whose vectors lie in one segment or several, which all have the same lists.

    A place is the number of a vector where the segments follow one another.
    """

    segments: tuple[Segment, ...]

    @cached_property
    def starts(self) -> np.ndarray:
        """First place of each segment and the number of all, int64 (segments + 1,)."""
        return np.cumsum([0, *(len(segment.rows) for segment in self.segments)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def count(self) -> int:
        """How many lists there are."""
        return len(self.segments[0].offsets) - 1

    def pieces(self, number: int) -> list[tuple[int, int]]:
        """Where the vectors of a list are: first and last + 1 place in each segment that has some."""
        return [
            (start + int(segment.offsets[number]), start + int(segment.offsets[number + 1]))
            for start, segment in zip(self.starts.tolist(), self.segments, strict=False)
            if segment.offsets[number] < segment.offsets[number + 1]
        ]

    def between(self, start: int, end: int) -> list[tuple[int, int]]:
        """Places ``start`` to ``end`` - 1, cut where a segment ends."""
        cut = [max(start, min(end, int(place))) for place in self.starts]
        return [(first, last) for first, last in pairwise(cut) if first < last]

    def vectors_between(self, start: int, end: int) -> np.ndarray:
        """The vectors at places ``start`` to ``end`` - 1, which lie in one segment: float16, not copied."""
        number = int(np.searchsorted(self.starts, start, side="right")) - 1
        first = int(self.starts[number])
        return self.segments[number].vectors[start - first : end - first]

    def rows_at(self, places: np.ndarray) -> np.ndarray:
        """The rows at places (c,), int64."""
        rows = np.empty(len(places), np.int64)
        for segment, chosen, inside in self._by_segment(places):
            rows[chosen] = segment.rows[inside]
        return rows

    def places_of(self, rows: np.ndarray) -> np.ndarray:
        """The places at which any of ``rows`` are, rising, int64; rows that lie in other lists are passed over."""
        found = [
            np.flatnonzero(np.isin(segment.rows, rows)) + start
            for start, segment in zip(self.starts, self.segments, strict=False)
        ]
        return np.concatenate(found)

    def vectors_at(self, places: np.ndarray) -> np.ndarray:
        """The vectors at places (c,): float32 (c, d)."""
        vectors = np.empty((len(places), self.segments[0].vectors.shape[1]), np.float32)
        for segment, chosen, inside in self._by_segment(places):
            vectors[chosen] = segment.vectors[inside]
        return vectors

    def lists_at(self, places: np.ndarray) -> np.ndarray:
        """The list that each of places (c,) belongs to, int64."""
        numbers = np.empty(len(places), np.int64)
        for segment, chosen, inside in self._by_segment(places):
            numbers[chosen] = np.searchsorted(segment.offsets, inside, side="right") - 1
        return numbers

    def products(self, queries: np.ndarray, asking: np.ndarray, places: np.ndarray) -> np.ndarray:
        """``queries[asking[i]]`` times the vector at ``places[i]``, each on its own: float32 (c,)."""
        products = np.empty(len(places), np.float32)
        for segment, chosen, inside in self._by_segment(places):
            products[chosen] = row_products(queries, asking[chosen], segment.vectors, inside)
        return products

    def put_products(self, vector: np.ndarray, products: np.ndarray) -> None:
        """``vector`` (d,) times every vector, into ``products`` at the vector's row."""
        for segment in self.segments:
            for start in range(0, len(segment.rows), _SCANNED):
                block = segment.vectors[start : start + _SCANNED].astype(np.float32)
                products[segment.rows[start : start + _SCANNED]] = np.einsum("md,d->m", block, vector)

    def _by_segment(self, places: np.ndarray) -> Iterator[tuple[Segment, np.ndarray | slice, np.ndarray]]:
        """Each segment with the numbers of the places that lie in it, and these places within it."""
        if len(self.segments) == 1:
            yield self.segments[0], slice(None), places
            return
        numbers = np.searchsorted(self.starts, places, side="right") - 1
        for number, segment in enumerate(self.segments):
            chosen = np.flatnonzero(numbers == number)
            if len(chosen):
                yield segment, chosen, places[chosen] - self.starts[number]


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


def scan_lists(
    lists: Lists, queries: np.ndarray, visits: np.ndarray, wanted: int, least: np.ndarray | None = None
) -> Candidates:
    """All candidates for the ``wanted`` most similar vectors in the lists that each query visits.

    Args:
        lists: where to look.
        queries: (B, d) float32.
        visits: (B, p) numbers of lists, nearest first, -1 for none.
        wanted: k.
        least: float32 (B,), what is less similar than this is not wanted; -inf, or None: anything may be.
    """
    found = _Found(queries, wanted, least)
    near = _first_visits(lists, visits, wanted) if np.isinf(found.least).any() else 0
    for chosen, first in ((visits[:, :near], True), (visits[:, near:], False)):
        for number, asking in by_list(chosen):
            found.compare(lists, lists.pieces(number), asking, first)
        found.thin_out()
    return found.candidates()


def scan_all(lists: Lists, queries: np.ndarray, wanted: int, least: np.ndarray | None = None) -> Candidates:
    """The same where every query visits everything: exact search."""
    found = _Found(queries, wanted, least)
    everyone = np.arange(len(queries))
    begun = min(len(lists), max(_SCANNED, 8 * wanted))
    found.compare(lists, lists.between(0, begun), everyone, first=True)
    found.thin_out()
    found.compare(lists, lists.between(begun, len(lists)), everyone, first=False)
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
    same = np.flatnonzero(ordered[1:] == ordered[:-1])
    if len(same):  # what is equal lies side by side: the rows put it in order
        equal = np.union1d(same, same + 1)
        found = order[equal]
        order[equal] = found[np.lexsort((rows[found], codes[found]))]
    return order


class _Found:
    """Candidates as they are collected, and the least similarity that still matters to each query."""

    def __init__(self, queries: np.ndarray, wanted: int, least: np.ndarray | None = None) -> None:
        self.queries, self.wanted = queries, wanted
        self.least = np.full(len(queries), -np.inf, np.float32) if least is None else least - np.float32(_TIE)
        self._memory: dict[str, np.ndarray] = {}
        self._kept: list[Candidates] = []
        self._count = 0

    def compare(
        self, lists: Lists, pieces: Sequence[tuple[int, int]], asking: np.ndarray, first: bool
    ) -> None:
        """Queries ``asking`` with the vectors at some places, from first to last + 1.

        ``first``: little is known of the least similarity yet, so it is taken from these vectors.
        """
        step = max(_LEAST_ROWS, 8 * self.wanted, _PRODUCTS // max(1, len(asking)))
        for block in blocks(pieces, step):
            self._compare(lists, block, asking, first)

    def _compare(
        self, lists: Lists, block: Sequence[tuple[int, int]], asking: np.ndarray, first: bool
    ) -> None:
        products = self._products_of(asking, lists, block)
        count = products.shape[1]
        if first and count > self.wanted:
            kth = np.partition(products, count - self.wanted, axis=1)[:, count - self.wanted]
            self.least[asking] = np.maximum(self.least[asking], kth - _TIE)
        # Few are true: flatnonzero, which counts first, is ten times as fast as nonzero.
        near = np.flatnonzero(products >= self.least[asking][:, None])
        which, where = np.divmod(near, count)
        places = (
            where + block[0][0]
            if len(block) == 1
            else np.concatenate([np.arange(*piece) for piece in block])[where]
        )
        self._kept.append(Candidates(asking[which], places, products.ravel()[near]))
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

    def _products_of(self, asking: np.ndarray, lists: Lists, block: Sequence[tuple[int, int]]) -> np.ndarray:
        """Queries ``asking`` times the vectors of a block, all in memory that the next call uses again."""
        d, count = self.queries.shape[1], sum(end - start for start, end in block)
        asked, vectors = self._taken("asked", len(asking), d), self._taken("block", count, d)
        np.take(self.queries, asking, axis=0, out=asked, mode="clip")  # other modes copy twice
        filled = 0
        for start, end in block:
            np.copyto(vectors[filled : filled + end - start], lists.vectors_between(start, end))
            filled += end - start
        return np.matmul(asked, vectors.T, out=self._taken("products", len(asking), count))

    def _taken(self, name: str, rows: int, columns: int) -> np.ndarray:
        """float32 (rows, columns) with anything in it: fresh pages would cost as much as what is put there."""
        if name not in self._memory or self._memory[name].size < rows * columns:
            self._memory[name] = np.empty(rows * columns, np.float32)
        return self._memory[name][: rows * columns].reshape(rows, columns)


def _first_visits(lists: Lists, visits: np.ndarray, wanted: int) -> int:
    """How many of the nearest lists hold twice as many vectors as are wanted, as a rule."""
    mean = len(lists) / max(1, lists.count)
    return int(min(visits.shape[1], max(1, np.ceil(2 * wanted / max(mean, 1)))))


def blocks(pieces: Sequence[tuple[int, int]], step: int) -> Iterator[list[tuple[int, int]]]:
    """The pieces joined to blocks of at most ``step`` places; a longer one is cut."""
    block: list[tuple[int, int]] = []
    room = step
    for start, end in pieces:
        while start < end:
            taken = min(room, end - start)
            block.append((start, start + taken))
            start, room = start + taken, room - taken
            if not room:
                yield block
                block, room = [], step
    if block:
        yield block


def by_list(visits: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Every list that is visited, with its queries in rising order."""
    flat = visits.ravel()
    order = np.argsort(flat, kind="stable")
    numbers = flat[order]
    order = order[np.searchsorted(numbers, 0) :]
    numbers = numbers[len(numbers) - len(order) :]
    begins = np.flatnonzero(np.diff(numbers, prepend=-1))
    for begin, end in pairwise([*begins.tolist(), len(order)]):
        yield int(numbers[begin]), order[begin:end] // visits.shape[1]

"""Range search: every vector whose cosine with a query is above a threshold, in the lists that the query visits.

Matrix products list by list propose; each similarity is then computed on its own (as in :mod:`curation.index.search`),
so that a pair is found, or not, whatever else is in the batch, and with the same similarity from both of its sides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from curation.index.centroids import nearest_lists
from curation.index.folder import OpenIndex
from curation.index.lists import Lists, blocks, by_list
from curation.index.search import visits_here
from curation.products import row_products

__all__ = ["Pairs", "copies_nprobe", "pairs_above"]

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Numbers of queries and rows of the index, int64 (c,), and their similarities, float32 (c,)."""

_CLOSE = 2e-5  # below the threshold in a matrix product, and perhaps not in truth
_PRODUCTS = 1 << 22  # computed at a time
_ROWS = 4096  # of the index compared at a time, at most
_TRIED, _AT_A_TIME = 2000, 256  # images that the number of visits is found with


def pairs_above(index: OpenIndex, queries: np.ndarray, similarity: float) -> Iterator[Pairs]:
    """All pairs of a query and a row above a cosine, a block of at most four million at a time.

    An image that is in the index is found with itself, too.

    Args:
        index: from ``open_index``; ``nprobe`` lists are visited by each query (all, where the kind is flat).
        queries: (B, d) float32, rows L2-normalised.
        similarity: the cosine.
    """
    threshold = np.float32(similarity)
    visits = None
    if index.kind != "flat":
        visits = nearest_lists(index.centroids, queries, max(1, index.nprobe))
    everyone = np.arange(len(queries))
    for split in index.splits:
        lists = split.lists
        if visits is None:
            yield from _compared(lists, lists.between(0, len(lists)), queries, everyone, threshold)
            continue
        for number, asking in by_list(visits_here(split, visits)):
            yield from _compared(lists, lists.pieces(number), queries, asking, threshold)


def _compared(
    lists: Lists,
    pieces: Sequence[tuple[int, int]],
    queries: np.ndarray,
    asking: np.ndarray,
    threshold: np.float32,
) -> Iterator[Pairs]:
    """Queries ``asking`` with the vectors at some places, from first to last + 1."""
    for block in blocks(pieces, _ROWS):
        places = np.concatenate([np.arange(*piece) for piece in block])
        vectors = np.concatenate([lists.vectors_between(*piece) for piece in block]).astype(np.float32)
        step = max(1, _PRODUCTS // len(vectors))
        for first in range(0, len(asking), step):
            some = asking[first : first + step]
            products = queries[some] @ vectors.T
            which, where = np.divmod(np.flatnonzero(products > threshold - _CLOSE), len(vectors))
            similar = row_products(queries, some[which], vectors, where)
            above = similar > threshold
            yield some[which[above]], lists.rows_at(places[where[above]]), similar[above]


def copies_nprobe(index: OpenIndex, similarity: float, recall: float) -> int:
    """Lists to visit so that a share ``recall`` of copies is found; 0 for flat.

    There may be few copies to measure on, so they are made: an image moved towards another one until its cosine with
    what it was is ``similarity``, which is the farthest that a copy can be. A pair is found when either of the two visits the list
    that the other one lies in.

    Args:
        index: all splits must be open.
        similarity: the cosine above which two images are copies.
        recall: in (0, 1].
    """
    if index.kind == "flat":
        return 0
    rows = np.random.default_rng(0).permutation(index.rows)[:_TRIED]
    visits = [
        _visits(index.centroids, *_moved(index.vectors_of(rows[part]), similarity))
        for part in (slice(start, start + _AT_A_TIME) for start in range(0, len(rows), _AT_A_TIME))
    ]
    met = np.sort(np.concatenate(visits))
    return int(met[min(len(met), int(np.ceil(recall * len(met)))) - 1]) + 1


def _moved(vectors: np.ndarray, similarity: float) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (n, d), and each moved towards the one before it until their cosine is ``similarity``."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    aside = np.roll(unit, 1, axis=0)
    aside = aside - (aside * unit).sum(axis=1, keepdims=True) * unit
    aside /= np.maximum(np.linalg.norm(aside, axis=1, keepdims=True), 1e-12)
    return unit, similarity * unit + np.sqrt(1 - similarity**2) * aside


def _visits(centroids: np.ndarray, ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """At which visit, from 0, the earlier of the two meets the other's list, int64 (n,)."""
    near, far = ones @ centroids.T, others @ centroids.T
    own, moved = near.argmax(axis=1)[:, None], far.argmax(axis=1)[:, None]
    return np.minimum(
        (near > np.take_along_axis(near, moved, 1)).sum(axis=1),
        (far > np.take_along_axis(far, own, 1)).sum(axis=1),
    )

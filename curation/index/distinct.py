"""Neighbours of which none is a copy of another: near-duplicates bring the same caption again, and count once.

The neighbours of a query are walked through, nearest first. One stays unless its cosine with one that has stayed is
above the threshold; of those that are copies of the query itself the nearest stays. That is a rule for one query
alone, and each cosine that decides is computed on its own, so that the result depends neither on the batch nor on how
the index is split.
"""

from __future__ import annotations

import numpy as np

from curation.index.folder import OpenIndex
from curation.index.search import Neighbours
from curation.products import row_products

__all__ = ["distinct"]

_FLOATS = 1 << 22  # of vectors that are looked at together
_CLOSE = 2e-5  # to the threshold: what a matrix product rounds to there is computed anew


def distinct(index: OpenIndex, found: Neighbours, similarity: float, wanted: int) -> Neighbours:
    """The nearest ``wanted`` neighbours of each query of which none is another's copy.

    Args:
        index: all splits must be open.
        found: rows int64 (B, F), -1 missing, and similarities float32 (B, F), nearest first.
        similarity: cosine above which two images are copies, in (0, 1).
        wanted: L, at most F.

    Returns:
        Rows int64 (B, L) and similarities float32 (B, L); -1 and 0 where F neighbours do not hold so many.
    """
    rows, near = found
    threshold = np.float32(similarity)
    kept = np.zeros(rows.shape, bool)
    step = max(1, _FLOATS // (2 * wanted * max(1, index.d)))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        kept[part] = _kept(index, rows[part], near[part], threshold, wanted)
    order = np.argsort(~kept, axis=1, kind="stable")[:, :wanted]
    stays = np.take_along_axis(kept, order, 1)
    rows, near = (np.take_along_axis(values, order, 1) for values in (rows, near))
    return np.where(stays, rows, -1), np.where(stays, near, np.float32(0))


def _kept(
    index: OpenIndex, rows: np.ndarray, near: np.ndarray, threshold: np.float32, wanted: int
) -> np.ndarray:
    """Which neighbours stay, bool (b, F): ``wanted`` of them are looked at at a time, until enough have stayed."""
    copies = (rows >= 0) & (near > threshold)
    open_to = (rows >= 0) & ~(copies & (np.cumsum(copies, axis=1) > 1))
    order = np.argsort(~open_to, axis=1, kind="stable")
    counts = open_to.sum(axis=1)
    kept = np.zeros(rows.shape, bool)
    for begin in range(0, rows.shape[1], wanted):
        asking = np.flatnonzero((counts > begin) & (kept.sum(axis=1) < wanted))
        if not len(asking):
            break
        places = order[asking, begin : begin + wanted]
        stays = np.arange(begin, begin + places.shape[1]) < counts[asking, None]
        new = index.vectors_of(np.where(stays, np.take_along_axis(rows[asking], places, 1), -1))
        if begin:
            stays &= ~_above(new, _vectors_kept(index, rows[asking], kept[asking], wanted), threshold).any(
                axis=2
            )
        _walk(stays, np.tril(_above(new, new, threshold), -1))
        kept[asking[:, None], places] |= stays
    return kept


def _vectors_kept(index: OpenIndex, rows: np.ndarray, kept: np.ndarray, wanted: int) -> np.ndarray:
    """Vectors of the neighbours that have stayed, fewer than ``wanted``, float32 (b, wanted, d); zeros beyond."""
    order = np.argsort(~kept, axis=1, kind="stable")[:, :wanted]
    chosen = np.where(np.take_along_axis(kept, order, 1), np.take_along_axis(rows, order, 1), -1)
    return index.vectors_of(chosen)


def _walk(stays: np.ndarray, twins: np.ndarray) -> None:
    """Strike out of ``stays`` (b, m), nearest first, those with an earlier twin that stays; twins bool (b, m, m)."""
    some = np.flatnonzero(twins.any(axis=(1, 2)))
    left, among = stays[some], twins[some]
    for place in range(1, stays.shape[1]) if len(some) else ():
        left[:, place] &= ~(among[:, place, :place] & left[:, :place]).any(axis=1)
    stays[some] = left


def _above(left: np.ndarray, right: np.ndarray, threshold: np.float32) -> np.ndarray:
    """Whether cosines are above the threshold, bool (b, m, k), of vectors (b, m, d) and (b, k, d)."""
    products = np.matmul(left, right.transpose(0, 2, 1))
    query, one, other = np.nonzero(np.abs(products - threshold) <= _CLOSE)
    d = left.shape[2]
    products[query, one, other] = row_products(
        left.reshape(-1, d),
        query * left.shape[1] + one,
        right.reshape(-1, d),
        query * right.shape[1] + other,
    )
    return products > threshold

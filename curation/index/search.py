"""Vision-driven expansion: the L most similar images of the index (paper, section 3.2).

Matrix products propose candidates (``curation.index.lists``); their similarities are then computed anew from
the stored fp16 vectors, each on its own, and ordered by (-similarity, row). So results do not carry the
rounding of a product of that shape, and equal images come in the order of their rows. What remains
approximate: which inverted lists a query visits, and ties among more than ``lists.MAX_TIES`` images.
"""

from __future__ import annotations

from collections.abc import Sequence

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.errors import UserError
from curation.index.centroids import nearest_lists
from curation.index.folder import OpenIndex, Split
from curation.index.gpu import gpu_candidates
from curation.index.lists import Candidates, best_first, scan_all, scan_lists
from curation.keys import hash_keys

__all__ = ["Neighbours", "exact_search", "lists_to_visit", "merge", "recall", "search", "visits_here"]

Neighbours = tuple[np.ndarray, np.ndarray]
"""Rows int64 (B, L), -1 where there are fewer, and similarities float32 (B, L), 0 there; best first."""


def search(
    index: OpenIndex,
    queries: np.ndarray,
    neighbours: int,
    exclude_keys: pa.Array | None = None,
    threads: int | None = None,
    visits: np.ndarray | None = None,
    before: Neighbours | None = None,
) -> Neighbours:
    """The nearest images of each query. The more queries at once, the less each costs.

    Of an index that was opened in part, the nearest among its lists: ``merge`` makes the whole of the parts. What is
    known of the parts searched ``before`` spares what cannot be among the nearest.

    Args:
        index: from ``open_index``.
        queries: (B, d) float32, rows L2-normalised.
        neighbours: L, at least 1.
        exclude_keys: (B,) the keys of the queries' own images, which are not their neighbours; None: none.
        threads: OpenMP threads of FAISS; None: as they are set.
        visits: of ``lists_to_visit``, where several parts of an index are searched for the same queries.
        before: found for these queries in other parts, L columns; the result is the nearest in all of them.

    Raises:
        UserError: the queries have another dimension than the index.
    """
    if threads:
        faiss.omp_set_num_threads(threads)
    exact = index.kind == "flat"
    return _search(index, queries, neighbours, exclude_keys, exact, visits, before)


def exact_search(
    index: OpenIndex, queries: np.ndarray, neighbours: int, exclude_keys: pa.Array | None = None
) -> Neighbours:
    """Like :func:`search`, comparing with every vector whatever the kind of the index."""
    return _search(index, queries, neighbours, exclude_keys, exact=True)


def lists_to_visit(index: OpenIndex, queries: np.ndarray, threads: int | None = None) -> np.ndarray:
    """The lists of the whole index, whatever part of it is open, that a search visits: int32 (B, nprobe), nearest first."""
    if threads:
        faiss.omp_set_num_threads(threads)
    return nearest_lists(index.centroids, queries, max(1, index.nprobe))


def merge(parts: Sequence[Neighbours], neighbours: int) -> Neighbours:
    """The nearest of several searches for the same queries, in different splits or at once in all of them."""
    rows = np.concatenate([part[0] for part in parts], axis=1)
    similarities = np.concatenate([part[1] for part in parts], axis=1)
    asking, places = np.nonzero(rows >= 0)
    return _nearest(len(rows), asking, rows[asking, places], similarities[asking, places], neighbours)


def recall(found: np.ndarray, true: np.ndarray) -> float:
    """Mean share of the true rows (B, L) that were found (B, L); -1 counts in neither."""
    hits = ((found[:, :, None] == true[:, None, :]) & (true[:, None, :] >= 0)).sum()
    return float(hits / max(1, (true >= 0).sum()))


def _search(
    index: OpenIndex,
    queries: np.ndarray,
    neighbours: int,
    exclude_keys: pa.Array | None,
    exact: bool,
    visits: np.ndarray | None = None,
    before: Neighbours | None = None,
) -> Neighbours:
    if neighbours < 1:
        raise UserError(f"archives.neighbours is {neighbours}; write 1 or more")
    anchors = np.ascontiguousarray(queries, dtype=np.float32)
    if anchors.ndim != 2 or anchors.shape[1] != index.d:
        raise UserError(
            f"the queries have dimension {anchors.shape[-1]} and the index in {index.folder} has {index.d}; "
            "embed both with the same CLIP model"
        )
    wanted = neighbours + (exclude_keys is not None)
    if exact:
        visits = None
    elif visits is None:
        visits = lists_to_visit(index, anchors)
    found: Neighbours | None = None
    for split in index.splits:
        least = [_least(some) for some in (before, found) if some is not None]
        part = _in_split(split, anchors, visits, wanted, np.max(least, axis=0) if least else None)
        found = part if found is None else merge([found, part], wanted)
    assert found is not None
    if exclude_keys is not None:
        found = _without_own(index, found, exclude_keys)
    return found if before is None else merge([before, found], neighbours)


def _least(found: Neighbours) -> np.ndarray:
    """How similar the last of each query's nearest is, float32 (B,); -inf where there are fewer than were looked for."""
    rows, similarities = found
    return np.where(rows[:, -1] >= 0, similarities[:, -1], np.float32(-np.inf))


def _in_split(
    split: Split, anchors: np.ndarray, visits: np.ndarray | None, wanted: int, least: np.ndarray | None
) -> Neighbours:
    """The nearest in one split; ``visits`` None: all of it is searched."""
    if split.gpu is not None:
        found = gpu_candidates(split, anchors, wanted)
    elif visits is None:
        found = scan_all(split.lists, anchors, wanted, least)
    else:
        found = scan_lists(split.lists, anchors, visits_here(split, visits), wanted, least)
    return _exactly(split, anchors, found, wanted)


def visits_here(split: Split, visits: np.ndarray) -> np.ndarray:
    """The lists of this split by their number in it, the others' visits -1 and last."""
    here = visits - split.first_list
    elsewhere = (here < 0) | (here >= split.lists.count)
    if not elsewhere.any():
        return here
    here[elsewhere] = -1
    order = np.argsort(elsewhere, axis=1, kind="stable")
    return np.take_along_axis(here, order, 1)[:, : max(1, int((~elsewhere).sum(axis=1).max()))]


def _exactly(split: Split, anchors: np.ndarray, found: Candidates, wanted: int) -> Neighbours:
    similarities = split.lists.products(anchors, found.queries, found.places)
    return _nearest(len(anchors), found.queries, split.lists.rows_at(found.places), similarities, wanted)


def _nearest(
    count: int, queries: np.ndarray, rows: np.ndarray, similarities: np.ndarray, wanted: int
) -> Neighbours:
    """The ``wanted`` best of each of ``count`` queries, from parallel arrays."""
    order = best_first(queries, similarities, rows)
    queries = queries[order]
    place = np.arange(len(order)) - np.searchsorted(queries, np.arange(count))[queries]
    kept = place < wanted
    best = np.full((count, wanted), -1, np.int64)
    near = np.zeros((count, wanted), np.float32)
    best[queries[kept], place[kept]] = rows[order[kept]]
    near[queries[kept], place[kept]] = similarities[order[kept]]
    return best, near


def _without_own(index: OpenIndex, found: Neighbours, keys: pa.Array) -> Neighbours:
    """One column less: the query's own image is left out, or else the last."""
    rows, similarities = found
    own = _own_images(index, rows, keys)
    order = np.argsort(own, axis=1, kind="stable")[:, :-1]
    absent = np.take_along_axis(own, order, 1)
    rows, similarities = (np.take_along_axis(values, order, 1) for values in (rows, similarities))
    return np.where(absent, -1, rows), np.where(absent, np.float32(0), similarities)


def _own_images(index: OpenIndex, rows: np.ndarray, keys: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Mask of rows that carry the query's own key: equal hashes, then equal strings."""
    mask = (index.key_hashes[np.maximum(rows, 0)] == hash_keys(keys)[:, None]) & (rows >= 0)
    queries, places = np.nonzero(mask)
    stored = index.keys.take(pa.array(rows[queries, places]))
    same = pc.equal(stored, keys.take(pa.array(queries)).cast(pa.large_string()))
    mask[queries, places] = same.to_numpy(zero_copy_only=False)
    return mask

"""Semantic clusters of an archive's concepts (paper, section 3.3, cluster-guided sampling).

k-means of the concepts' text embeddings with ceil(n/2) clusters if an archive has more than two concepts;
with two or fewer each concept is its own cluster. Many small problems are solved at once: k-means needs only
inner products of the points, so each archive becomes its n x n Gram matrix, archives of similar length are
stacked, and every step is one batched product.

The result depends on the archive's concepts, their order and the seed alone, not on what else is in the
batch: archives are padded to sizes that follow from their own length, and random starts are drawn by hashing
the concept ids with the seed.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from curation.csr import Csr, ragged_slots
from curation.keys import scramble

__all__ = ["cluster_archives", "kmeans", "own_clusters"]

_STARTS = 3  # the best of these is kept, as scikit-learn's n_init
_ITERATIONS = 12
_SIZES = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128)
_GRAM_ARCHIVES = 16  # archives whose embeddings are gathered at a time: they stay in the cache


def cluster_archives(archives: Csr, concept_embeddings: np.ndarray, seed: int = 0) -> np.ndarray:
    """The cluster of each concept within its archive.

    Args:
        archives: concept ids, best first.
        concept_embeddings: (V, d) float32, rows L2-normalised.
        seed: of the random starts.

    Returns:
        int16, parallel to ``archives.values``; clusters are numbered 0, 1, ... as they first occur.
    """
    lengths = archives.lengths
    clusters = own_clusters(archives)
    for low, high in _size_ranges(int(lengths.max(initial=0))):
        chosen = np.flatnonzero((lengths > max(low, 2)) & (lengths <= high))
        if not len(chosen):
            continue
        counts = lengths[chosen]
        slots = ragged_slots(archives.offsets[chosen], counts)
        ids = np.full((len(chosen), high), -1, np.int64)
        ids[np.arange(high) < counts[:, None]] = archives.values[slots]
        found = kmeans(_gram(ids, concept_embeddings), counts, _seeds(ids, seed))
        clusters[slots] = found[np.arange(high) < counts[:, None]]
    return clusters


def own_clusters(archives: Csr) -> np.ndarray:
    """Every concept its own cluster, int16: its place in the archive."""
    return ragged_slots(np.zeros(len(archives), np.int64), archives.lengths).astype(np.int16)


def kmeans(gram: np.ndarray, counts: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """k-means of B sets of points given by their inner products, ceil(n/2) clusters each.

    Args:
        gram: float32 (B, A, A); beyond a set's own points it is not used.
        counts: int (B,), points n of each set, 1 <= n <= A.
        seeds: uint64 (B,), of the random starts.

    Returns:
        int16 (B, A), clusters numbered by first occurrence, -1 beyond a set's own points. Of several starts
        (farthest points first, then k-means++) the one of least inertia.
    """
    size = gram.shape[1]
    valid = np.arange(size) < counts[:, None]
    most = (size + 1) // 2
    best_labels = np.zeros((len(gram), size), np.int64)
    best_inertia = np.full(len(gram), np.inf, np.float32)
    for start in range(_STARTS):
        centres = _first_centres(gram, valid, (counts + 1) // 2, most, seeds, start)
        labels, inertia = _lloyd(gram, valid, centres, most)
        better = inertia < best_inertia - 1e-6
        best_labels[better], best_inertia[better] = labels[better], inertia[better]
    return np.where(valid, _by_first_occurrence(best_labels, valid, most), -1).astype(np.int16)


def _size_ranges(longest: int) -> list[tuple[int, int]]:
    sizes = [0, *_SIZES]
    while sizes[-1] < longest:
        sizes.append(2 * sizes[-1])
    return list(pairwise(sizes))


def _gram(ids: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
    """Inner products (B, A, A) of the embeddings of ids (B, A); -1 stands for some other point."""
    gram = np.empty((*ids.shape, ids.shape[1]), np.float32)
    for start in range(0, len(ids), _GRAM_ARCHIVES):
        block = embeddings[np.maximum(ids[start : start + _GRAM_ARCHIVES], 0)]
        np.matmul(block, block.transpose(0, 2, 1), out=gram[start : start + _GRAM_ARCHIVES])
    return gram


def _seeds(ids: np.ndarray, seed: int) -> np.ndarray:
    """One number an archive, from its concepts and the seed."""
    places = np.arange(ids.shape[1], dtype=np.uint64) << np.uint64(40)
    mixed = np.where(ids >= 0, scramble((ids + 1).astype(np.uint64) + places), np.uint64(0))
    return scramble(mixed.sum(axis=1, dtype=np.uint64) + np.uint64(seed % (1 << 63)))


def _first_centres(
    gram: np.ndarray, valid: np.ndarray, clusters: np.ndarray, most: int, seeds: np.ndarray, start: int
) -> np.ndarray:
    """Points that begin as centres, int64 (B, most).

    Start 0 takes the first point (the best concept), then again and again the point farthest from all
    centres. The others draw points with probability proportional to the squared distance (k-means++).
    """
    batch = np.arange(len(gram))
    norms = np.einsum("bii->bi", gram)
    counts = valid.sum(axis=1)
    centres = np.zeros((len(gram), most), np.int64)
    if start:
        centres[:, 0] = (_uniform(seeds, start, 0) * counts).astype(np.int64)
    nearest = np.full(valid.shape, np.inf, np.float32)
    for number in range(1, most):
        last = centres[:, number - 1]
        distance = norms + norms[batch, last][:, None] - 2 * gram[batch, last]
        nearest = np.where(valid, np.minimum(nearest, np.maximum(distance, 0)), 0)
        nearest[batch, last] = 0
        if start == 0:
            centres[:, number] = nearest.argmax(axis=1)
        else:
            mass = np.cumsum(nearest.astype(np.float64), axis=1)
            drawn = _uniform(seeds, start, number) * mass[:, -1]
            centres[:, number] = np.minimum((mass <= drawn[:, None]).sum(axis=1), counts - 1)
    return np.where(np.arange(most) < clusters[:, None], centres, -1)


def _uniform(seeds: np.ndarray, start: int, number: int) -> np.ndarray:
    """Random numbers in [0, 1), float64, one a set."""
    return (scramble(seeds + np.uint64(start * 1024 + number)) >> np.uint64(11)) * 2.0**-53


def _lloyd(
    gram: np.ndarray, valid: np.ndarray, centres: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Assign and average until nothing moves; labels (B, A) and inertia (B,).

    With member weights W (A, K), one over the cluster's size for its members, the centre of cluster c is a
    weighted sum of points: <x_i, m_c> = (G W)_ic and |m_c|^2 = (W' G W)_cc.
    """
    batch, size = valid.shape
    norms = np.einsum("bii->bi", gram)
    weights = np.zeros((batch, size, most), np.float32)
    sets, numbers = np.nonzero(centres >= 0)
    weights[sets, centres[sets, numbers], numbers] = 1
    empty = np.where(centres >= 0, np.float32(0), np.float32(np.inf))
    labels = np.full((batch, size), -1, np.int64)
    active = np.arange(batch)
    inertia = np.zeros(batch, np.float32)
    for _ in range(_ITERATIONS):
        inner = np.matmul(gram[active], weights[active])
        centre_norms = np.einsum("bak,bak->bk", weights[active], inner)
        distances = centre_norms[:, None] - 2 * inner + empty[active][:, None]
        nearest = np.where(valid[active], distances.argmin(axis=2), 0)
        cost = np.take_along_axis(distances, nearest[:, :, None], 2)[:, :, 0] + norms[active]
        inertia[active] = np.where(valid[active], cost, 0).sum(axis=1)
        moved = (nearest != labels[active]).any(axis=1)
        labels[active] = nearest
        active = active[moved]
        if not len(active):
            break
        member = (nearest[moved][:, :, None] == np.arange(most)) & valid[active][:, :, None]
        sizes = member.sum(axis=1, keepdims=True)
        # A cluster that lost its last point keeps its centre's weights: it may win points back.
        weights[active] = np.where(sizes > 0, member / np.maximum(sizes, 1), weights[active])
    return labels, inertia


def _by_first_occurrence(labels: np.ndarray, valid: np.ndarray, most: int) -> np.ndarray:
    """Rename the clusters of each set 0, 1, ... in the order in which they first occur."""
    batch, size = labels.shape
    first = np.full((batch, most), size, np.int64)
    for point in range(size - 1, -1, -1):
        present = np.flatnonzero(valid[:, point])
        first[present, labels[present, point]] = point
    names = np.argsort(np.argsort(first, axis=1, kind="stable"), axis=1, kind="stable")
    return np.take_along_axis(names, labels, 1)

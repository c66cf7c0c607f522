"""Semantic clusters of an archive's concepts (paper, section 3.3, cluster-guided sampling).

The paper's code runs k-means on the concepts' text embeddings with ceil(n/2) clusters if an archive has more
than two concepts. The same partition problem, least sum of squared distances to the clusters' means, is
solved here by Ward's merging (Ward 1963): start with every concept alone and merge the two clusters whose
union adds least. With so many clusters for so few points it ends lower than k-means with ten random starts
(tests/curation/test_clusters.py), needs no random start, and vectorises: archives of similar length are
stacked, and one step merges one pair in each of them.

The result depends on the archive alone, not on what else is in the batch: sizes that archives are padded to
follow from their own length.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from curation.csr import Csr, ragged_slots

__all__ = ["cluster_archives", "merge_nearest", "own_clusters"]

_SIZES = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128)
_GRAM_ARCHIVES = 16  # archives whose embeddings are gathered at a time: they stay in the cache
_STACKED = 256  # archives merged at a time, for the same reason


def cluster_archives(archives: Csr, concept_embeddings: np.ndarray) -> np.ndarray:
    """The cluster of each concept within its archive; with two concepts or fewer, each its own.

    Args:
        archives: concept ids, best first.
        concept_embeddings: (V, d) float32, rows L2-normalised.

    Returns:
        int16, parallel to ``archives.values``; clusters are numbered 0, 1, ... as they first occur.
    """
    lengths = archives.lengths
    clusters = own_clusters(archives)
    for low, high in _size_ranges(int(lengths.max(initial=0))):
        fitting = np.flatnonzero((lengths > max(low, 2)) & (lengths <= high))
        for start in range(0, len(fitting), _STACKED):
            chosen = fitting[start : start + _STACKED]
            # Longest first: those that still have to be merged are then always the first ones.
            chosen = chosen[np.argsort(-lengths[chosen], kind="stable")]
            valid = np.arange(high) < lengths[chosen][:, None]
            slots = ragged_slots(archives.offsets[chosen], lengths[chosen])
            ids = np.zeros(valid.shape, np.int64)
            ids[valid] = archives.values[slots]
            found = merge_nearest(_gram(ids, concept_embeddings), lengths[chosen])
            clusters[slots] = found[valid]
    return clusters


def own_clusters(archives: Csr) -> np.ndarray:
    """Every concept its own cluster, int16: its place in the archive."""
    return ragged_slots(np.zeros(len(archives), np.int64), archives.lengths).astype(np.int16)


def merge_nearest(gram: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Ward's clusters of B sets of points given by their inner products, ceil(n/2) of each.

    Args:
        gram: float32 (B, A, A); beyond a set's own points it is not used.
        counts: int (B,), descending: points n of each set, 1 <= n <= A.

    Returns:
        int64 (B, A), clusters numbered by first occurrence; meaningless beyond a set's own points.
    """
    batch, size = len(gram), gram.shape[1]
    costs = _single_costs(gram, counts)
    weights = np.ones((batch, size), np.float32)
    labels = np.tile(np.arange(size), (batch, 1))
    for step in range(int(counts.max(initial=0)) // 2):
        active = int(np.searchsorted(-(counts // 2), -step, side="left"))
        _merge_cheapest(costs[:active], weights[:active], labels[:active])
    # A cluster is called after its first point: rename those that are left 0, 1, ...
    names = np.cumsum(labels == np.arange(size), axis=1) - 1
    return np.take_along_axis(names, labels, 1)


def _single_costs(gram: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """What merging two single points adds, float32 (B, A, A): half their squared distance."""
    size = gram.shape[1]
    norms = np.einsum("bii->bi", gram)
    costs = 0.5 * (norms[:, :, None] + norms[:, None]) - gram
    absent = np.arange(size) >= counts[:, None]
    costs[absent[:, :, None] | absent[:, None]] = np.inf
    costs[:, np.arange(size), np.arange(size)] = np.inf
    return costs


def _merge_cheapest(costs: np.ndarray, weights: np.ndarray, labels: np.ndarray) -> None:
    """Merge one pair in every set, in place; costs to the union by Lance and Williams' recurrence."""
    sets = np.arange(len(costs))
    # The first of equal minima: so first < second, and the cluster keeps its first point's name.
    first, second = np.divmod(costs.reshape(len(costs), -1).argmin(axis=1), costs.shape[1])
    of_first, of_second = weights[sets, first][:, None], weights[sets, second][:, None]
    union = (
        (of_first + weights) * costs[sets, first]
        + (of_second + weights) * costs[sets, second]
        - weights * costs[sets, first, second][:, None]
    ) / (of_first + of_second + weights)
    union[sets, first] = union[sets, second] = np.inf
    costs[sets, first] = costs[sets, :, first] = union
    costs[sets, second] = costs[sets, :, second] = np.inf
    weights[sets, first] += of_second[:, 0]
    np.copyto(labels, first[:, None], where=labels == second[:, None])


def _size_ranges(longest: int) -> list[tuple[int, int]]:
    sizes = [0, *_SIZES]
    while sizes[-1] < longest:
        sizes.append(2 * sizes[-1])
    return list(pairwise(sizes))


def _gram(ids: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
    """Inner products (B, A, A) of the embeddings of ids (B, A)."""
    gram = np.empty((*ids.shape, ids.shape[1]), np.float32)
    for start in range(0, len(ids), _GRAM_ARCHIVES):
        block = embeddings[ids[start : start + _GRAM_ARCHIVES]]
        np.matmul(block, block.transpose(0, 2, 1), out=gram[start : start + _GRAM_ARCHIVES])
    return gram

"""The centres of an index' inverted lists: training them, and finding those that are nearest to a vector."""

from __future__ import annotations

import io

import faiss
import numpy as np

from configs.errors import UserError
from curation.index.spec import IndexSpec, flat_lists

__all__ = ["lists_of", "load_centroids", "nearest_lists", "train"]

_ITERATIONS = 10
_ROWS_AT_A_TIME = 16_384


def train(sample: np.ndarray, spec: IndexSpec) -> bytes:
    """The centroids as a .npy file in memory, small enough to broadcast: float32 (nlist, d), (0, d) for flat.

    Spherical k-means by FAISS, whose result depends on the sample alone.

    Args:
        sample: (m, d) float32 or float16 vectors, drawn from all rows; not used by flat.
        spec: the decision of ``choose_index``.

    Raises:
        UserError: the sample is smaller than the number of lists.
    """
    centroids = np.zeros((0, spec.d), np.float32)
    if spec.kind != "flat":
        if len(sample) < spec.nlist:
            raise UserError(
                f"the training sample of the index has {len(sample)} rows and index.nlist is {spec.nlist}; "
                "write a smaller index.nlist, a larger index.train_rows or index.kind=flat"
            )
        means = faiss.Kmeans(
            spec.d,
            spec.nlist,
            niter=_ITERATIONS,
            spherical=True,
            min_points_per_centroid=1,  # no warnings on stderr; choose_index keeps to 39
            max_points_per_centroid=len(sample),
        )
        means.train(np.ascontiguousarray(sample, dtype=np.float32))
        centroids = means.centroids
    stream = io.BytesIO()
    np.save(stream, centroids)
    return stream.getvalue()


def load_centroids(trained: bytes) -> np.ndarray:
    """What ``train`` made."""
    return np.load(io.BytesIO(trained), allow_pickle=False)


def lists_of(trained: bytes, vectors: np.ndarray) -> np.ndarray:
    """The list that each of a segment's (n, d) vectors belongs to, int32 (n,)."""
    centroids = load_centroids(trained)
    if not len(centroids):
        return flat_lists(len(vectors))
    found = [
        nearest_lists(centroids, vectors[start : start + _ROWS_AT_A_TIME], 1)[:, 0]
        for start in range(0, len(vectors), _ROWS_AT_A_TIME)
    ]
    return np.concatenate(found) if found else np.zeros(0, np.int32)


def nearest_lists(centroids: np.ndarray, vectors: np.ndarray, count: int) -> np.ndarray:
    """The ``count`` nearest lists of each vector, nearest first: int32 (n, count).

    One matrix product with all centroids: for 32 of 4,000 HNSW takes four to five times as long and misses some.
    """
    asked = np.ascontiguousarray(vectors, dtype=np.float32)
    return faiss.knn(asked, centroids, count, faiss.METRIC_INNER_PRODUCT)[1].astype(np.int32)

"""Sums over a corpus that its statistics follow from: of the images' embeddings, and of the images of each concept.

All are additive, so each task sums its own share and the sums are added up as a tree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curation.csr import Csr

__all__ = ["ConceptSums", "ImageMoments", "concept_sums", "cosine_statistics", "image_moments"]


@dataclass(frozen=True)
class ImageMoments:
    """Of ``rows`` embeddings x: their sum, float64 (d,), and the sum of x x', float64 (d, d)."""

    rows: int
    sums: np.ndarray
    products: np.ndarray

    def __add__(self, other: ImageMoments) -> ImageMoments:
        return ImageMoments(self.rows + other.rows, self.sums + other.sums, self.products + other.products)

    def __sub__(self, other: ImageMoments) -> ImageMoments:
        return ImageMoments(self.rows - other.rows, self.sums - other.sums, self.products - other.products)

    @property
    def mean(self) -> np.ndarray:
        """float64 (d,)."""
        return self.sums / self.rows

    @property
    def second(self) -> np.ndarray:
        """E[x x'], float64 (d, d)."""
        return self.products / self.rows

    @property
    def covariance(self) -> np.ndarray:
        """E[x x'] - mean mean', float64 (d, d)."""
        return self.second - np.outer(self.mean, self.mean)


@dataclass(frozen=True)
class ConceptSums:
    """Of k concepts: in how many captions they are, and the sum of those captions' image embeddings.

    Attributes:
        ids: int64 (k,), rising.
        counts: int64 (k,).
        sums: float32 or float64 (k, d).
    """

    ids: np.ndarray
    counts: np.ndarray
    sums: np.ndarray

    def __add__(self, other: ConceptSums) -> ConceptSums:
        ids = np.union1d(self.ids, other.ids)
        counts = np.zeros(len(ids), np.int64)
        sums = np.zeros((len(ids), self.sums.shape[1]), self.sums.dtype)
        for part in (self, other):
            places = np.searchsorted(ids, part.ids)
            counts[places] += part.counts
            sums[places] += part.sums
        return ConceptSums(ids, counts, sums)

    def blocks(self, size: int) -> dict[int, ConceptSums]:
        """By number of block: the concepts ``size * number`` and up; only blocks that have one."""
        numbers, starts = np.unique(self.ids // size, return_index=True)
        edges = [*starts.tolist(), len(self.ids)]
        return {
            int(number): ConceptSums(self.ids[a:b], self.counts[a:b], self.sums[a:b])
            for number, a, b in zip(numbers, edges[:-1], edges[1:], strict=True)
        }

    def dense(self, concepts: int) -> tuple[np.ndarray, np.ndarray]:
        """Counts int64 (V,) and sums (V, d) of a vocabulary of V concepts; 0 for those not in here."""
        counts = np.zeros(concepts, np.int64)
        sums = np.zeros((concepts, self.sums.shape[1]), self.sums.dtype)
        counts[self.ids], sums[self.ids] = self.counts, self.sums
        return counts, sums


def image_moments(vectors: np.ndarray) -> ImageMoments:
    """Moments of embeddings (n, d), any float type."""
    exact = vectors.astype(np.float64)
    return ImageMoments(len(exact), exact.sum(axis=0), exact.T @ exact)


def concept_sums(vectors: np.ndarray, captions: Csr, dtype: np.typing.DTypeLike = np.float32) -> ConceptSums:
    """Counts and sums of the concepts that some captions name.

    Args:
        vectors: (n, d), the captions' images.
        captions: concept ids of the n captions, each at most once a caption.
        dtype: of the sums.
    """
    order = np.argsort(captions.values, kind="stable")
    named = captions.values[order].astype(np.int64)
    starts = np.flatnonzero(np.diff(named, prepend=-1))
    if not len(starts):
        return ConceptSums(named, np.zeros(0, np.int64), np.zeros((0, vectors.shape[1]), dtype))
    images = vectors[captions.row_ids()[order]].astype(dtype)
    counts = np.diff(starts, append=len(named))
    return ConceptSums(named[starts], counts, np.add.reduceat(images, starts, axis=0))


def cosine_statistics(
    texts: np.ndarray, mean: np.ndarray, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each text's cosine with all images, exactly, without the images.

    E<t,x> = <t, mu> and E<t,x>^2 = t' M t.

    Args:
        texts: (n, d), rows L2-normalised. mean: (d,), second: (d, d), of :class:`ImageMoments`.

    Returns:
        float32 (n,), float32 (n,).
    """
    exact = texts.astype(np.float64)
    average = exact @ mean
    squares = np.einsum("td,td->t", exact @ second, exact)
    spread = np.sqrt(np.maximum(squares - average**2, 0.0))
    return average.astype(np.float32), spread.astype(np.float32)

"""How far CLIP tells the images of a concept from others: computed once with the index, used by the ranking."""

from __future__ import annotations

import numpy as np

__all__ = ["separations"]

_OCCURRENCES = 1 << 22  # read at a time
_TYPICAL_WEIGHT = 30.0  # a concept's separation is its own as far as it has more captions than this


def separations(
    concept_ids: np.ndarray, cosines: np.ndarray, cosine_mean: np.ndarray, cosine_std: np.ndarray
) -> np.ndarray:
    """How far CLIP tells images whose captions name a concept from others, in standard deviations.

    The mean of z over the images whose captions name the concept, drawn towards the mean over all
    occurrences as if 30 further captions had that: rare concepts keep the typical value.

    Args:
        concept_ids: int32 (m,), of all captions of the corpus.
        cosines: float32 (m,), of each with its own image.
        cosine_mean, cosine_std: float32 (V,), over all images of the corpus.

    Returns:
        float32 (V,); 0 where the cosine does not vary.
    """
    counts, sums = np.zeros(len(cosine_mean), np.int64), np.zeros(len(cosine_mean))
    for start in range(0, len(concept_ids), _OCCURRENCES):
        ids = np.asarray(concept_ids[start : start + _OCCURRENCES])
        counts += np.bincount(ids, minlength=len(counts))
        sums += np.bincount(ids, cosines[start : start + _OCCURRENCES], minlength=len(sums))
    spread = cosine_std.astype(np.float64)
    deviations = sums - counts * cosine_mean.astype(np.float64)
    z_sums = np.divide(deviations, spread, out=np.zeros_like(spread), where=spread > 0)
    varying = spread > 0
    typical = z_sums.sum() / max(1, counts[varying].sum())
    found = (z_sums + _TYPICAL_WEIGHT * typical) / (counts + _TYPICAL_WEIGHT)
    return np.where(varying, found, 0.0).astype(np.float32)

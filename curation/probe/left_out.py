"""The pairs that the probe's rho is tried on: chosen by their keys, so that every task and every run picks the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curation.csr import Csr, concatenate
from curation.keys import hash_keys

__all__ = ["LeftOut", "left_out_of", "left_out_share"]

_PAIRS, _SCORES = (
    20_000,
    400_000_000,
)  # enough for a smooth curve; what scoring them against V concepts may cost
_FOLDS = 5


@dataclass(frozen=True)
class LeftOut:
    """Pairs that are left out of fits in turn: vectors (m, d), captions of m lists, folds int (m,)."""

    vectors: np.ndarray
    captions: Csr
    folds: np.ndarray

    def of_fold(self, fold: int) -> tuple[np.ndarray, Csr]:
        """Vectors and captions of one fold."""
        rows = np.flatnonzero(self.folds == fold)
        return self.vectors[rows], self.captions.gather(rows)

    def __add__(self, other: LeftOut) -> LeftOut:
        return LeftOut(
            np.concatenate([self.vectors, other.vectors]),
            concatenate([self.captions, other.captions]),
            np.concatenate([self.folds, other.folds]),
        )


def left_out_share(rows: int, concepts: int) -> float:
    """The share of a corpus' pairs that rho is tried on: 20,000 pairs, fewer for a large vocabulary, or all."""
    return min(1.0, min(_PAIRS, _SCORES // max(1, concepts)) / max(1, rows))


def left_out_of(
    keys: pa.Array | pa.ChunkedArray, vectors: np.ndarray, captions: Csr, share: float
) -> LeftOut:
    """Those of n pairs whose keys fall into the share, each with its fold.

    Args:
        keys: (n,) strings. vectors: (n, d). captions: n lists.
    """
    hashes = hash_keys(keys)
    # Doubles below 2^64 are not all numbers, but share = 1 must take every key.
    rows = np.flatnonzero(hashes / 2.0**64 < share) if share < 1 else np.arange(len(hashes))
    return LeftOut(vectors[rows], captions.gather(rows), (hashes[rows] % np.uint64(_FOLDS)).astype(np.int64))

"""Inner products of chosen rows of two matrices."""

from __future__ import annotations

import numpy as np

__all__ = ["row_products"]

_BLOCK_BYTES = 1 << 19  # both gathered blocks stay in a core's second-level cache


def row_products(
    left: np.ndarray, left_rows: np.ndarray, right: np.ndarray, right_rows: np.ndarray
) -> np.ndarray:
    """``left[left_rows[i]] . right[right_rows[i]]`` for every i.

    Only the products that are asked for are computed, in blocks; each is summed in the same order whatever
    its neighbours in the block are, so results do not depend on how a task was cut into batches.

    Args:
        left: (n, d) float16 or float32.
        left_rows: (m,) row numbers.
        right: (v, d) float16 or float32.
        right_rows: (m,) row numbers.

    Returns:
        (m,) float32.
    """
    d = left.shape[1]
    rows = max(1, _BLOCK_BYTES // (4 * max(d, 1)))
    products = np.empty(len(left_rows), np.float32)
    for start in range(0, len(left_rows), rows):
        chosen = slice(start, start + rows)
        lefts = np.take(np.asarray(left), left_rows[chosen], axis=0).astype(np.float32, copy=False)
        rights = np.take(np.asarray(right), right_rows[chosen], axis=0).astype(np.float32, copy=False)
        np.einsum("md,md->m", lefts, rights, out=products[chosen])
    return products

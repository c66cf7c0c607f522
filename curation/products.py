"""Inner products of chosen rows of two matrices."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

__all__ = ["dense_blocks", "products_of_sorted", "row_products"]

_MOST_DENSE = (
    16_384  # rows of the right side, up to which computing all products costs less than fetching some
)
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


def _dense_rows(right: np.ndarray) -> int:
    """Rows of the left side that are multiplied at a time: the more the faster, and 16 MB of products at most."""
    return 256 if len(right) <= _MOST_DENSE else 64


def dense_blocks(left: np.ndarray, right: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """All products of ``left`` (n, d) float32 and ``right`` (v, d) float32, 256 rows at a time where ``right`` is not large, else 64.

    Matrix products of one shape whatever n: what they round to does not depend on how a task was cut into batches.

    Yields:
        The first row of a block, and its products float32 (up to so many, v).
    """
    most = _dense_rows(right)
    for start in range(0, len(left), most):
        rows = left[start : start + most]
        block = np.zeros((most, left.shape[1]), np.float32)
        block[: len(rows)] = rows
        yield start, (block @ right.T)[: len(rows)]


def products_of_sorted(
    left: np.ndarray, left_rows: np.ndarray, right: np.ndarray, right_rows: np.ndarray
) -> np.ndarray:
    """As :func:`row_products`, for rising ``left_rows`` and float32 sides, and faster where ``right`` is not large.

    Which way it is computed, all products in blocks or each on its own, depends on the size of ``right`` alone.
    """
    if len(right) > _MOST_DENSE:
        return row_products(left, left_rows, right, right_rows)
    products = np.empty(len(left_rows), np.float32)
    for start, block in dense_blocks(left, right):
        asked = slice(*np.searchsorted(left_rows, (start, start + len(block))))
        products[asked] = block[left_rows[asked] - start, right_rows[asked]]
    return products

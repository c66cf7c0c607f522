"""Vectors in Parquet: rows of float16 as fixed-size binary.

Spark SQL knows no float16 and would turn a list of floats into objects; a fixed-size binary passes
through it untouched, half the size of float32, and NumPy reads it without a copy.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

__all__ = ["column_to_vectors", "vectors_to_column"]


def vectors_to_column(vectors: np.ndarray, dimension: int) -> pa.Array:
    """float16 (n, d) as Arrow fixed_size_binary(2 d), without a copy."""
    data = np.ascontiguousarray(vectors, dtype="<f2")
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(2 * dimension), len(data), [None, pa.py_buffer(data)]
    )


def column_to_vectors(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """The other way: float16 (n, d), a view where the column is one chunk."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    width = column.type.byte_width
    data = np.frombuffer(column.buffers()[1], dtype="<f2") if len(column) else np.zeros(0, "<f2")
    start = column.offset * (width // 2)
    return data[start : start + len(column) * (width // 2)].reshape(len(column), width // 2)

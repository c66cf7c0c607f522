"""Rows of NumPy's .npy files, wherever they lie; pickled objects are refused."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from configs.errors import UserError
from storage.addresses import resolve

__all__ = ["NpyFile", "open_npy"]


@dataclass(frozen=True)
class NpyFile:
    """A .npy file of floats, shape (rows, dimension), whose numbers begin at byte ``offset``."""

    address: str
    rows: int
    dimension: int
    dtype: np.dtype
    offset: int

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows ``start`` to ``stop`` as float32 (n, d); only their bytes are read.

        Raises:
            UserError: the file ends before them.
        """
        width = self.dimension * self.dtype.itemsize
        filesystem, path = resolve(self.address)
        with filesystem.open_input_file(path) as source:
            data = source.read_at((stop - start) * width, self.offset + start * width)
        if len(data) != (stop - start) * width:
            raise UserError(f"{self.address}: the file is cut off; it should hold {self.rows} rows")
        return np.frombuffer(data, self.dtype).reshape(stop - start, self.dimension).astype(np.float32)


def open_npy(address: str) -> NpyFile:
    """The layout of a file, from its header.

    Raises:
        UserError: no such file, no .npy, or not a table of floats in row order.
    """
    filesystem, path = resolve(address)
    try:
        with filesystem.open_input_file(path) as source:
            shape, column_order, dtype = _read_header(source)
            offset = source.tell()
    except FileNotFoundError:
        raise UserError(f"{address}: no such file") from None
    except (ValueError, EOFError) as error:
        raise UserError(f"{address}: not a .npy file: {' '.join(str(error).split())[:200]}") from None
    if len(shape) != 2 or not shape[1] or dtype.kind != "f" or column_order:
        order = " in column order" if column_order else ""
        raise UserError(
            f"{address}: holds {dtype} of shape {shape}{order}; expected float16 or float32 of shape (n, d) "
            "in row order, as numpy.save writes it"
        )
    return NpyFile(address, shape[0], shape[1], dtype, offset)


def _read_header(source: pa.NativeFile) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(source)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(source)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(source)
    raise ValueError(f"version {version}")

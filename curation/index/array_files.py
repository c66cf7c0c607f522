"""NumPy files that are written piece by piece."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

__all__ = ["ArrayFile", "write_array"]


def write_array(stream: BinaryIO, array: np.ndarray) -> dict[str, int]:
    """A contiguous array as a .npy file into a stream that can only be written; size and CRC-32 of the file."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    content = memoryview(array.reshape(-1)).cast("B") if array.size else memoryview(b"")
    stream.write(header.getvalue())
    stream.write(content)
    return {
        "bytes": len(header.getvalue()) + len(content),
        "crc32": zlib.crc32(content, zlib.crc32(header.getvalue())),
    }


class ArrayFile:
    """A .npy file that grows at its end; the header is written when its length is known."""

    def __init__(self, path: Path, dtype: type, width: int | None = None) -> None:
        self.path, self.dtype, self.width, self.rows = path, np.dtype(dtype), width, 0
        self._stream = path.open("wb")
        self._stream.write(self._header())

    def append(self, values: np.ndarray) -> None:
        """Rows at the end, converted to the file's type."""
        self._stream.write(np.ascontiguousarray(values, dtype=self.dtype).data)
        self.rows += len(values)

    def close(self) -> None:
        """Write the final header."""
        if not self._stream.closed:
            self._stream.seek(0)
            self._stream.write(self._header())
            self._stream.close()

    def _header(self) -> bytes:
        shape = (self.rows,) if self.width is None else (self.rows, self.width)
        description = {"descr": self.dtype.str, "fortran_order": False, "shape": shape}
        text = repr(description).encode().ljust(117) + b"\n"  # one length whatever the shape
        return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text

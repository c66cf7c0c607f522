"""NumPy files that are written piece by piece."""

from __future__ import annotations

from pathlib import Path

import numpy as np

__all__ = ["ArrayFile"]


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

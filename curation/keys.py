"""Keys as numbers: a stable 64-bit hash of strings, without a loop over them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from curation.csr import ragged_slots

__all__ = ["GOLDEN", "hash_keys", "scramble", "string_buffers"]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def string_buffers(strings: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Offsets int64 (n + 1,) from 0 and UTF-8 bytes uint8 of an Arrow string column."""
    if isinstance(strings, pa.ChunkedArray):
        strings = pa.concat_arrays(strings.chunks) if strings.num_chunks else pa.array([], pa.string())
    if strings.null_count:
        raise ValueError("keys hold a null")
    if not len(strings):
        return np.zeros(1, np.int64), np.zeros(0, np.uint8)
    wide = pa.types.is_large_string(strings.type)
    _, offset_buffer, byte_buffer = strings.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64 if wide else np.int32)
    offsets = offsets[strings.offset : strings.offset + len(strings) + 1].astype(np.int64)
    data = np.frombuffer(byte_buffer, np.uint8) if byte_buffer is not None else np.zeros(0, np.uint8)
    return offsets - offsets[0], data[offsets[0] : offsets[-1]]


def hash_keys(keys: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """uint64 (n,), the same in every process and version; two keys may share one, so compare them too.

    Every byte is scrambled together with its place in the key, the results are added up, and the sum is
    scrambled with the length: sums of runs are differences of one running sum, modulo 2^64.
    """
    offsets, data = string_buffers(keys)
    lengths = np.diff(offsets)
    place = ragged_slots(np.zeros(len(lengths), np.int64), lengths).astype(np.uint64)
    running = np.zeros(len(data) + 1, np.uint64)
    np.cumsum(scramble(place * np.uint64(256) + data), out=running[1:])
    return scramble(running[offsets[1:]] - running[offsets[:-1]] + lengths.astype(np.uint64))


def scramble(numbers: np.ndarray) -> np.ndarray:
    """splitmix64 (Steele, Lea, Flood 2014): what follows each uint64 state; states ``GOLDEN`` apart are a sequence."""
    mixed = numbers + GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))

"""Token ids of many texts as one array, and rows of tokens put together from pieces of texts, without a loop.

A text is cut into words and marks before its bytes are paired, so the ids of a text made of pieces are the ids of the
pieces one after the other, as long as no word or mark reaches over a joint (:func:`joins_cleanly`).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from models.tokenize import END_TOKEN, START_TOKEN, token_ids

__all__ = ["NO_TEXT", "TokenTable", "Tokens", "join_rows", "joins_cleanly", "pack_ids", "unpack_ids"]

NO_TEXT = -1


class Tokens(NamedTuple):
    """n ragged rows of ids, without the marks of start and end."""

    ids: np.ndarray
    """uint16 (any,): the ids of row i are ``ids[starts[i] : starts[i] + lengths[i]]``"""
    starts: np.ndarray
    """int64 (n,)"""
    lengths: np.ndarray
    """int64 (n,)"""

    def take(self, places: np.ndarray) -> Tokens:
        """Rows by number, int64 (m,); ``NO_TEXT`` gives an empty row."""
        if not len(self.starts):
            return Tokens(self.ids, np.zeros(len(places), np.int64), np.zeros(len(places), np.int64))
        inside = np.maximum(places, 0)
        return Tokens(self.ids, self.starts[inside], np.where(places >= 0, self.lengths[inside], 0))


class TokenTable:
    """Ids of the texts met so far; safe for several threads. It is emptied when it holds ``most`` texts."""

    def __init__(self, most: int = 1 << 18) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._clear()

    def _clear(self) -> None:
        self._places: dict[str, int] = {}
        self._ids = np.empty(1 << 14, np.uint16)
        self._edges = np.zeros(1 << 10, np.int64)

    def of(self, texts: Sequence[str]) -> Tokens:
        """Ids of n texts."""
        with self._lock:
            if len(self._places) + len(texts) > self._most:
                self._clear()
            places = np.fromiter((self._place(text) for text in texts), np.int64, len(texts))
            ids, edges = self._ids, self._edges
        return Tokens(ids, edges[places], edges[places + 1] - edges[places])

    def _place(self, text: str) -> int:
        place = self._places.get(text)
        if place is None:
            found = token_ids(text)
            place = len(self._places)
            start, end = int(self._edges[place]), int(self._edges[place]) + len(found)
            # what is handed out stays as it is: a larger array is another one
            if end > len(self._ids):
                self._ids = _grown(self._ids, end)
            if place + 2 > len(self._edges):
                self._edges = _grown(self._edges, place + 2)
            self._ids[start:end] = found
            self._edges[place + 1] = end
            self._places[text] = place
        return place


def _grown(array: np.ndarray, least: int) -> np.ndarray:
    larger = np.zeros(max(2 * len(array), least), array.dtype)
    larger[: len(array)] = array
    return larger


def pack_ids(texts: Iterable[str]) -> pa.Array:
    """Texts -> Arrow binary: the ids of each, uint16 little-endian, without marks."""
    return pa.array([token_ids(text).astype("<u2").tobytes() for text in texts], pa.binary())


def unpack_ids(column: pa.Array | pa.ChunkedArray) -> Tokens:
    """The inverse of :func:`pack_ids`, without a copy of the ids.

    Raises:
        ValueError: a value is missing, or is no whole number of ids.
    """
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    whole = chunks[0] if len(chunks) == 1 else pa.concat_arrays([pa.array([], column.type), *chunks])
    if whole.null_count:
        raise ValueError(f"{whole.null_count} of {len(whole)} rows are empty")
    _, offsets, values = whole.buffers()
    edges = np.frombuffer(offsets, np.int32, len(whole) + 1, 4 * whole.offset).astype(np.int64)
    if (edges % 2).any():
        raise ValueError("a row is no whole number of ids")
    ids = np.frombuffer(values, "<u2", int(edges[-1]) // 2) if values is not None else np.empty(0, np.uint16)
    return Tokens(ids, edges[:-1] // 2, np.diff(edges) // 2)


def join_rows(pieces: Sequence[Tokens], context_length: int, multiple: int = 8) -> np.ndarray:
    """Rows of tokens from pieces of n rows each, one after the other.

    Returns:
        int64 (n, T): start, ids, end, zeros, as ``models.tokenize.tokenize`` gives them of the whole texts: a longer text
        loses its last ids. T is that of the longest row, up to a multiple (``trim``), at most ``context_length``.
    """
    lengths = [piece.lengths for piece in pieces]
    total = np.minimum(np.sum(lengths, axis=0), context_length - 2)
    count = len(total)
    longest = int(total.max()) + 2 if count else 1
    width = min(-(-longest // multiple) * multiple, context_length)
    rows = np.zeros((count, width), np.int64)
    rows[:, 0] = START_TOKEN
    flat = rows.reshape(-1)
    place = np.arange(count, dtype=np.int64) * width + 1
    end = place + total
    for piece in pieces:
        kept = np.clip(end - place, 0, piece.lengths)
        within = np.arange(int(kept.sum())) - np.repeat(np.cumsum(kept) - kept, kept)
        flat[np.repeat(place, kept) + within] = piece.ids[np.repeat(piece.starts, kept) + within]
        place = place + kept
    flat[end] = END_TOKEN
    return rows


# The tokenizer mends broken encodings and markup over the whole text; in plain ASCII without & and < it finds none.
_PLAIN = re.compile(r"[A-Za-z0-9](?:[ !#-%'-;=?-~]*[A-Za-z0-9])?")


@lru_cache(maxsize=1 << 18)
def joins_cleanly(text: str) -> bool:
    """Whether the ids of ``before + text + after`` are those of its parts, where blanks or full stops are next to it."""
    return _PLAIN.fullmatch(text) is not None

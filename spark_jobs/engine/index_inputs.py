"""What an index is built from and searched with: vectors and concepts of one part, and the vocabulary."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pyarrow as pa

from curation.csr import Csr
from storage import tables
from storage.vectors import column_to_vectors

__all__ = ["read_concepts", "read_part", "read_vectors", "read_vectors_and_keys", "read_words"]


def read_vectors(address: str) -> np.ndarray:
    """Embeddings of one part, float16 (n, d)."""
    return column_to_vectors(tables.read_file(address, ["embedding"]).column("embedding"))


def read_vectors_and_keys(address: str) -> tuple[pa.ChunkedArray, np.ndarray]:
    """Keys and float16 embeddings (n, d) of one part."""
    rows = tables.read_file(address, ["key", "embedding"])
    return rows.column("key"), column_to_vectors(rows.column("embedding"))


def read_part(images: str, captions: str) -> tuple[pa.ChunkedArray, np.ndarray, Csr]:
    """Keys, float16 vectors and concept ids of one part, rows joined by key."""
    rows = tables.read_file(images, ["key", "embedding"])
    keys = rows.column("key")
    return keys, column_to_vectors(rows.column("embedding")), _words_of(keys, captions)


def read_words(images: str, captions: str) -> tuple[pa.ChunkedArray, Csr]:
    """The same without the vectors."""
    keys = tables.read_file(images, ["key"]).column("key")
    return keys, _words_of(keys, captions)


def _words_of(keys: pa.ChunkedArray, captions: str) -> Csr:
    found = tables.rows_of_keys(tables.read_file(captions, ["key", "concept_ids"]), keys)
    return Csr.from_list_array(found.column("concept_ids"))


@lru_cache(maxsize=1)
def read_concepts(files: tuple[str, ...]) -> tuple[pa.ChunkedArray, np.ndarray, np.ndarray, np.ndarray]:
    """Concepts, float32 embeddings, cosine mean and deviation, by concept id."""
    rows = pa.concat_tables([tables.read_file(file) for file in files])
    vectors = column_to_vectors(rows.column("embedding")).astype(np.float32)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return (
        rows.column("concept"),
        vectors,
        rows.column("cosine_mean").to_numpy(),
        rows.column("cosine_std").to_numpy(),
    )

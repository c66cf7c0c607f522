"""Writing an index folder, in memory that does not grow with the index.

Vectors come in segments, each in the order of its lists. A segment's vectors are a file of their own, which may
lie elsewhere and be there already: a folder is then made of what stands beside the vectors alone.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

from curation.csr import Csr
from curation.index.array_files import ArrayFile, write_array
from curation.index.centroids import load_centroids
from curation.index.folder import FORMAT
from curation.index.spec import IndexSpec, flat_lists, split_lists
from curation.keys import hash_keys, string_buffers
from curation.mapped_files import file_facts
from curation.products import row_products
from curation.separation import separations

__all__ = ["IndexWriter", "VectorFile", "caption_cosines", "concept_table", "in_list_order"]

_SEGMENT_ROWS = 262_144


@dataclass(frozen=True)
class VectorFile:
    """The vectors of a segment, written: path relative to the index folder, bytes, CRC-32."""

    path: str
    bytes: int
    crc32: int


def caption_cosines(vectors: np.ndarray, captions: Csr, concept_embeddings: np.ndarray) -> np.ndarray:
    """s(t, x_j) of every image with the concepts of its own caption.

    Args:
        vectors: (n, d) float16 or float32, rows L2-normalised.
        captions: concept ids of the n captions.
        concept_embeddings: (V, d) float32, rows L2-normalised.

    Returns:
        float32, parallel to ``captions.values``.
    """
    return row_products(vectors, captions.row_ids(), concept_embeddings, captions.values)


def concept_table(
    concepts: pa.Array, embeddings: np.ndarray, cosine_mean: np.ndarray, cosine_std: np.ndarray
) -> pa.Table:
    """The concepts as the index stores them; embeddings (V, d), statistics (V,); row = concept id."""
    if isinstance(concepts, pa.ChunkedArray):
        concepts = pa.concat_arrays(concepts.chunks) if concepts.num_chunks else pa.array([], pa.string())
    d = embeddings.shape[1]
    flat = np.ascontiguousarray(embeddings, dtype=np.float32).reshape(-1)
    return pa.table(
        {
            "concept_id": pa.array(np.arange(len(concepts), dtype=np.int32)),
            "concept": concepts.cast(pa.string()),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(flat), d),
            "cosine_mean": pa.array(np.asarray(cosine_mean, dtype=np.float32)),
            "cosine_std": pa.array(np.asarray(cosine_std, dtype=np.float32)),
        }
    )


def in_list_order(lists: np.ndarray) -> np.ndarray:
    """The order in which a segment's rows are stored: by list (n,), then as they came."""
    return np.argsort(lists, kind="stable")


class IndexWriter:
    """Writes an index folder; use it as a context manager and call :meth:`finish` at the end.

    Either ``add`` unit after unit in row order, or ``add_rows`` in row order and ``add_segment`` for vectors
    that are written already. The folder appears under its name only when it is complete.

    Args:
        folder: the folder to write; it must not exist.
        spec: the decision of ``choose_index``.
        trained: from ``train``.
        concepts: from ``concept_table``.
    """

    def __init__(self, folder: str | Path, spec: IndexSpec, trained: bytes, concepts: pa.Table) -> None:
        self.folder, self.spec, self.trained, self.concepts = Path(folder), spec, trained, concepts
        if self.folder.exists():
            raise FileExistsError(f"{self.folder} exists")
        self._build = self.folder.with_name(self.folder.name + ".building")
        shutil.rmtree(self._build, ignore_errors=True)
        self._build.mkdir(parents=True)
        self._arrays = {
            "offsets": ArrayFile(self._build / "offsets.npy", np.int64),
            "concept_ids": ArrayFile(self._build / "concept_ids.npy", np.int32),
            "cosines": ArrayFile(self._build / "cosines.npy", np.float32),
            "key_hashes": ArrayFile(self._build / "key_hashes.npy", np.uint64),
            "key_offsets": ArrayFile(self._build / "key_offsets.npy", np.int64),
        }
        for name in ("offsets", "key_offsets"):
            self._arrays[name].append(np.zeros(1, np.int64))
        self._key_bytes = (self._build / "key_bytes").open("wb")
        self._key_end = self.rows = 0
        self._sizes = np.zeros(spec.nlist, np.int64)
        self._segments: list[dict[str, Any]] = []
        self._elsewhere: dict[str, dict[str, int]] = {}
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []

    def __enter__(self) -> IndexWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        shutil.rmtree(self._build, ignore_errors=True)

    def add(
        self,
        keys: pa.Array | pa.ChunkedArray,
        vectors: np.ndarray,
        captions: Csr,
        cosines: np.ndarray,
        lists: np.ndarray,
    ) -> None:
        """The next unit.

        Args:
            keys: (n,) strings.
            vectors: (n, d) float16.
            captions: concept ids of the n captions.
            cosines: from ``caption_cosines``.
            lists: from ``lists_of`` the same vectors.
        """
        if not len(keys) == len(vectors) == len(lists):
            raise ValueError("keys, vectors and lists of a unit have different lengths")
        self.add_rows(keys, captions, cosines)
        self._waiting.append((vectors, lists))
        if sum(len(lists) for _, lists in self._waiting) >= _SEGMENT_ROWS:
            self._write_segment()

    def add_rows(self, keys: pa.Array | pa.ChunkedArray, captions: Csr, cosines: np.ndarray) -> None:
        """The next rows but for their vectors; arguments as of :meth:`add`."""
        if len(keys) != len(captions) or len(cosines) != len(captions.values):
            raise ValueError("keys, captions and cosines of a unit have different lengths")
        self._add_keys(keys)
        arrays = self._arrays
        arrays["offsets"].append(captions.offsets[1:] - captions.offsets[0] + arrays["concept_ids"].rows)
        arrays["concept_ids"].append(captions.values)
        arrays["cosines"].append(cosines)
        self.rows += len(keys)

    def add_segment(self, rows: np.ndarray, lists: np.ndarray, vectors: VectorFile) -> None:
        """Vectors that are written already.

        Args:
            rows: int64 (n,), which rows of the index they are, rising.
            lists: int32 (n,), the list of each.
            vectors: their file, in which they are ``in_list_order``.
        """
        self._describe_segment(rows, lists, vectors.path)
        self._elsewhere[vectors.path] = {"bytes": vectors.bytes, "crc32": vectors.crc32}

    def finish(self, extra: dict[str, Any] | None = None) -> dict[str, Any]:
        """Write what is left and put the folder in its place.

        Args:
            extra: goes into index.json.

        Returns:
            index.json.
        """
        if self._waiting:
            self._write_segment()
        if not self.rows == self.spec.rows == self._sizes.sum():
            raise ValueError(
                f"{self.rows} rows and {self._sizes.sum()} vectors were added to an index of {self.spec.rows}"
            )
        self._close()
        self._write_keys()
        with pa.ipc.new_file(str(self._build / "concepts.arrow"), self.concepts.schema) as sink:
            sink.write_table(self.concepts.combine_chunks(), max_chunksize=max(1, len(self.concepts)))
        self._write_separations()
        np.save(self._build / "centroids.npy", load_centroids(self.trained))
        metadata = self._metadata(extra or {})
        self._write_metadata(metadata)
        self._build.replace(self.folder)
        return metadata

    def _write_segment(self) -> None:
        """What waits, written in the order of its lists."""
        vectors, lists = (np.concatenate([pair[side] for pair in self._waiting]) for side in (0, 1))
        self._waiting.clear()
        if self.spec.kind == "flat":  # the whole segment's, not its units'
            lists = flat_lists(len(vectors))
        path = f"vectors-{len(self._segments):05d}.npy"
        with (self._build / path).open("wb") as stream:
            write_array(stream, vectors[in_list_order(lists)])
        first = int(self._sizes.sum())
        self._describe_segment(np.arange(first, first + len(lists)), lists, path)

    def _describe_segment(self, rows: np.ndarray, lists: np.ndarray, path: str) -> None:
        if len(rows) != len(lists):
            raise ValueError(f"{len(rows)} rows came with the lists of {len(lists)}")
        number, sizes = len(self._segments), np.bincount(lists, minlength=self.spec.nlist)
        np.save(self._build / f"rows-{number:05d}.npy", rows[in_list_order(lists)].astype(np.int64))
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        np.save(self._build / f"list_offsets-{number:05d}.npy", offsets)
        self._sizes += sizes
        self._segments.append({"vectors": path, "rows": len(rows)})

    def _add_keys(self, keys: pa.Array | pa.ChunkedArray) -> None:
        offsets, data = string_buffers(keys)
        self._arrays["key_hashes"].append(hash_keys(keys))
        self._arrays["key_offsets"].append(offsets[1:] + self._key_end)
        self._key_bytes.write(data.data)
        self._key_end += len(data)

    def _close(self) -> None:
        for array in self._arrays.values():
            array.close()
        self._key_bytes.close()

    def _write_keys(self) -> None:
        """One Arrow batch, so that rows are addressed directly; its buffers are mapped, not read."""
        offsets = np.load(self._build / "key_offsets.npy", mmap_mode="r")
        with pa.memory_map(str(self._build / "key_bytes")) as data:
            buffers = [None, pa.py_buffer(offsets), data.read_buffer()]
            keys = pa.Array.from_buffers(pa.large_string(), self.rows, buffers)
            table = pa.table({"key": keys})
            with pa.ipc.new_file(str(self._build / "keys.arrow"), table.schema) as sink:
                sink.write_table(table, max_chunksize=max(1, self.rows))
        for name in ("key_offsets.npy", "key_bytes"):
            (self._build / name).unlink()

    def _write_separations(self) -> None:
        ids, cosines = (
            np.load(self._build / name, mmap_mode="r" if self._arrays["cosines"].rows else None)
            for name in ("concept_ids.npy", "cosines.npy")
        )
        statistics = (self.concepts[name].to_numpy() for name in ("cosine_mean", "cosine_std"))
        np.save(self._build / "separation.npy", separations(ids, cosines, *statistics))

    def _metadata(self, extra: dict[str, Any]) -> dict[str, Any]:
        files = sorted(path for path in self._build.rglob("*") if path.is_file())
        here = {str(path.relative_to(self._build)): file_facts(path) for path in files}
        return {
            "format": FORMAT,
            "kind": self.spec.kind,
            "metric": "inner product of L2-normalised vectors",
            "d": self.spec.d,
            "rows": self.rows,
            "concepts": len(self.concepts),
            "occurrences": self._arrays["concept_ids"].rows,
            "segments": self._segments,
            "splits": self.spec.splits,
            "split_lists": split_lists(self._sizes, self.spec.splits),
            "parameters": self.spec.to_dict(),
            "files": {**here, **self._elsewhere},
            **extra,
        }

    def _write_metadata(self, metadata: dict[str, Any]) -> None:
        (self._build / "index.json").write_text(json.dumps(metadata, indent=1) + "\n", encoding="utf-8")

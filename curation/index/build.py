"""Writing an index folder unit by unit, in memory that does not grow with the index."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import faiss
import numpy as np
import pyarrow as pa

from curation.csr import Csr
from curation.index.faiss_files import join_parts
from curation.index.folder import FORMAT, open_index, split_folder
from curation.index.search import SearchQuality, tune
from curation.index.spec import IndexSpec, split_rows
from curation.keys import hash_keys, string_buffers
from curation.mapped_files import file_checksum
from curation.products import row_products
from curation.separation import separations

__all__ = ["IndexWriter", "caption_cosines", "concept_table"]

_MERGED_ROWS = 262_144  # parts are merged up to this many rows, so that few files are open at the end


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


class IndexWriter:
    """Writes an index folder; use it as a context manager and call :meth:`finish` at the end.

    Units come in row order. The folder appears under its name only when it is complete.

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
        self._edges = split_rows(spec.rows, spec.splits)
        for number in range(spec.splits):
            split_folder(self._build, number, spec.splits).mkdir(parents=True, exist_ok=True)
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
        self._vectors: list[ArrayFile] = []
        self._parts: list[list[Path]] = [[] for _ in self._edges]
        self._merging: faiss.Index | None = None
        self._next_split()

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
        part: bytes = b"",
    ) -> None:
        """The next unit.

        Args:
            keys: (n,) strings.
            vectors: (n, d) float16.
            captions: concept ids of the n captions.
            cosines: from ``caption_cosines``.
            part: from ``fill_part`` of the same vectors (flat: empty). Where a unit lies across the edge of
                two splits its vectors are encoded here, with the same result.
        """
        if not len(keys) == len(vectors) == len(captions) or len(cosines) != len(captions.values):
            raise ValueError("keys, vectors, captions and cosines of a unit have different lengths")
        self._add_keys(keys)
        arrays = self._arrays
        arrays["offsets"].append(captions.offsets[1:] - captions.offsets[0] + arrays["concept_ids"].rows)
        arrays["concept_ids"].append(captions.values)
        arrays["cosines"].append(cosines)
        self._add_vectors(vectors, part)
        self.rows += len(vectors)

    def finish(
        self,
        neighbours: int = 8,
        nprobe: int = 0,
        target_recall: float = 0.99,
        queries: int = 500,
        extra: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Join the parts, choose and measure the search, and put the folder in its place.

        Args:
            neighbours: L of the recall@L that is measured.
            nprobe: lists a query visits; 0: the fewest that reach ``target_recall``.
            target_recall: see ``nprobe``.
            queries: rows of the index whose neighbours are compared with exact search.
            extra: goes into index.json.

        Returns:
            index.json.
        """
        if self.rows != self.spec.rows:
            raise ValueError(f"{self.rows} rows were added to an index of {self.spec.rows}")
        self._flush_merging()
        self._close()
        self._write_keys()
        with pa.ipc.new_file(str(self._build / "concepts.arrow"), self.concepts.schema) as sink:
            sink.write_table(self.concepts.combine_chunks(), max_chunksize=max(1, len(self.concepts)))
        self._write_separations()
        self._join_splits()
        metadata = self._metadata(extra or {})
        self._write_metadata(metadata)
        quality = tune(open_index(self._build), neighbours, nprobe, target_recall, queries)
        metadata["search"] = asdict(quality)
        for facts in metadata["files"]:
            metadata["files"][facts]["crc32"] = file_checksum(self._build / facts)
        self._write_metadata(metadata)
        self._build.replace(self.folder)
        return metadata

    def _add_keys(self, keys: pa.Array | pa.ChunkedArray) -> None:
        offsets, data = string_buffers(keys)
        self._arrays["key_hashes"].append(hash_keys(keys))
        self._arrays["key_offsets"].append(offsets[1:] + self._key_end)
        self._key_bytes.write(data.data)
        self._key_end += len(data)

    def _add_vectors(self, vectors: np.ndarray, part: bytes) -> None:
        """Distribute a unit over the splits it touches."""
        done = 0
        while done < len(vectors):
            start, end = self._edges[len(self._vectors) - 1]
            room = end - (start + self._vectors[-1].rows)
            if not room:
                self._flush_merging()
                self._next_split()
                continue
            taken = vectors[done : done + room]
            self._vectors[-1].append(taken)
            if self.spec.kind != "flat":
                self._merge(taken, part if len(taken) == len(vectors) else b"")
            done += len(taken)

    def _merge(self, vectors: np.ndarray, part: bytes) -> None:
        """Into the index that collects small parts; it goes to disk when it is large enough."""
        if self._merging is None:
            self._merging = faiss.deserialize_index(np.frombuffer(self.trained, np.uint8))
        if part:
            filled = faiss.deserialize_index(np.frombuffer(part, np.uint8))
            if filled.ntotal != len(vectors):
                raise ValueError(f"a part of the index has {filled.ntotal} vectors of {len(vectors)}")
            self._merging.merge_from(filled, self._merging.ntotal)
        else:
            self._merging.add(np.ascontiguousarray(vectors, dtype=np.float32))
        if self._merging.ntotal >= _MERGED_ROWS:
            self._flush_merging()

    def _flush_merging(self) -> None:
        if self._merging is not None:
            parts = self._parts[len(self._vectors) - 1]
            path = self._build / f"part-{len(self._vectors) - 1:03d}-{len(parts):05d}.faiss"
            faiss.write_index(self._merging, str(path))
            parts.append(path)
            self._merging = None

    def _next_split(self) -> None:
        folder = split_folder(self._build, len(self._vectors), self.spec.splits)
        self._vectors.append(ArrayFile(folder / "vectors.npy", np.float16, self.spec.d))

    def _close(self) -> None:
        for array in (*self._arrays.values(), *self._vectors):
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

    def _join_splits(self) -> None:
        for number, parts in enumerate(self._parts):
            folder = split_folder(self._build, number, self.spec.splits)
            vectors = np.load(folder / "vectors.npy", mmap_mode="r")
            join_parts(self.trained, parts, vectors, folder / "index.faiss")
            for part in parts:
                part.unlink()

    def _metadata(self, extra: dict[str, Any]) -> dict[str, Any]:
        files = sorted(path for path in self._build.rglob("*") if path.is_file())
        return {
            "format": FORMAT,
            "kind": self.spec.kind,
            "metric": "inner product of L2-normalised vectors",
            "d": self.spec.d,
            "rows": self.rows,
            "concepts": len(self.concepts),
            "occurrences": self._arrays["concept_ids"].rows,
            "splits": self.spec.splits,
            "split_rows": self._edges,
            "parameters": self.spec.to_dict(),
            "search": asdict(SearchQuality()),
            "files": {
                str(path.relative_to(self._build)): {"bytes": path.stat().st_size, "crc32": 0}
                for path in files
            },
            **extra,
        }

    def _write_metadata(self, metadata: dict[str, Any]) -> None:
        (self._build / "index.json").write_text(json.dumps(metadata, indent=1) + "\n", encoding="utf-8")

"""FAISS files: training, filling in parallel, and joining the parts in constant memory.

FAISS can merge indexes in memory, or on disk into a pair of files with a stored path. An index of 27
million vectors should neither pass through the driver's memory nor know where it was built, so the two
layouts that are needed (a flat array, inverted lists) are written here as a stream: the trained, empty
index is serialised by FAISS, the number of vectors in it is replaced, and the vectors follow.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import faiss
import numpy as np

from configs.errors import UserError
from curation.index.spec import IndexSpec

__all__ = ["fill_part", "join_parts", "open_faiss", "train"]

_COUNT_OFFSET = 8  # of the header: four letters, the dimension (int32), then the number of vectors (int64)
_TRAINING_VECTORS_PER_LIST = 64


def train(sample: np.ndarray, spec: IndexSpec) -> bytes:
    """The trained, empty index of one (sub-)index, serialised: small enough to broadcast.

    Args:
        sample: (m, d) float32 or float16 vectors, drawn from all rows; not used by flat.
        spec: the decision of ``choose_index``.

    Raises:
        UserError: the sample is smaller than the number of lists.
    """
    index = faiss.index_factory(spec.d, spec.factory, faiss.METRIC_INNER_PRODUCT)
    if spec.kind != "flat":
        vectors = np.ascontiguousarray(sample, dtype=np.float32)
        needed = max(spec.nlist, 256 if spec.kind == "ivfpq" else 1)
        if len(vectors) < needed:
            raise UserError(
                f"the training sample of the index has {len(vectors)} rows and its kind {spec.kind} needs "
                f"{needed}; write a smaller index.nlist, a larger index.train_rows or index.kind=flat"
            )
        index.cp.min_points_per_centroid = 1  # no warnings on stderr; choose_index keeps to 39
        index.cp.max_points_per_centroid = _TRAINING_VECTORS_PER_LIST
        if spec.kind == "ivfpq":
            index.pq.cp.min_points_per_centroid = 1
        index.train(vectors)
    return faiss.serialize_index(index).tobytes()


def fill_part(trained: bytes, vectors: np.ndarray) -> bytes:
    """A part's vectors (n, d) in the trained index, serialised; rows count from 0 in every part.

    For flat the vectors are the index: nothing is computed and the result is empty.
    """
    index = _deserialise(trained)
    if isinstance(index, faiss.IndexFlat):
        return b""
    index.add(np.ascontiguousarray(vectors, dtype=np.float32))
    return faiss.serialize_index(index).tobytes()


def join_parts(trained: bytes, parts: Sequence[Path], vectors: np.ndarray, out: Path) -> None:
    """Write the whole index to ``out``.

    Args:
        trained: from ``train``.
        parts: files with the bytes of ``fill_part`` in the order of their rows (not used by flat).
        vectors: (n, d) float16 of all rows, memory-mapped (only used by flat).
        out: the file to write; it can be memory-mapped by ``open_faiss``.

    Raises:
        RuntimeError: FAISS does not read back what was written.
    """
    empty = _deserialise(trained)
    with out.open("wb") as stream:
        if isinstance(empty, faiss.IndexFlat):
            count = len(vectors)
            stream.write(_flat_header(empty.d, count))
            for block in _blocks(vectors):
                stream.write(np.ascontiguousarray(block, dtype="<f4").data)
        else:
            indexes = [faiss.read_index(str(part), faiss.IO_FLAG_MMAP) for part in parts]
            count = sum(index.ntotal for index in indexes)
            stream.write(_lists_header(trained, empty, indexes, count))
            for data in _list_contents(empty, indexes):
                stream.write(data)
    if open_faiss(out).ntotal != count:
        raise RuntimeError(f"FAISS {faiss.__version__} does not read back the index of {count} rows in {out}")


def open_faiss(path: Path) -> faiss.Index:
    """Memory-map an index file: pages are shared by all processes of the host.

    Raises:
        UserError: FAISS cannot read it.
    """
    with path.open("rb") as stream:
        flat = stream.read(4) == b"IxFI"
    flags = faiss.IO_FLAG_MMAP_IFC if flat else faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY
    try:
        return faiss.read_index(str(path), flags)
    except RuntimeError as error:
        cause = str(error).strip().splitlines()[-1]
        raise UserError(f"{path} is not a FAISS index ({cause}); build the index again") from error


def _deserialise(data: bytes) -> faiss.Index:
    return faiss.deserialize_index(np.frombuffer(data, dtype=np.uint8))


def _blocks(vectors: np.ndarray, rows: int = 16_384) -> Iterator[np.ndarray]:
    for start in range(0, len(vectors), rows):
        yield vectors[start : start + rows]


def _flat_header(d: int, count: int) -> bytes:
    """The head of an exact index of ``count`` vectors: FAISS's own of an empty one with the counts set."""
    header = bytearray(faiss.serialize_index(faiss.IndexFlatIP(d)).tobytes())
    struct.pack_into("<q", header, _COUNT_OFFSET, count)
    struct.pack_into("<Q", header, len(header) - 8, count * d)
    return bytes(header)


def _lists_header(trained: bytes, empty: faiss.Index, parts: Sequence[faiss.Index], count: int) -> bytes:
    """The head of an inverted index: all of the empty one up to its lists, then the lists' sizes."""
    header = bytearray(trained[: trained.rindex(b"ilar")])
    struct.pack_into("<q", header, _COUNT_OFFSET, count)
    sizes = sum((_list_sizes(part) for part in parts), np.zeros(empty.nlist, np.uint64))
    header += b"ilar" + struct.pack("<QQ", empty.nlist, empty.code_size)
    header += b"full" + struct.pack("<Q", empty.nlist) + sizes.astype("<u8").tobytes()
    return bytes(header)


def _list_sizes(index: faiss.Index) -> np.ndarray:
    lists = index.invlists
    return np.array([lists.list_size(number) for number in range(index.nlist)], dtype=np.uint64)


def _list_contents(empty: faiss.Index, parts: Sequence[faiss.Index]) -> Iterator[memoryview]:
    """List by list the codes of all parts, then their row numbers counted on from part to part."""
    starts = np.cumsum([0, *(part.ntotal for part in parts)])
    for number in range(empty.nlist):
        sizes = [part.invlists.list_size(number) for part in parts]
        filled = [
            (part, size, start) for part, size, start in zip(parts, sizes, starts, strict=False) if size
        ]
        for part, size, _ in filled:
            yield faiss.rev_swig_ptr(part.invlists.get_codes(number), size * empty.code_size).data
        for part, size, start in filled:
            yield (faiss.rev_swig_ptr(part.invlists.get_ids(number), size) + start).astype("<i8").data

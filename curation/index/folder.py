"""The index folder: which files it has, how they are checked, and opening them without reading them.

    index.json           what follows, in numbers; written last, so that a folder without it is not an index
    centroids.npy        float32 (lists, d), the centres of the inverted lists; none of them for flat
    vectors-NNNNN.npy    float16 (m, d), list after list; where index.json says: it may lie beside the folder  }
    rows-NNNNN.npy       int64 (m,), the row of each                            } for each of the segments
    list_offsets-NNNNN.npy  int64 (lists + 1,)                                  }
    keys.arrow           large_string key of every row
    key_hashes.npy       uint64 (n,), ``keys.hash_keys`` of them
    offsets.npy          int64 (n + 1,)   }
    concept_ids.npy      int32 (m,)       } concepts of every row's own caption, and their cosines s(t, x_j)
    cosines.npy          float32 (m,)     }
    concepts.arrow       concept_id int32, concept string, embedding fixed_size_list<float32>[d],
                         cosine_mean float32, cosine_std float32
    separation.npy       float32 (V,), ``curation.separation``

A segment holds the vectors of some of the rows; what is added to an index is a further segment. A split is some
of the lists, whole, of all segments, so that a query visits the same lists however many splits there are; it is a
view and no file. Every other array is in the order of the rows. Everything is memory-mapped: any number of
processes of a host share one copy. Nothing in it can run code when it is read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from configs.errors import UserError
from curation.csr import Csr
from curation.index.lists import Lists, Segment
from curation.mapped_files import check_file, open_array, read_description

__all__ = ["FORMAT", "OpenIndex", "Split", "open_index"]

FORMAT = "cocu-index-4"
_KEYS = "d rows kind parameters segments splits split_lists occurrences concepts files".split()
CONCEPT_COLUMNS = ("concept_id", "concept", "embedding", "cosine_mean", "cosine_std")


@dataclass
class Split:
    """Some of the lists, from number ``first_list`` on; ``gpu`` is a FAISS index of the vectors at their places."""

    first_list: int
    lists: Lists
    gpu: Any = None


@dataclass
class OpenIndex:
    """A memory-mapped index.

    Attributes:
        folder: where it is.
        kind: flat or ivf.
        d: dimension; rows: vectors.
        splits: those that were opened, in order.
        centroids: float32 (lists, d), of all splits; (0, d) for flat.
        keys: large_string (rows,); key_hashes: uint64 (rows,).
        captions: concept ids of the captions of all rows.
        cosines: float32, parallel to ``captions.values``.
        concepts: strings (V,).
        concept_embeddings: float32 (V, d), L2-normalised.
        cosine_mean, cosine_std: float32 (V,): of the concept's cosine with the images of the corpus.
        separation: float32 (V,): how much higher the cosine is where the caption names the concept.
        metadata: index.json.
        nprobe: lists that a query visits; whoever opens the index sets it (``curation.index.tuning``).
    """

    folder: Path
    kind: str
    d: int
    rows: int
    splits: list[Split]
    centroids: np.ndarray
    keys: pa.Array
    key_hashes: np.ndarray
    captions: Csr
    cosines: np.ndarray
    concepts: pa.Array
    concept_embeddings: np.ndarray
    cosine_mean: np.ndarray
    cosine_std: np.ndarray
    separation: np.ndarray
    metadata: dict[str, Any]
    nprobe: int = 1
    _products: tuple[np.ndarray, np.ndarray] | None = field(default=None, repr=False)
    _places: np.ndarray | None = field(default=None, repr=False)

    @property
    def device(self) -> str:
        """Where ``search`` runs: gpu or cpu."""
        return "gpu" if self.splits and all(split.gpu is not None for split in self.splits) else "cpu"

    def products_with(self, rows: np.ndarray, vector: np.ndarray) -> np.ndarray:
        """``vector . x_row`` of the stored vectors of some rows, whose splits must be open.

        The products of all rows are computed when a vector is met for the first time, from front to back, and
        kept: reading the rows of every pair's neighbours at random would cost more than finding them.

        Args:
            rows: int64 (m,). vector: (d,).

        Returns:
            float32 (m,).
        """
        if self._products is None or not np.array_equal(self._products[0], vector):
            every = np.zeros(self.rows, np.float32)
            for split in self.splits:
                split.lists.put_products(vector, every)
            self._products = (np.array(vector), every)
        return self._products[1][rows]

    def vectors_of(self, rows: np.ndarray) -> np.ndarray:
        """The stored vectors of some rows, whose splits must be open; of -1 zeros.

        Where each row is, 4 bytes a row of the index, is found when this is first asked for, and kept.

        Args:
            rows: int64, of any shape.

        Returns:
            float32 (*rows.shape, d).
        """
        if self._places is None:
            self._places = np.full(self.rows, -1, np.int32 if self.rows < 2**31 else np.int64)
            begin = 0
            for segment in (segment for split in self.splits for segment in split.lists.segments):
                self._places[segment.rows] = np.arange(begin, begin + len(segment.rows))
                begin += len(segment.rows)
        vectors = np.zeros((rows.size, self.d), np.float32)
        flat = rows.ravel()
        places = np.where(flat >= 0, self._places[np.maximum(flat, 0)], -1)
        begin = 0
        for split in self.splits:
            here = np.flatnonzero((places >= begin) & (places < begin + len(split.lists)))
            here = here[np.argsort(places[here])]  # in the order of the files
            vectors[here] = split.lists.vectors_at(places[here] - begin)
            begin += len(split.lists)
        return vectors.reshape(*rows.shape, self.d)


def open_index(folder: str | Path, check: str = "sizes", splits: list[int] | None = None) -> OpenIndex:
    """Open a local index folder.

    Args:
        folder: the folder.
        check: ``sizes`` compares the size of every file with index.json; ``full`` also their checksums and
            that the concept ids and offsets are possible ones (reads everything once: after a copy).
        splits: numbers of the splits to open; None: all.

    Raises:
        UserError: no index there, another version's, or a file that is missing, truncated or altered.
    """
    root = Path(folder)
    metadata = read_description(root, "index.json", FORMAT, _KEYS, "build_index")
    d, rows, count = metadata["d"], metadata["rows"], metadata["splits"]
    chosen = range(count) if splits is None else splits
    for name, facts in metadata["files"].items():
        check_file(root, name, facts, full=check == "full")
    captions = Csr(
        open_array(root, "offsets.npy", np.int64, (rows + 1,)),
        open_array(root, "concept_ids.npy", np.int32, (metadata["occurrences"],)),
    )
    concepts = _open_concepts(root, d, metadata["concepts"])
    _check_offsets(root, captions, len(concepts["concept"]), full=check == "full")
    numbers = range(len(metadata["segments"]))
    segments = [_open_segment(root, number, metadata, check == "full") for number in numbers]
    return OpenIndex(
        folder=root,
        kind=metadata["kind"],
        d=d,
        rows=rows,
        splits=[_split(segments, *metadata["split_lists"][number]) for number in chosen],
        centroids=_open_centroids(root, metadata),
        keys=_open_keys(root, rows),
        key_hashes=open_array(root, "key_hashes.npy", np.uint64, (rows,)),
        captions=captions,
        cosines=open_array(root, "cosines.npy", np.float32, (metadata["occurrences"],)),
        concepts=concepts["concept"],
        concept_embeddings=concepts["embedding"],
        cosine_mean=concepts["cosine_mean"],
        cosine_std=concepts["cosine_std"],
        separation=open_array(root, "separation.npy", np.float32, (metadata["concepts"],)),
        metadata=metadata,
    )


def _open_centroids(root: Path, metadata: dict[str, Any]) -> np.ndarray:
    lists = 0 if metadata["kind"] == "flat" else metadata["parameters"]["nlist"]
    return open_array(root, "centroids.npy", np.float32, (lists, metadata["d"]))


def _open_segment(root: Path, number: int, metadata: dict[str, Any], full: bool) -> Segment:
    facts = metadata["segments"][number]
    # An exact index has lists as well: they say where it can be cut.
    offsets_file, rows_file = (f"{name}-{number:05d}.npy" for name in ("list_offsets", "rows"))
    offsets = np.array(open_array(root, offsets_file, np.int64, (metadata["parameters"]["nlist"] + 1,)))
    rows = open_array(root, rows_file, np.int64, (facts["rows"],))
    vectors = open_array(root, facts["vectors"], np.float16, (len(rows), metadata["d"]))
    sound = offsets[0] == 0 and offsets[-1] == len(rows) and bool((np.diff(offsets) >= 0).all())
    if sound and full and len(rows):
        sound = int(rows.min()) >= 0 and int(rows.max()) < metadata["rows"]
    if not sound:
        raise UserError(f"{offsets_file} and {rows_file} in {root} do not fit each other; build it again")
    return Segment(vectors, offsets, rows)


def _split(segments: list[Segment], first: int, last: int) -> Split:
    """Lists ``first`` to ``last`` - 1 of all segments, as views."""
    views = []
    for segment in segments:
        begin, end = int(segment.offsets[first]), int(segment.offsets[last])
        offsets = segment.offsets[first : last + 1] - begin
        views.append(Segment(segment.vectors[begin:end], offsets, segment.rows[begin:end]))
    return Split(first, Lists(tuple(views)))


def _open_table(path: Path) -> pa.Table:
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} is not an Arrow file ({error}); build the index again") from error


def _open_keys(root: Path, rows: int) -> pa.Array:
    table = _open_table(root / "keys.arrow")
    if table.num_rows != rows or table.column_names != ["key"]:
        raise UserError(
            f"{root / 'keys.arrow'} has {table.num_rows} rows where index.json says {rows}; build it again"
        )
    return table["key"].chunk(0)


def _open_concepts(root: Path, d: int, count: int) -> dict[str, Any]:
    table = _open_table(root / "concepts.arrow")
    width = table["embedding"].type.list_size if "embedding" in table.column_names else 0
    if tuple(table.column_names) != CONCEPT_COLUMNS or (table.num_rows, width) != (count, d):
        raise UserError(
            f"{root / 'concepts.arrow'} has {table.num_rows} concepts of dimension {width} where index.json "
            f"says {count} of {d}; build the index again"
        )
    columns = {name: table[name].combine_chunks() for name in CONCEPT_COLUMNS}
    return {
        "concept": columns["concept"],
        "embedding": columns["embedding"].flatten().to_numpy().reshape(count, d),
        "cosine_mean": columns["cosine_mean"].to_numpy(),
        "cosine_std": columns["cosine_std"].to_numpy(),
    }


def _check_offsets(root: Path, captions: Csr, concepts: int, full: bool) -> None:
    offsets, ids = captions.offsets, captions.values
    sound = offsets[0] == 0 and offsets[-1] == len(ids)
    if sound and full:
        sound = bool((np.diff(offsets) >= 0).all()) and (
            not len(ids) or (int(ids.min()) >= 0 and int(ids.max()) < concepts)
        )
    if not sound:
        raise UserError(f"offsets.npy and concept_ids.npy in {root} do not fit each other; build it again")

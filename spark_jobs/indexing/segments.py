"""The segments of an index: vectors of some parts in the order of their lists, each written once by a task.

The files lie in `index/_parts/vectors`, where the index names them: nothing copies them into it. The table
`index_parts` says what they are made of, and holds for every row its list and the cosines of its caption's concepts.
It stays when the index is there: one of more pairs, with the same centres, takes over the segments that it can.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs

from curation import index as faiss_index
from curation.csr import Csr
from curation.index import VectorFile
from spark_jobs.engine.folders import BESIDE
from spark_jobs.engine.index_inputs import read_concepts, read_part, read_words
from spark_jobs.engine.units import finish_unit, part_address
from spark_jobs.engine.waves import attempt_name
from storage import tables
from storage.addresses import join, make_folder, resolve
from storage.tables import Manifest
from storage.units import Unit, UnitRecord

__all__ = [
    "TABLE",
    "Segment",
    "encode_unit",
    "forget_lost",
    "grouped",
    "members_of",
    "place_rows",
    "segments_of",
    "write_vectors",
]

TABLE = "index_parts"
_FOLDER = "vectors"
_LEAST_ROWS = 100_000  # of a segment: tasks enough for a cluster
_MOST_ROWS = 500_000  # and few pieces of a list
_MOST_SMALL = 8  # segments of less than half of the least, before their parts become new ones


@dataclass(frozen=True)
class Segment:
    """One that is written: the parts it holds, its vectors, and where its rows of `index_parts` are."""

    members: tuple[str, ...]
    vectors: VectorFile
    address: str


def grouped(units: Sequence[Unit], standing: Sequence[Sequence[str]] = ()) -> list[Unit]:
    """One unit a segment: parts joined until they are enough, within a corpus and in order.

    Args:
        units: one a part; payload: addresses of its embeddings and of its captions' concepts.
        standing: names of the parts of each segment that is there. Those that are all among ``units`` stay together,
            unless there are many small ones; other parts become new segments.
    """
    by_name = {unit.name: unit for unit in units}
    rows = sum(unit.rows for unit in units)
    most = min(max(_LEAST_ROWS, rows // 64), _MOST_ROWS)
    kept = [[by_name[name] for name in names] for names in standing if all(name in by_name for name in names)]
    small = [group for group in kept if sum(unit.rows for unit in group) < _LEAST_ROWS / 2]
    if len(small) > _MOST_SMALL:
        kept = [group for group in kept if group not in small]
    taken = {unit.name for group in kept for unit in group}
    groups, held, last = kept, 0, ""
    for unit in units:
        if unit.name in taken:
            continue
        corpus = unit.name.partition("/")[0]
        if corpus != last or held >= most:
            groups.append([])
            held, last = 0, corpus
        groups[-1].append(unit)
        held += unit.rows
    return [_group(group) for group in groups]


def _group(members: Sequence[Unit]) -> Unit:
    content = hashlib.sha256(
        "\n".join(f"{unit.name} {unit.content}" for unit in members).encode()
    ).hexdigest()
    payload = tuple((unit.name, *unit.payload) for unit in members)
    return Unit(members[0].name, sum(unit.rows for unit in members), payload, content=content)


def members_of(parts: Manifest | None) -> list[list[str]]:
    """Names of the parts in each segment of a table `index_parts`."""
    return [] if parts is None else [record.extra["members"] for record in parts.units]


def encode_unit(unit: Unit, folder: str, recipe: str) -> UnitRecord:
    """Write a segment, the list of its every row, and the cosines of its captions' concepts (on an executor)."""
    members, concept_files, trained, workspace = unit.payload
    embeddings = read_concepts(concept_files)[1]
    read = [read_part(images, captions) for _, images, captions in members]
    vectors = np.concatenate([part[1] for part in read])
    lists = faiss_index.lists_of(trained.value, vectors)
    written = write_vectors(workspace, "index", vectors, lists)
    cosines = [
        Csr(words.offsets, faiss_index.caption_cosines(some, words, embeddings)).to_list_array()
        for _, some, words in read
    ]
    rows = pa.table({"list": lists, "cosines": pa.chunked_array(cosines)})
    extra = {"members": [name for name, *_ in members], "vectors": written}
    return finish_unit(unit, folder, recipe, rows, extra=extra)


def write_vectors(workspace: str, table: str, vectors: np.ndarray, lists: np.ndarray) -> dict[str, Any]:
    """Write a segment's vectors in the order of their lists, below a table's `_parts`: what a `VectorFile` says of them."""
    file = f"{attempt_name()}.npy"
    filesystem, path = resolve(join(workspace, table, "_parts", _FOLDER, file))
    make_folder(filesystem, path.rpartition("/")[0])
    with filesystem.open_output_stream(path) as stream:
        facts = faiss_index.write_array(stream, vectors[faiss_index.in_list_order(lists)])
    return {"path": BESIDE + f"{_FOLDER}/{file}", **facts}


def segments_of(parts: Manifest) -> list[Segment]:
    """What a complete table `index_parts` names, in the order of its units."""
    return [
        Segment(
            tuple(record.extra["members"]), VectorFile(**record.extra["vectors"]), part_address(parts, part)
        )
        for record in parts.units
        for part in record.parts
    ]


def place_rows(
    writer: faiss_index.IndexWriter,
    segments: Sequence[Segment],
    pairs: Mapping[str, tuple[str, str]],
    rows: Mapping[str, int],
) -> None:
    """Put segments into an index: their rows in the order of ``pairs``, wherever their vectors lie.

    Args:
        writer: of the index.
        segments: all of it.
        pairs: part -> addresses of its embeddings and of its captions' concepts, in the order of the rows.
        rows: part -> how many it has.
    """
    first = dict(zip(rows, np.cumsum([0, *rows.values()]).tolist(), strict=False))
    place = {}  # part -> its segment and first row in it
    for segment in segments:
        begin = 0
        for name in segment.members:
            place[name] = segment.address, begin
            begin += rows[name]
    for name, (images, captions) in pairs.items():
        keys, words = read_words(images, captions)
        address, begin = place[name]
        cosines = Csr.from_list_array(_encoded(address).column("cosines")[begin : begin + len(keys)])
        writer.add_rows(keys, words, cosines.values)
    for segment in segments:
        numbers = [np.arange(first[name], first[name] + rows[name]) for name in segment.members]
        lists = tables.read_file(segment.address, ["list"]).column("list").to_numpy()
        writer.add_segment(np.concatenate(numbers), lists, segment.vectors)


@lru_cache(maxsize=2)
def _encoded(address: str) -> pa.Table:
    return tables.read_file(address, ["cosines"])


def forget_lost(workspace: str, found: Manifest | None, index: Manifest | None) -> Manifest | None:
    """``found`` of the table `index_parts`; nothing where a file that it names is gone, and the table is removed.

    Args:
        workspace: the tables'.
        found: complete, or what is committed.
        index: one whose segments are not to be taken over (it is damaged, or is to be built anew); None: none.
    """
    if found is None:
        return None
    named = {record.extra["vectors"]["path"] for record in found.units}
    filesystem, folder = resolve(join(workspace, "index", "_parts", _FOLDER))
    infos = filesystem.get_file_info(pafs.FileSelector(folder, allow_not_found=True))
    there = {f"{BESIDE}{_FOLDER}/{info.base_name}" for info in infos}
    refused = () if index is None else [segment["vectors"] for segment in index.extra["index"]["segments"]]
    if named <= there and named.isdisjoint(refused):
        return found
    tables.remove_table(workspace, TABLE)
    return None

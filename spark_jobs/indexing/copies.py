"""Which images are copies of one another, and in which groups: two scratch tables of find_duplicates.

`duplicate_links` has for every group of parts (and split of the index) the strongest links of its images;
`duplicate_groups` is made of them by one task, whose memory follows the images that have copies: some 150 bytes each.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession

from configs.schema import CocuConfig
from curation import index as faiss_index
from curation.duplicates import Links, group, joined, links_of
from curation.index.above import copies_nprobe
from spark_jobs.engine.commits import build_scratch
from spark_jobs.engine.index_cache import local_index
from spark_jobs.engine.index_inputs import read_vectors
from spark_jobs.engine.table_job import TableJob
from spark_jobs.engine.units import finish_unit
from spark_jobs.engine.waves import attempt_name, map_units
from spark_jobs.indexing.vectors import JOB, Place, Scores, starts_of
from storage import tables
from storage.tables import Manifest
from storage.units import Part, Unit, UnitRecord

__all__ = ["GROUPS", "LINKS", "find_groups", "find_links"]

LINKS, GROUPS = "duplicate_links", "duplicate_groups"
_ALL = "groups/all"


def find_links(
    session: SparkSession, config: CocuConfig, groups: Sequence[Unit], index: Manifest
) -> Manifest:
    """The table of links of all images: one part for every group of parts and split of the index.

    Args:
        session: where to run it.
        config: ``duplicates.similarity``; ``index.target_recall`` of the copies are to be found.
        groups: of parts.
        index: manifest of the index of their vectors.
    """
    place = _place(index)
    similarity, recall = config.duplicates.similarity, config.index.target_recall

    def tune(_unit: Unit) -> str:
        return str(copies_nprobe(local_index(*place), similarity, recall))

    nprobe = int(map_units(session, [Unit("tune", 0)], tune)[0])
    if nprobe:
        print(f"{JOB}: {nprobe} lists are visited for each image", flush=True)
    splits = index.extra[index.table]["splits"]
    job = TableJob(
        job=JOB,
        table=LINKS,
        settings={"similarity": similarity, "nprobe": nprobe, "groups": len(groups)},
        inputs={index.table: index.recipe},
        units=[
            Unit(f"{unit.name}.split{split:03d}", unit.rows, (unit.payload, start, place, split, nprobe, similarity))
            for split in range(splits)
            for unit, start in zip(groups, starts_of(groups), strict=True)
        ],
        task=link_unit,
        what="searches",
        whole=True,
    )  # fmt: skip
    return build_scratch(session, config, job)


def find_groups(
    session: SparkSession,
    config: CocuConfig,
    groups: Sequence[Unit],
    index: Manifest,
    scores: Sequence[Scores],
    links: Manifest,
) -> Manifest:
    """The table of groups of copies, rows instead of keys: a part for every group of parts, in their order.

    Args:
        session: where to run it.
        config: where the tables are.
        groups: of parts.
        index: manifest of the index of their vectors.
        scores: of all rows.
        links: from ``find_links``.
    """
    ranges = [(unit.name, start, unit.rows) for unit, start in zip(groups, starts_of(groups), strict=True)]
    payload = (tuple(links.files), ranges, tuple(scores), _place(index))
    job = TableJob(
        job=JOB,
        table=GROUPS,
        settings={"groups": len(groups)},
        inputs={links.table: links.recipe, index.table: index.recipe},
        units=[Unit(_ALL, sum(unit.rows for unit in groups), payload)],
        task=group_unit,
        what="links",
        whole=True,
    )
    return build_scratch(session, config, job)


def _place(index: Manifest) -> Place:
    return index.workspace, index.extra["folder"], index.recipe, index.table


def link_unit(unit: Unit, folder: str, recipe: str) -> UnitRecord:
    """Links of a group of parts with the images of one split (runs on an executor)."""
    members, start, place, split, nprobe, similarity = unit.payload
    index = _split_of(place, split)
    index.nprobe = nprobe
    vectors = np.concatenate([read_vectors(address) for _, address, _ in members])
    links = links_of(index, np.arange(start, start + len(vectors)), vectors, similarity)
    return finish_unit(unit, folder, recipe, _to_table(links))


@lru_cache(maxsize=1)
def _split_of(place: Place, split: int) -> faiss_index.OpenIndex:
    return faiss_index.open_index(local_index(*place).folder, splits=[split])


def group_unit(unit: Unit, folder: str, recipe: str) -> UnitRecord:
    """All groups, from all links (runs on an executor)."""
    files, ranges, scores, place = unit.payload
    links = joined(_from_table(tables.read_file(file)) for file in files)
    rows = np.unique(np.concatenate([links.rows, links.others]))
    known = np.full(len(rows), np.nan, np.float32)
    for some in scores:
        first, last = np.searchsorted(rows, (some.start, some.start + some.rows))
        if last > first:
            read = tables.read_file(some.address, ["score"]).column("score").to_numpy()
            known[first:last] = read[rows[first:last] - some.start]
    keys = local_index(*place).keys
    found = group(links, known, keys.take(pa.array(rows)))
    table = pa.table({name: getattr(found, name) for name in ("rows", "groups", "places", "representatives", "similarities")})  # fmt: skip
    parts = []
    for name, start, count in ranges:
        first, last = np.searchsorted(found.rows, (start, start + count))
        file = tables.part_path(recipe, name, attempt_name())
        some = table.slice(int(first), int(last - first))
        parts.append(Part(name, file, tables.write_part(folder, file, some, some.schema)))
    sizes = np.bincount(found.groups)
    facts = {"groups": len(sizes), "largest": int(sizes.max(initial=0))}
    return UnitRecord(unit.name, tuple(parts), len(table), extra=facts)


def _to_table(links: Links) -> pa.Table:
    return pa.table({"row": links.rows, "other": links.others, "similarity": links.similarities})


def _from_table(table: pa.Table) -> Links:
    return Links(*(table.column(name).to_numpy() for name in ("row", "other", "similarity")))

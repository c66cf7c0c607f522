"""The search of build_archives as a stage of its own: many pairs against one split of the index.

A list's vectors are read once for all pairs of a task, so a task takes up to 100,000 of them. Of an index in
splits it reads one; a split follows when the one before it is done, so that a host has one of them in memory at a time,
and its tasks are told what was found so far: what is less similar is not looked at. Which lists a pair visits is the
same for all splits: it is found once and kept as `archive_visits` until the search is done. What is found so far
is a scratch table with a part for every part of `pairs`: `archive_neighbours` after the last split, and in turn it and
`archive_neighbours_before` after the others. They are removed when the archives are complete.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from pyspark import TaskContext
from pyspark.resource import ResourceProfile
from pyspark.sql import SparkSession

from configs.schema import CocuConfig
from curation import index as faiss_index
from curation.archives import neighbours_of
from curation.index.search import Neighbours
from spark_jobs.engine.commits import build_scratch
from spark_jobs.engine.index_cache import local_index
from spark_jobs.engine.index_inputs import read_vectors, read_vectors_and_keys
from spark_jobs.engine.table_job import TableJob
from spark_jobs.engine.units import part_address
from spark_jobs.engine.waves import attempt_name
from storage import tables
from storage.tables import Manifest
from storage.units import Part, Unit, UnitRecord

__all__ = [
    "Place",
    "find_neighbours",
    "forget_neighbours",
    "placed_index",
    "read_neighbours",
    "searched_apart",
    "task_threads",
]

_TABLES = ("archive_neighbours", "archive_neighbours_before")
_VISITS = "archive_visits"
Place = tuple[str, str, str]
"""Workspace, folder relative to `index/`, and recipe of an index."""

_LEAST_TASKS = 16  # what is left of a search that is cut short is little, and larger tasks read less
_MOST_PAIRS = 100_000
_MOST_NEIGHBOURS = 1 << 23  # found by a task at once: about 600 MB with what finding them takes


def searched_apart(index: Manifest, units: int) -> bool:
    """Whether the search is worth a stage of its own: the index is in splits, or there are many pairs."""
    return index.extra["index"]["splits"] > 1 or units >= 2 * _LEAST_TASKS


def find_neighbours(
    session: SparkSession,
    config: CocuConfig,
    units: Sequence[Unit],
    index: Manifest,
    nprobe: int,
    inputs: dict[str, str],
    profile: ResourceProfile | None,
) -> dict[str, str]:
    """For every unit the address of its part of `archive_neighbours`.

    Args:
        session: where to run it.
        config: whose section `archives` says what is searched for.
        units: of the archives; the first entry of a payload is the address of the embeddings.
        index: its manifest.
        nprobe: lists that a query visits.
        inputs: recipes of the tables that go in.
        profile: of the tasks.
    """
    options = config.archives
    place = (config.workspace, index.extra["folder"], index.recipe)
    splits = index.extra["index"]["splits"]
    groups = _groups(units, options.searched)
    # A card finds the lists by itself.
    visited_once = splits > 1 and index.extra["index"]["kind"] == "ivf" and profile is None

    @cache
    def visits() -> dict[str, str]:
        return _find_visits(session, config, groups, place, nprobe, inputs) if visited_once else {}

    def searches(split: int, before: Manifest | None) -> list[Unit]:
        found = _addresses(before) if before else {}
        return [
            Unit(
                group[0].name,
                sum(unit.rows for unit in group),
                (_members(group, visits(), found), place, split, nprobe, options),
            )
            for group in groups
        ]

    def job_of(split: int, before: Manifest | None = None) -> TableJob:
        return TableJob(
            job="build_archives",
            table=_TABLES[(splits - 1 - split) % 2],
            settings={
                "neighbours": options.searched,
                "include_anchor": options.include_anchor or options.ranking == "compat",
                "nprobe": nprobe,
                "groups": len(groups),
                "split": split,
                "splits": splits,
            },
            inputs=inputs,
            units=lambda: searches(split, before),
            task=search_unit,
            what="searches" if splits == 1 else f"searches in split {split + 1} of {splits}",
            profile=profile,
            whole=True,
            expected=len(groups),
        )

    found, first = None, 0
    if splits > 1 and config.verify:
        forget_neighbours(config)  # a lost part is not mended: what was found in the splits before it is gone
    elif splits > 1:
        # A run that was cut short goes on behind the last split that was done.
        split_of = {job_of(split).recipe: split for split in range(splits)}
        for table in _TABLES:
            left = tables.find_manifest(config.workspace, table)
            if left is not None and split_of.get(left.recipe, -1) >= first:
                found, first = left, split_of[left.recipe] + 1
    for split in range(first, splits):
        found = build_scratch(session, config, job_of(split, found))
    assert found is not None
    tables.remove_table(config.workspace, _VISITS)
    return _addresses(found)


def forget_neighbours(config: CocuConfig) -> None:
    """Remove what the search left for the archives."""
    for table in _TABLES:
        tables.remove_table(config.workspace, table)


def _addresses(found: Manifest) -> dict[str, str]:
    """Part of `pairs` -> where what was found for it is."""
    return {part.name: part_address(found, part) for part in found.parts}


def search_unit(unit: Unit, folder: str, recipe: str) -> UnitRecord:
    """Neighbours of a group of parts in one split and those before it (runs on an executor)."""
    members, place, split, nprobe, options = unit.payload
    index, _ = placed_index(place, options.device, split)
    index.nprobe = nprobe
    read = [read_vectors_and_keys(member.embeddings) for member in members]
    keys = pa.chunked_array([chunk for part in read for chunk in part[0].chunks], pa.string())
    visits = [_matrix(tables.read_file(member.visits), "lists") for member in members if member.visits]
    before = [read_neighbours(member.found) for member in members if member.found]
    found = neighbours_of(
        keys,
        np.concatenate([part[1] for part in read]),
        index,
        options,
        task_threads(),
        visits=np.concatenate(visits) if visits else None,
        before=(np.concatenate([some[0] for some in before]), np.concatenate([some[1] for some in before]))
        if before
        else None,
    )
    parts, start = [], 0
    for member, (some, _) in zip(members, read, strict=True):
        rows = _to_table(found, slice(start, start + len(some)), index.rows)
        file = tables.part_path(recipe, member.name, attempt_name())
        count = tables.write_part(folder, file, rows, rows.schema)
        parts.append(Part(member.name, file, count))
        start += len(some)
    return UnitRecord(unit.name, tuple(parts), start, extra={"device": index.device})


def _find_visits(
    session: SparkSession,
    config: CocuConfig,
    groups: Sequence[Sequence[Unit]],
    place: Place,
    nprobe: int,
    inputs: dict[str, str],
) -> dict[str, str]:
    """For every unit the address of the lists that its pairs visit, nearest first."""
    job = TableJob(
        job="build_archives",
        table=_VISITS,
        settings={"nprobe": nprobe, "groups": len(groups)},
        inputs=inputs,
        units=[
            Unit(group[0].name, sum(unit.rows for unit in group), (_members(group, {}, {}), place, nprobe))
            for group in groups
        ],
        task=visits_unit,
        whole=True,
    )
    return _addresses(build_scratch(session, config, job))


def visits_unit(unit: Unit, folder: str, recipe: str) -> UnitRecord:
    """The lists that a group of parts visits (runs on an executor)."""
    members, place, nprobe = unit.payload
    index, _ = placed_index(place, "cpu")
    index.nprobe = nprobe
    parts = []
    for member in members:
        visits = faiss_index.lists_to_visit(index, read_vectors(member.embeddings), task_threads())
        rows = pa.table({"lists": _as_column(visits)})
        file = tables.part_path(recipe, member.name, attempt_name())
        parts.append(Part(member.name, file, tables.write_part(folder, file, rows, rows.schema)))
    return UnitRecord(unit.name, tuple(parts), sum(part.rows for part in parts))


def read_neighbours(address: str) -> Neighbours:
    """What was found for one part of `pairs`."""
    table = tables.read_file(address)
    return _matrix(table, "rows").astype(np.int64), _matrix(table, "similarities")


def task_threads() -> int:
    """Cores of the task that calls."""
    context = TaskContext.get()
    return max(1, context.cpus()) if context else 1


@lru_cache(maxsize=1)
def placed_index(place: Place, device: str, split: int | None = None) -> tuple[faiss_index.OpenIndex, str]:
    """The index or one split of it, opened once a Python worker, on the GPU where that is asked for and possible.

    Returns:
        The index, and what was done in words.
    """
    index = local_index(*place)
    if split is not None:
        index = faiss_index.open_index(index.folder, splits=[split])
    return index, faiss_index.place_on_device(index, device)


def _groups(units: Sequence[Unit], neighbours: int) -> list[list[Unit]]:
    """Units that are searched for together: more the more there are, whatever the cluster, in their order."""
    most = min(_MOST_PAIRS, _MOST_NEIGHBOURS // (neighbours + 1))
    pairs = max(1, sum(unit.rows for unit in units) // _LEAST_TASKS)
    groups: list[list[Unit]] = []
    held = 0
    for unit in units:
        if not groups or held + unit.rows > min(most, pairs):
            groups.append([])
            held = 0
        groups[-1].append(unit)
        held += unit.rows
    return groups


class _Member(NamedTuple):
    """One part of `pairs` in a search: addresses."""

    name: str
    embeddings: str
    visits: str | None
    """of the lists to visit, where they were found before"""
    found: str | None
    """of what was found in the splits before"""


def _members(group: Sequence[Unit], visits: dict[str, str], found: dict[str, str]) -> tuple[_Member, ...]:
    return tuple(
        _Member(unit.name, unit.payload[0], visits.get(unit.name), found.get(unit.name)) for unit in group
    )


def _to_table(found: Neighbours, part: slice, index_rows: int) -> pa.Table:
    rows, similarities = found[0][part], found[1][part]
    kept = rows.astype(np.int32 if index_rows < 2**31 else np.int64)
    return pa.table({"rows": _as_column(kept), "similarities": _as_column(similarities)})


def _as_column(matrix: np.ndarray) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(matrix).ravel()), matrix.shape[1])


def _matrix(table: pa.Table, name: str) -> np.ndarray:
    column = table.column(name).combine_chunks()
    return column.flatten().to_numpy().reshape(len(column), column.type.list_size)

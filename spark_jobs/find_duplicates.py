"""After job 2, if wanted: image_embeddings -> duplicates. Which images are near-duplicates, in groups.

Each image is compared with those in the lists near it (`indexing/vectors.py`), the pairs above
`duplicates.similarity` are joined to groups (`indexing/copies.py`), and one image stands for each group. The driver
sees no row. The tables `duplicate_*` are of use until `duplicates` is complete, and are removed then.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession

from configs.schema import CocuConfig
from spark_jobs.engine.commits import build_table
from spark_jobs.engine.index_cache import local_index
from spark_jobs.engine.table_job import TableJob
from spark_jobs.engine.units import part_address, units_of
from spark_jobs.engine.waves import attempt_name
from spark_jobs.indexing.copies import GROUPS, LINKS, find_groups, find_links
from spark_jobs.indexing.training import spec_of
from spark_jobs.indexing.vectors import LISTS, PARTS, build_vector_index, starts_of
from spark_jobs.planning import plan_text
from storage import tables
from storage.tables import Manifest
from storage.units import Part, Unit, UnitRecord

__all__ = ["check", "main", "plan", "planned", "run"]

HELP = """\
Find near-duplicate images: reads image_embeddings, writes duplicates (key, group, place, representative,
similarity).

Images whose embeddings have a cosine above duplicates.similarity are copies, and copies of copies are of one
group. The highest image_text_score stands for a group where embed.text_score=true computed it, else the smallest
key. filters.duplicates=one (select_pairs) keeps one of each group. Up to 10,000 images are compared each with all;
above, inverted lists are searched, as many as find index.target_recall of the copies.

Example:
  spark-submit spark_jobs/find_duplicates.py --config configs/cc3m.yaml workspace=/data/cocu \\
      duplicates.similarity=0.95"""

_GROUP_ROWS, _LEAST_TASKS = 100_000, 16  # what is left of a run that is cut short is little

SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "group": pa.int64(),
        "place": pa.int32(),
        "representative": pa.string(),
        "similarity": pa.float32(),
    }
)


def check(config: CocuConfig) -> None:
    """What can be wrong before Spark starts."""
    units = _units(tables.read_manifest(config.workspace, "image_embeddings"))
    spec_of(config, [unit.payload[0] for unit in units], sum(unit.rows for unit in units))


def _units(images: Manifest) -> list[Unit]:
    """Parts of `image_embeddings` that have rows, with their addresses."""
    return [unit for unit in units_of(images) if unit.rows]


def _groups(units: list[Unit]) -> list[Unit]:
    """Parts joined to what one task searches for; a payload is the names and addresses of the members."""
    most = min(_GROUP_ROWS, max(1, sum(unit.rows for unit in units) // _LEAST_TASKS))
    groups: list[list[Unit]] = []
    held = most
    for unit in units:
        if held + unit.rows > most:
            groups.append([])
            held = 0
        groups[-1].append(unit)
        held += unit.rows
    return [
        Unit(
            group[0].name,
            sum(unit.rows for unit in group),
            tuple((unit.name, unit.payload[0], unit.rows) for unit in group),
        )
        for group in groups
    ]


def table_job(config: CocuConfig) -> TableJob:
    """What is to be built; the images are compared when it is."""
    images = tables.read_manifest(config.workspace, "image_embeddings")
    groups, options = _groups(_units(images)), config.index
    settings = {
        "similarity": config.duplicates.similarity,
        "kind": options.kind,
        "nlist": options.nlist,
        "train_rows": options.train_rows,
        "recall": options.target_recall,
    }
    return TableJob(
        job="find_duplicates",
        table="duplicates",
        settings=settings,
        inputs={"image_embeddings": images.recipe},
        units=groups,
        task=duplicates_unit,
        whole=True,
        common=settings,
        # A pair that is added may join any groups: no unit stands.
        contents={unit.name: f"{unit.name} of {images.recipe}" for unit in groups},
        sources=[images],
    )


def run(session: SparkSession, config: CocuConfig) -> Manifest:
    """Find duplicates, or find that they are found."""
    images = tables.read_manifest(config.workspace, "image_embeddings")
    job = table_job(config)
    parts, facts = _units(images), {}
    groups = _groups(parts)

    def units() -> list[Unit]:
        index, scores = build_vector_index(session, config, parts, images)
        links = find_links(session, config, groups, index)
        found = find_groups(session, config, groups, index, scores, links)
        facts.update(found.units[0].extra)
        place = (index.workspace, index.extra["folder"], index.recipe, index.table)
        return [
            replace(unit, payload=(unit.payload, start, part_address(found, part), place))
            for unit, start, part in zip(groups, starts_of(groups), found.parts, strict=True)
        ]

    def finish(manifest: Manifest) -> None:
        manifest.extra.update(facts)
        manifest.extra["text"] = in_words(manifest)

    job.units, job.expected, job.finish = units, len(groups), finish
    manifest = build_table(session, config, job)
    for table in (PARTS, LISTS, LINKS, GROUPS):  # not vectors without what says that they are written
        tables.remove_table(config.workspace, table)
    print(f"find_duplicates: {manifest.extra['text']}", flush=True)
    return manifest


def in_words(manifest: Manifest) -> str:
    """How many duplicates there are."""
    facts: dict[str, Any] = manifest.extra
    left = manifest.rows_in - manifest.rows + facts["groups"]
    return (
        f"{manifest.rows:,} of {manifest.rows_in:,} images are in {facts['groups']:,} groups of near-duplicates (above "
        f"{manifest.settings['similarity']:g}), the largest of {facts['largest']:,}; one of each would leave {left:,}"
    )


def duplicates_unit(unit: Unit, folder: str, recipe: str) -> UnitRecord:
    """The images of a group of parts that have copies, part by part (runs on an executor)."""
    members, start, address, place = unit.payload
    found = tables.read_file(address)
    rows = found.column("rows").to_numpy()
    keys = local_index(*place).keys
    table = pa.table(
        [
            keys.take(found.column("rows")).cast(pa.string()),
            *(found.column(name) for name in ("groups", "places")),
            keys.take(found.column("representatives")).cast(pa.string()),
            found.column("similarities"),
        ],
        schema=SCHEMA,
    )
    parts = []
    for name, _, count in members:
        first, last = np.searchsorted(rows, (start, start + count))
        file = tables.part_path(recipe, name, attempt_name())
        some = table.slice(int(first), int(last - first))
        parts.append(Part(name, file, tables.write_part(folder, file, some, SCHEMA)))
        start += count
    return UnitRecord(unit.name, tuple(parts), unit.rows)


def planned(config: CocuConfig) -> list[TableJob]:
    """What is to be built, once the tables that are read are there."""
    return [table_job(config)]


def plan(config: CocuConfig) -> str:
    """What `--plan` prints."""
    return plan_text(config, "find_duplicates", [("find_duplicates", planned)])


def main() -> None:
    """Entry of spark-submit."""
    from spark_jobs.engine.entry import job_entry

    job_entry("find_duplicates", HELP, ["duplicates", "index"], check, run, plan)


if __name__ == "__main__":
    from spark_jobs.find_duplicates import (
        main as entry,  # by its import name, so that executors find the task's function
    )

    entry()

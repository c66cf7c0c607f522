"""Between jobs 2 and 3, if wanted: pairs, image_embeddings -> selection. Which pairs the later steps work on.

Filters look at one pair each, but for `filters.duplicates`: of a group of near-duplicates that pair stays which is the
first in it that no other filter removes. So the others look at the groups' pairs before (`selecting/duplicates.py`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession

from configs.errors import UserError
from configs.schema import CocuConfig
from corpora.reasons import Reason
from spark_jobs.engine.commits import build_table
from spark_jobs.engine.table_job import TableJob
from spark_jobs.engine.units import RejectedRow, finish_unit, units_of
from spark_jobs.engine.waves import map_units
from spark_jobs.planning import plan_text
from spark_jobs.selecting.duplicates import (
    copies_and_chosen,
    found_duplicates,
    with_chosen,
    with_duplicates,
)
from spark_jobs.selecting.filters import check_filters, columns_of, removed_by
from storage import tables
from storage.selection import TABLE
from storage.tables import Manifest
from storage.units import Unit, UnitRecord

__all__ = ["check", "main", "plan", "planned", "run", "table_of"]

HELP = """\
Select pairs by filters: reads pairs and image_embeddings, writes selection (keys), and its rejects with reasons.

The steps from mine_concepts on work on what is selected, as long as the configuration has these filters. Images and
embeddings are neither copied nor computed again. The job prints what each filter removes, and what no other would;
filters.show=true prints that and writes nothing.
filters.min_score needs embed.text_score=true when images are embedded; filters.uids takes DataComp's lists;
filters.duplicates=one keeps one of each group that find_duplicates found, which runs before.

Example:
  spark-submit spark_jobs/select_pairs.py --config configs/cc3m.yaml workspace=/data/cocu \\
      filters.min_score=0.28 filters.max_aspect=3 filters.show=true"""


def check(config: CocuConfig) -> None:
    """What can be wrong before Spark starts."""
    if not config.filters.active:
        raise UserError("no filter is set: give at least one, e.g. filters.min_score=0.28 (see --help)")
    manifests = [tables.read_manifest(config.workspace, name) for name in ("pairs", "image_embeddings")]
    columns = [
        name for found in manifests if found.files for name in tables.read_schema(found.files[0]).names
    ]
    if config.filters.one_of_each:
        found_duplicates(config, manifests[1])
    short_side = manifests[0].settings.get("ingest", {}).get("short_side", config.ingest.short_side)
    check_filters(config.filters, short_side, columns)


def table_job(config: CocuConfig) -> TableJob:
    """What is to be built."""
    images = tables.read_manifest(config.workspace, "image_embeddings")
    pairs = tables.read_manifest(config.workspace, "pairs")
    filters, duplicates = config.filters, None
    units = units_of(images, [pairs])
    inputs, contents = [pairs, images], {unit.name: unit.content for unit in units}
    if filters.one_of_each:
        duplicates = found_duplicates(config, images)
        inputs.append(duplicates)
        # A pair that was added may stand for a group now: no unit stands.
        contents = {name: f"{content} {duplicates.recipe}" for name, content in contents.items()}
    return TableJob(
        job="select_pairs",
        table=TABLE,
        settings={"filters": filters.settings},
        inputs={table.table: table.recipe for table in inputs},
        units=[
            replace(unit, payload=(*unit.payload, filters)) for unit in with_duplicates(units, duplicates)
        ],
        common={"filters": filters.settings},
        contents=contents,
        sources=inputs if filters.one_of_each else (),
        task=select_unit,
        rows_per_task=25_000,
        whole=True,
        finish=_finish,
    )


def run(session: SparkSession, config: CocuConfig) -> Manifest | None:
    """Build selection, or only print what each filter would remove.

    Raises:
        UserError: nothing is left.
    """
    job = table_job(config)
    units = job.units
    assert not callable(units)
    if not config.filters.show:
        job.units, job.expected = lambda: with_chosen(session, units, config.filters), len(units)
        manifest = build_table(session, config, job)
        print(manifest.extra["text"], flush=True)
        return manifest
    lines = map_units(session, with_chosen(session, units, config.filters), _count_unit)
    print(table_of([json.loads(line) for line in lines]), flush=True)
    return None


def _finish(manifest: Manifest) -> None:
    manifest.extra["text"] = table_of([unit.extra for unit in manifest.units])
    if not manifest.rows:
        raise UserError(f"select_pairs: the filters leave no pair:\n{manifest.extra['text']}")


def select_unit(unit: Unit, folder: str, recipe: str) -> UnitRecord:
    """Select among one part's pairs (runs on an executor)."""
    keys, removed, counts = _looked_at(unit)
    names = keys.to_pylist()
    first = np.full(len(names), -1)
    for number, gone in reversed(list(enumerate(removed.values()))):
        first[gone] = number
    reasons = list(removed)
    rejects = [
        RejectedRow(names[row], "select_pairs", reasons[first[row]]) for row in np.flatnonzero(first >= 0)
    ]
    rows = pa.table({"key": keys.filter(pa.array(first < 0))})
    return replace(finish_unit(unit, folder, recipe, rows, rejects), extra=counts)


def _count_unit(unit: Unit) -> str:
    return json.dumps(_looked_at(unit)[2])


def _looked_at(unit: Unit) -> tuple[pa.ChunkedArray, dict, dict]:
    """Keys of one part's embedded pairs, which of them each filter removes, and the counts of these."""
    images_address, pairs_address, members, filters = unit.payload
    pair_columns, image_columns = columns_of(filters)
    images = tables.read_file(images_address, image_columns)
    keys = images.column("key")
    removed = {}
    if filters.pairwise:
        removed = removed_by(
            filters, tables.rows_of_keys(tables.read_file(pairs_address, pair_columns), keys), images
        )
    alone = {reason.value: int(gone.sum()) for reason, gone in removed.items()}
    if members is not None:
        left = ~np.any(list(removed.values()), axis=0) if removed else np.ones(len(keys), bool)
        copies, chosen = copies_and_chosen(members, keys)
        removed[Reason.DUPLICATE_IMAGE] = copies if chosen is None else left & ~chosen
        alone[Reason.DUPLICATE_IMAGE.value] = int(copies.sum())
    together = np.sum([np.zeros(len(keys), int), *removed.values()], axis=0)
    counts = {
        "rows": len(images),
        "kept": int((together == 0).sum()),
        "alone": alone,
        "only": {reason.value: int((gone & (together == 1)).sum()) for reason, gone in removed.items()},
    }
    return keys, removed, counts


def table_of(counts: Sequence[dict]) -> str:
    """What each filter removes, as text; ``counts`` as units note them."""
    rows, kept = (sum(entry[name] for entry in counts) for name in ("rows", "kept"))
    alone: Counter[str] = Counter()
    only: Counter[str] = Counter()
    for entry in counts:
        alone.update(entry["alone"])
        only.update(entry["only"])
    lines = [f"{'filter':16s} {'removes':>12s} {'share':>7s} {'no other does':>14s}"]
    for reason, count in alone.items():
        lines.append(f"{reason:16s} {count:12,} {count / max(1, rows):7.1%} {only[reason]:14,}")
    lines.append(f"{'all together':16s} {rows - kept:12,} {(rows - kept) / max(1, rows):7.1%}")
    lines.append(f"{'left':16s} {kept:12,} of {rows:,} pairs")
    return "\n".join(lines)


def planned(config: CocuConfig) -> list[TableJob]:
    """What is to be built, once the tables that are read are there."""
    return [table_job(config)]


def plan(config: CocuConfig) -> str:
    """What `--plan` prints."""
    return plan_text(config, "select_pairs", [("select_pairs", planned)])


def main() -> None:
    """Entry of spark-submit."""
    from spark_jobs.engine.entry import job_entry

    job_entry("select_pairs", HELP, ["filters"], check, run, plan)


if __name__ == "__main__":
    from spark_jobs.select_pairs import (
        main as entry,  # by its import name, so that executors find the task's function
    )

    entry()

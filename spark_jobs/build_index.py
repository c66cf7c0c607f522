"""Job 5: image_embeddings, pair_concepts, concepts -> index/. What an anchor's neighbours are looked up in.

A sample trains the index (one task), segments of it are written in parallel and stay where they are
(`indexing/segments.py`), one task writes what stands beside the vectors, and one chooses how many lists a query
visits and measures recall@L against exact search. The index is a folder with `index.json`; executors memory-map
it, so that a host holds one copy of it whatever the number of its Python workers. An index of more pairs keeps
centres and segments of the one before, as long as it has at most twice the rows that the centres were trained for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pyspark import Broadcast
from pyspark.sql import SparkSession

from configs.schema import CocuConfig
from curation import index as faiss_index
from curation.index import IndexSpec, SearchQuality
from spark_jobs.engine.commits import build_table, only_units_differ
from spark_jobs.engine.folders import FolderJob, build_folder, inputs_grew, place_folder, placed_folder
from spark_jobs.engine.index_inputs import read_concepts
from spark_jobs.engine.index_search import search_quality
from spark_jobs.engine.table_job import TableJob
from spark_jobs.engine.units import units_of
from spark_jobs.engine.waves import map_units
from spark_jobs.indexing.segments import (
    TABLE,
    Segment,
    encode_unit,
    forget_lost,
    grouped,
    members_of,
    place_rows,
    segments_of,
)
from spark_jobs.indexing.training import kept_centres, spec_of
from spark_jobs.planning import plan_text
from storage import tables
from storage.addresses import join
from storage.selection import read_selected
from storage.small_files import read_small
from storage.tables import Manifest
from storage.units import Unit

__all__ = ["check", "check_options", "main", "plan", "planned", "run", "seconds_of"]

HELP = """\
Build the index of the retrieval corpus: reads image_embeddings, pair_concepts and concepts, writes
index/.

index.kind: flat (exact), ivf (inverted lists), or auto: exact while that is cheap. What exceeds
index.memory_gb is split and searched split by split with the same result. Recall@L against exact search is
measured; index.nprobe is chosen to reach index.target_recall, again for every archives.neighbours that is asked
for: the index stays as it is."""

_TRAINED_FOR = 2  # times as many rows: up to there an index of more pairs keeps its centres


def check_options(config: CocuConfig) -> None:
    """What can be wrong in the section `index`."""
    faiss_index.choose_index(1, 8, config.index.memory_gb, config.index.kind)


def check(config: CocuConfig) -> None:
    """What can be wrong before Spark starts."""
    check_options(config)
    for name in ("image_embeddings", "concepts", "pair_concepts"):
        tables.read_manifest(config.workspace, name)


def seconds_of(workspace: str) -> float | None:
    """How long building the index took, or None if there is none."""
    manifest = tables.find_manifest(workspace, "index")
    return None if manifest is None else round(manifest.seconds, 2)


def folder_job(config: CocuConfig) -> FolderJob:
    """What is to be built."""
    images = read_selected(config, "image_embeddings")
    captions = tables.read_manifest(config.workspace, "pair_concepts")
    return FolderJob(
        job="build_index",
        table="index",
        settings=_settings(config),
        inputs=[images, captions],
    )


def run(session: SparkSession, config: CocuConfig) -> Manifest:
    """Build the index, or find that it is there."""
    images = read_selected(config, "image_embeddings")
    captions = tables.read_manifest(config.workspace, "pair_concepts")
    job = folder_job(config)
    units = units_of(images, [captions], config.index.corpora)
    manifest, built = build_folder(config, job, lambda: _build(session, config, units, job))
    if built:
        _print_summary(manifest)
    else:
        rows = manifest.extra["index"]["rows"]
        print(f"build_index: index is complete ({rows:,} rows); nothing to do", flush=True)
    _say_quality(search_quality(session, config, manifest), config)
    return manifest


def _settings(config: CocuConfig) -> dict[str, Any]:
    """What decides whether an index is the right one."""
    options = config.index
    return {
        "corpora": sorted(options.corpora),
        "kind": options.kind,
        "memory_gb": options.memory_gb,
        "nlist": options.nlist,
        "train_rows": options.train_rows,
        "format": faiss_index.FORMAT,
    }


def _build(
    session: SparkSession,
    config: CocuConfig,
    units: Sequence[Unit],
    job: FolderJob,
) -> tuple[str, dict[str, Any]]:
    """Decide, train, write segments in parallel, join: where the index is, relative to `index/`, and its index.json."""
    concepts = tables.read_manifest(config.workspace, "concepts")
    spec = spec_of(config, [unit.payload[0] for unit in units], sum(unit.rows for unit in units))
    before = tables.find_manifest(config.workspace, "index")
    grown = before is not None and before.recipe != job.recipe and inputs_grew(before, job)
    spec, kept, trained_for = _trained(session, config, units, spec, job.recipe, before if grown else None)
    print(f"build_index: {spec.reason}", flush=True)
    digest = hashlib.sha256(kept).hexdigest()
    encoding = TableJob(
        job="build_index",
        table=TABLE,
        settings=job.settings,
        # Lists mean something only beside their centres.
        inputs={**job.recipes, "trained": digest[:16]},
        units=[],
        task=encode_unit,
        what="vectors",
        whole=True,
        common={
            "settings": job.settings,
            "concepts": concepts.recipe,
            "trained": digest,
        },
    )
    known = forget_lost(
        config.workspace, tables.find_manifest(config.workspace, TABLE), None if grown else before
    )
    groups = grouped(units, members_of(known))
    encoding.contents = {group.name: group.content for group in groups}
    if (
        known is not None
        and known.recipe != encoding.recipe
        and not only_units_differ(config, known, encoding)
    ):
        tables.remove_table(config.workspace, TABLE)
        known, groups = None, grouped(units)
        encoding.contents = {group.name: group.content for group in groups}
    if known is None:
        forget_lost(config.workspace, tables.read_progress(config.workspace, TABLE, encoding.recipe), None)
    trained = session.sparkContext.broadcast(kept)
    beside = (tuple(concepts.files), trained, config.workspace)
    encoding.units = [replace(group, payload=(group.payload, *beside)) for group in groups]
    parts = build_table(session, config, encoding)
    extra = {"recipe": encoding.recipe, "trained_for": trained_for}
    return _join(session, config, units, segments_of(parts), tuple(concepts.files), spec, trained, extra)


def _print_summary(manifest: Manifest) -> None:
    index, seconds = manifest.extra["index"], manifest.seconds
    print(
        f"build_index: {index['rows']:,} vectors of {index['d']} dimensions, {index['kind']}, {seconds:.1f} s, "
        f"{index['rows'] / max(seconds, 1e-9):,.0f} vectors/s",
        flush=True,
    )


def _say_quality(quality: SearchQuality, config: CocuConfig) -> None:
    print(
        f"build_index: nprobe {quality.nprobe}, recall@{quality.neighbours} {quality.recall:.4f} on "
        f"{quality.queries} queries",
        flush=True,
    )
    if not quality.reached:
        print(
            f"build_index: warning: recall is below index.target_recall={config.index.target_recall}; "
            "raise index.nprobe, or leave it at 0",
            flush=True,
        )


def _trained(
    session: SparkSession,
    config: CocuConfig,
    units: Sequence[Unit],
    spec: IndexSpec,
    recipe: str,
    before: Manifest | None,
) -> tuple[IndexSpec, bytes, int]:
    """The centres, what is built with them, and for how many rows they were trained.

    Those of the index ``before`` this one, if they still do; else trained, and kept until the index is complete, so
    that a run that was killed goes on with them and its segments.
    """
    facts = {} if before is None else before.extra["index"]
    if facts.get("kind") == spec.kind and spec.rows <= _TRAINED_FOR * facts["trained_for"]:
        centres = read_small(join(before.folder, before.extra["folder"], "centroids.npy"))
        if centres is not None:
            return replace(spec, nlist=facts["parameters"]["nlist"]), centres, facts["trained_for"]
    addresses = [unit.payload[0] for unit in units]
    centres = kept_centres(session, config, "index", recipe, addresses, spec)
    return spec, centres, spec.rows


def _join(
    session: SparkSession,
    config: CocuConfig,
    units: Sequence[Unit],
    segments: Sequence[Segment],
    concept_files: tuple[str, ...],
    spec: IndexSpec,
    trained: Broadcast[bytes],
    extra: dict[str, Any],
) -> tuple[str, dict[str, Any]]:
    """What stands beside the vectors, in one task; where the index is, relative to `index/`, and its index.json."""
    workspace, recipe = config.workspace, extra["recipe"]
    pairs = {unit.name: unit.payload for unit in units}
    rows = {unit.name: unit.rows for unit in units}

    def write(folder: Path) -> dict[str, Any]:
        table = faiss_index.concept_table(*read_concepts(concept_files))
        with faiss_index.IndexWriter(folder, spec, trained.value, table) as writer:
            place_rows(writer, segments, pairs, rows)
            return writer.finish(extra)

    (placed,) = map_units(
        session, [Unit("join", 0)], lambda _: place_folder(workspace, "index", recipe, write)
    )
    return placed_folder(placed)


def planned(config: CocuConfig) -> list[FolderJob]:
    """What is to be built, once the tables that are read are there."""
    return [folder_job(config)]


def plan(config: CocuConfig) -> str:
    """What `--plan` prints."""
    return plan_text(config, "build_index", [("build_index", planned)])


def main() -> None:
    """Entry of spark-submit."""
    from spark_jobs.engine.entry import job_entry

    job_entry("build_index", HELP, ["index"], check, run, plan)


if __name__ == "__main__":
    from spark_jobs.build_index import (
        main as entry,  # by its import name, so that executors find the task's function
    )

    entry()

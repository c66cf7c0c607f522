"""All curation jobs in one Spark application, in the order of the paper."""

from __future__ import annotations

import json
import time
from typing import Any

from pyspark.sql import SparkSession

from configs.errors import UserError
from configs.schema import CocuConfig
from models.clip import check_clip
from spark_jobs import (
    build_archives,
    build_index,
    embed_images,
    export_training,
    find_duplicates,
    fit_probe,
    import_embeddings,
    ingest,
    mine_concepts,
    report,
    select_pairs,
)
from spark_jobs.planning import plan_text
from storage import tables
from storage.small_files import write_atomically

__all__ = ["check", "main", "plan", "run", "summarise"]

HELP = """\
Run the whole curation: ingest, embed_images, (find_duplicates and select_pairs, if filters are set,)
mine_concepts, fit_probe (for the calibrated ranking), build_index, build_archives, export_training, report.
What is complete already is skipped; what was begun goes on.

Corpora with format: embeddings enter by import_embeddings and leave as archives (they have no images to
train on). All options of all jobs may be given."""

_SECTIONS = [
    "ingest",
    "clip",
    "embed",
    "duplicates",
    "filters",
    "concepts",
    "index",
    "archives",
    "export",
    "report",
]


def _imports_only(config: CocuConfig) -> bool:
    return any(corpus.format == "embeddings" for corpus in config.corpora)


def check(config: CocuConfig) -> None:
    """What can be wrong before Spark starts, in any of the jobs."""
    if _imports_only(config):
        import_embeddings.check(config)
    else:
        ingest.check(config)
        check_clip(config.clip)
    if config.filters.show:
        raise UserError("filters.show=true is for select_pairs alone; leave it out")
    mine_concepts.check_options(config)
    build_index.check_options(config)


def run(session: SparkSession, config: CocuConfig) -> dict[str, Any]:
    """Run every step; returns and stores the summary."""
    started = time.monotonic()
    if _imports_only(config):
        import_embeddings.run(session, config)
    else:
        ingest.run(session, config)
        embed_images.run(session, config)
    if config.filters.one_of_each:
        find_duplicates.run(session, config)
    if config.filters.active:
        select_pairs.check(config)
        select_pairs.run(session, config)
    mine_concepts.run(session, config)
    if config.archives.ranking == "calibrated":
        fit_probe.run(session, config)
    build_index.run(session, config)
    build_archives.run(session, config)
    if not _imports_only(config):
        export_training.run(session, config)
    summary = summarise(config)
    path = tables.join(config.workspace, "summary.json")
    write_atomically(path, json.dumps(summary, indent=1).encode())
    report.run(session, config)
    print(
        f"pipeline: {summary['pairs_in']:,} pairs in, {summary['pairs_out']:,} out, "
        f"{sum(summary['rejects'].values()):,} rejected, {summary['concepts']:,} concepts, "
        f"{time.monotonic() - started:.0f} s; {path}",
        flush=True,
    )
    return summary


def summarise(config: CocuConfig) -> dict[str, Any]:
    """Counts and seconds of the whole workspace, from its manifests."""
    seconds: dict[str, float] = {}
    rejects: dict[str, int] = {}
    found: dict[str, tables.Manifest] = {}
    for name in (
        "pairs",
        "image_embeddings",
        *(["duplicates"] if config.filters.one_of_each else []),
        *(["selection"] if config.filters.active else []),
        "concepts",
        "pair_concepts",
        "probe",
        "archives",
        "training_set",
    ):
        manifest = tables.find_manifest(config.workspace, name)
        if manifest is None:
            continue
        found[name] = manifest
        seconds[manifest.job] = round(seconds.get(manifest.job, 0.0) + manifest.seconds, 2)
        for reason, count in manifest.rejects.items():
            rejects[reason] = rejects.get(reason, 0) + count
    if "pairs" not in found:
        raise UserError(f"workspace {config.workspace} holds no pairs; run ingest first")
    index_seconds = build_index.seconds_of(config.workspace)
    if index_seconds is not None:
        seconds["build_index"] = index_seconds
    last = found.get("training_set") or found.get("archives") or found["pairs"]
    return {
        "pairs_in": found["pairs"].rows_in,
        "pairs_out": last.rows,
        "rejects": rejects,
        "concepts": found["concepts"].rows if "concepts" in found else 0,
        "seconds": seconds,
    }


def plan(config: CocuConfig) -> str:
    """What `--plan` prints: all steps but the report."""
    first = [import_embeddings] if _imports_only(config) else [ingest, embed_images]
    probe = [fit_probe] if config.archives.ranking == "calibrated" else []
    last = [] if _imports_only(config) else [export_training]
    first += [find_duplicates] if config.filters.one_of_each else []
    first += [select_pairs] if config.filters.active else []
    jobs = [*first, mine_concepts, *probe, build_index, build_archives, *last]
    return plan_text(config, "pipeline", [(job.__name__.rpartition(".")[2], job.planned) for job in jobs])


def main() -> None:
    """Entry of spark-submit."""
    from spark_jobs.engine.entry import job_entry

    job_entry("pipeline", HELP, _SECTIONS, check, run, plan)


if __name__ == "__main__":
    from spark_jobs.pipeline import (
        main as entry,  # by its import name, so that executors find the tasks' functions
    )

    entry()

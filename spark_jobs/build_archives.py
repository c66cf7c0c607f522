"""Job 6: image_embeddings x index, probe -> archives. The join of every pair against the retrieval corpus.

A task takes one part's embeddings as a batch of anchors: one search, one ranking, no loop over images
(`curation/archives.py`). For many pairs, and for an index in splits, the search goes before as a stage of its own
(`archiving/neighbours.py`). The index is not sent anywhere: tasks get its address and map it.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pyarrow as pa
from pyspark.sql import SparkSession

from configs.loading import to_plain
from configs.schema import ArchivesConfig, CocuConfig
from spark_jobs.archiving.neighbours import (
    find_neighbours,
    forget_neighbours,
    placed_index,
    searched_apart,
)
from spark_jobs.archiving.plan import Plan, archives_here, plan_of
from spark_jobs.engine.commits import build_table, taken_over
from spark_jobs.engine.index_cache import local_probe
from spark_jobs.engine.index_inputs import read_part
from spark_jobs.engine.index_search import search_quality, search_target
from spark_jobs.engine.session import gpu_profile
from spark_jobs.engine.table_job import TableJob
from spark_jobs.engine.units import finish_unit, units_of
from spark_jobs.engine.waves import map_units
from spark_jobs.planning import plan_text
from storage import tables
from storage.selection import read_selected
from storage.tables import Manifest
from storage.units import Unit, UnitRecord

__all__ = ["check", "main", "plan", "planned", "run"]

HELP = """\
Build every pair's concept archive: reads image_embeddings, pair_concepts, index/ and probe/, writes archives.

For each image the archives.neighbours most similar images of the index are found, the concepts of their
captions ranked (archives.ranking: calibrated | paper | compat), and the best archives.top kept with scores
and clusters. calibrated also ranks what the probe finds in the whole vocabulary (archives.candidates); the
other two need no probe. archives.corpora limits which corpora are curated; index.corpora (build_index) which
are searched. archives.duplicate_similarity lets near-duplicates among an image's neighbours count once.
archives.device=gpu insists on the GPU, auto uses one where faiss-gpu and the card allow it."""

_NOT_CONTENT = ("batch_size", "device", "refresh")
_CALIBRATED_ONLY = ("candidates", "z_weight", "cosine_weight", "vote_temperature", "probe_weight")


def check(config: CocuConfig) -> None:
    """What can be wrong before Spark starts."""
    names = ["image_embeddings", "pair_concepts", "index"]
    for name in names + (["probe"] if config.archives.ranking == "calibrated" else []):
        tables.read_manifest(config.workspace, name)


def table_job(config: CocuConfig) -> TableJob:
    """What is to be built; where the search runs is found when it is."""
    images = read_selected(config, "image_embeddings")
    captions = tables.read_manifest(config.workspace, "pair_concepts")
    _, index, inputs = plan_of(config)
    settings = _settings(config.archives) | {"search": _search_settings(config)}
    units = units_of(images, [captions], config.archives.corpora)
    parts = {"image_embeddings": images.recipe, "pair_concepts": captions.recipe, "index": index.recipe}
    return TableJob(
        job="build_archives",
        table="archives",
        settings=settings,
        inputs={**parts, **inputs},
        units=units,
        task=archive_unit,
        rows_per_task=25_000,
        common={
            **settings,
            "probe": inputs.get("probe", ""),
            "concepts": captions.inputs.get("concepts", captions.recipe),
            "index": index.settings,
        },
        contents={unit.name: unit.content for unit in units},
        beside=index.recipe,
        stand=config.archives.refresh == "new",
        finish=_note_devices,
    )


def run(session: SparkSession, config: CocuConfig) -> Manifest:
    """Build archives."""
    options = config.archives
    plan, index, _ = plan_of(config)
    profile = gpu_profile(session) if options.device != "cpu" else None

    def units() -> list[Unit]:
        # The same ones however often this run is cut short: what was searched for stays what is searched for.
        standing = {record.unit for record in taken_over(config, job)}
        todo = [unit for unit in chosen if unit.name not in standing]
        ready = replace(plan, nprobe=search_quality(session, config, index).nprobe)
        apart = searched_apart(index, len(todo))
        # One task opens the index before hundreds do: it says where the search runs, or why it cannot.
        split = 0 if apart else None
        answer = map_units(session, [Unit("device", 0)], lambda _: _prepare(plan, split), profile)[0]
        placed, said = json.loads(answer)
        print(f"build_archives: {said}", flush=True)
        if placed == "cpu":
            job.profile = None  # a task on every core, not one on every GPU that stands idle
        found = {}
        if apart:
            found = find_neighbours(session, config, todo, index, ready.nprobe, parts, job.profile)
            job.profile = None  # what was searched for already needs no card
        return [replace(unit, payload=(*unit.payload, ready, found.get(unit.name))) for unit in chosen]

    job = table_job(config)
    parts = {name: job.inputs[name] for name in ("image_embeddings", "pair_concepts", "index")}
    chosen, job.units, job.profile = job.units, units, profile
    manifest = build_table(session, config, job)
    forget_neighbours(config)
    return manifest


def _settings(options: ArchivesConfig) -> dict[str, Any]:
    """What decides whether archives are the right ones; ``auto`` is what it stands for."""
    settings: dict[str, Any] = to_plain(options)
    unused = () if options.ranking == "calibrated" else _CALIBRATED_ONLY
    for name in (*_NOT_CONTENT, *unused):
        settings.pop(name)
    settings["neighbours"] = options.retrieved
    if options.duplicate_similarity is None:  # archives of before there was this option stay what they are
        settings.pop("duplicate_similarity")
    if "candidates" in settings:
        settings["candidates"] = "vocabulary" if options.proposals else "neighbours"
    return settings


def _search_settings(config: CocuConfig) -> dict[str, Any]:
    """What decides how many lists of the index are visited."""
    target = search_target(config)
    return {"nprobe": target.nprobe, "recall": target.recall, "queries": target.queries}


def _prepare(plan: Plan, split: int | None) -> str:
    """Where the search runs, and the sentence on it, as JSON (this runs on an executor)."""
    index, said = placed_index(plan.index, plan.options.device, split)
    if plan.probe:
        local_probe(*plan.probe)
    return json.dumps([index.device, said])


def _note_devices(manifest: Manifest) -> None:
    """Say it if some of the pairs were not searched where the others were."""
    rows: Counter[str] = Counter()
    for record in manifest.units:
        if record.parts:
            rows[record.extra["device"]] += record.rows_out
    manifest.extra["searched_on"] = dict(rows)
    if len(rows) > 1:
        text = ", ".join(f"{count:,} pairs on the {device.upper()}" for device, count in rows.most_common())
        print(f"build_archives: searched {text}: not every executor could use a GPU", flush=True)


def archive_unit(unit: Unit, folder: str, recipe: str) -> UnitRecord:
    """Archives of one part's pairs (runs on an executor)."""
    images, captions, plan, searched = unit.payload
    keys, vectors, own = read_part(images, captions)
    archives, device = archives_here(plan, keys, vectors, own, searched)
    record = finish_unit(unit, folder, recipe, pa.Table.from_batches([archives]))
    return replace(record, extra={"device": device})


def planned(config: CocuConfig) -> list[TableJob]:
    """What is to be built, once the tables that are read are there."""
    return [table_job(config)]


def plan(config: CocuConfig) -> str:
    """What `--plan` prints."""
    return plan_text(config, "build_archives", [("build_archives", planned)])


def main() -> None:
    """Entry of spark-submit."""
    from spark_jobs.engine.entry import job_entry

    job_entry("build_archives", HELP, ["archives"], check, run, plan)


if __name__ == "__main__":
    from spark_jobs.build_archives import (
        main as entry,  # by its import name, so that executors find the task's function
    )

    entry()

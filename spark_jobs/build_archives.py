"""Job 6: image_embeddings x index, probe -> archives. The join of every pair against the retrieval corpus.

A task takes one part's embeddings as a batch of anchors: one search, one ranking, no loop over images
(`curation/archives.py`). The index is not sent anywhere: tasks get its address and map it.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import SparkSession

from configs.errors import UserError
from configs.loading import to_plain
from configs.schema import ArchivesConfig, CocuConfig
from curation import index as faiss_index
from curation.archives import build_archives
from curation.index import SearchQuality
from spark_jobs.engine.commits import build_table
from spark_jobs.engine.index_cache import local_index, local_probe
from spark_jobs.engine.index_inputs import read_part
from spark_jobs.engine.searches import tuned_search
from spark_jobs.engine.session import gpu_profile
from spark_jobs.engine.table_job import TableJob
from spark_jobs.engine.units import finish_unit, units_of
from spark_jobs.engine.waves import map_units
from storage import tables
from storage.tables import Manifest
from storage.units import Unit, UnitRecord

__all__ = ["Plan", "check", "main", "run"]

HELP = """\
Build every pair's concept archive: reads image_embeddings, pair_concepts, index/ and probe/, writes archives.

For each image the archives.neighbours most similar images of the index are found, the concepts of their
captions ranked (archives.ranking: calibrated | paper | compat), and the best archives.top kept with scores
and clusters. calibrated also ranks what the probe finds in the whole vocabulary (archives.candidates); the
other two need no probe. archives.corpora limits which corpora are curated; index.corpora (build_index) which
are searched. archives.device=gpu insists on the GPU, auto uses one where faiss-gpu and the card allow it."""

_NOT_CONTENT = ("batch_size", "device")
_CALIBRATED_ONLY = ("candidates", "z_weight", "vote_temperature", "probe_weight")


@dataclass(frozen=True)
class Plan:
    """What every task of the job needs: where index and probe are (workspace, folder, recipe), how to search and rank.

    ``search`` stands for what the index was tuned to where that was for fewer neighbours.
    """

    index: tuple[str, str, str]
    probe: tuple[str, str, str] | None
    options: ArchivesConfig
    search: SearchQuality | None = None


def check(config: CocuConfig) -> None:
    """What can be wrong before Spark starts."""
    names = ["image_embeddings", "pair_concepts", "index"]
    for name in names + (["probe"] if config.archives.ranking == "calibrated" else []):
        tables.read_manifest(config.workspace, name)


def run(session: SparkSession, config: CocuConfig) -> Manifest:
    """Build archives."""
    images = tables.read_manifest(config.workspace, "image_embeddings")
    captions = tables.read_manifest(config.workspace, "pair_concepts")
    index = _of_captions(config.workspace, "index", captions)
    options, inputs = config.archives, {"index": index.recipe}
    probe = None
    if options.ranking == "calibrated":
        probe = _of_captions(config.workspace, "probe", captions)
        inputs["probe"] = probe.recipe
    plan = Plan(_place(index), _place(probe) if probe else None, options)
    profile = gpu_profile(session) if options.device != "cpu" else None

    def units() -> list[Unit]:
        # One task opens the index before hundreds do: it says where the search runs, or why it cannot.
        (found,) = map_units(session, [Unit("device", 0)], lambda _: _prepare(plan, index.settings), profile)
        said = json.loads(found)
        print(f"build_archives: {said['device']}", flush=True)
        search = SearchQuality(**said["search"]) if said["search"] else None
        if search:
            print(
                f"build_archives: nprobe {search.nprobe} for recall@{search.neighbours} {search.recall:.4f}",
                flush=True,
            )
        ready = replace(plan, search=search)
        return [
            Unit(unit.name, unit.rows, (*unit.payload, ready))
            for unit in units_of(images, [captions], options.corpora)
        ]

    job = TableJob(
        job="build_archives",
        table="archives",
        settings=_settings(options),
        inputs={"image_embeddings": images.recipe, "pair_concepts": captions.recipe, **inputs},
        units=units,
        task=archive_unit,
        profile=profile,
        finish=_note_devices,
    )
    return build_table(session, config, job)


def _of_captions(workspace: str, name: str, captions: Manifest) -> Manifest:
    """Index or probe, which must know the same concepts as the captions."""
    found = tables.read_manifest(workspace, name)
    if found.inputs.get("pair_concepts") != captions.recipe:
        raise UserError(
            f"{name}/ was built from another pair_concepts table; run {found.job} again with overwrite=true"
        )
    return found


def _place(manifest: Manifest) -> tuple[str, str, str]:
    return manifest.workspace, manifest.extra["folder"], manifest.recipe


def _settings(options: ArchivesConfig) -> dict[str, Any]:
    """What decides whether archives are the right ones; ``auto`` is what it stands for."""
    settings: dict[str, Any] = to_plain(options)
    unused = () if options.ranking == "calibrated" else _CALIBRATED_ONLY
    for name in (*_NOT_CONTENT, *unused):
        settings.pop(name)
    settings["neighbours"] = options.retrieved
    if "candidates" in settings:
        settings["candidates"] = "vocabulary" if options.proposals else "neighbours"
    return settings


def _prepare(plan: Plan, settings: dict[str, Any]) -> str:
    """Where the search runs, and how, if the index was tuned for fewer neighbours (runs on an executor)."""
    index, said = _placed_index(plan.index, plan.options.device)
    if plan.probe:
        local_probe(*plan.probe)
    search = tuned_search(index, plan.index, plan.options.retrieved, settings)
    return json.dumps({"device": said, "search": asdict(search) if search else None})


def _note_devices(manifest: Manifest) -> None:
    """Say it if some of the pairs were not searched where the others were."""
    rows: Counter[str] = Counter()
    for record in manifest.units:
        rows[record.extra["device"]] += record.rows_out
    manifest.extra["searched_on"] = dict(rows)
    if len(rows) > 1:
        text = ", ".join(f"{count:,} pairs on the {device.upper()}" for device, count in rows.most_common())
        print(f"build_archives: searched {text}: not every executor could use a GPU", flush=True)


def archive_unit(unit: Unit, folder: str, recipe: str) -> UnitRecord:
    """Archives of one part's pairs (runs on an executor)."""
    images, captions, plan = unit.payload
    index, _ = _placed_index(plan.index, plan.options.device)
    if plan.search is not None:
        index = replace(index, nprobe=plan.search.nprobe, refine=plan.search.refine)
    probe = local_probe(*plan.probe) if plan.probe else None
    keys, vectors, own = read_part(images, captions)
    archives = build_archives(keys, vectors, index, plan.options, own, _threads(), probe)
    record = finish_unit(unit, folder, recipe, pa.Table.from_batches([archives]))
    return replace(record, extra={"device": index.device})


def _threads() -> int:
    context = TaskContext.get()
    return max(1, context.cpus()) if context else 1


@lru_cache(maxsize=1)
def _placed_index(place: tuple[str, str, str], device: str) -> tuple[faiss_index.OpenIndex, str]:
    """The index, opened once a Python worker, on the GPU where that is asked for and possible; and what was done."""
    index = local_index(*place)
    return index, faiss_index.place_on_device(index, device)


def main() -> None:
    """Entry of spark-submit."""
    from spark_jobs.engine.entry import job_entry

    job_entry("build_archives", HELP, ["archives"], check, run)


if __name__ == "__main__":
    from spark_jobs.build_archives import (
        main as entry,  # by its import name, so that executors find the task's function
    )

    entry()

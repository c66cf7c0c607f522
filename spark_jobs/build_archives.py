"""Job 5: image_embeddings x index -> archives. The join of every pair against the retrieval corpus.

A task takes one part's embeddings as a batch of anchors: one search, one ranking, no loop over images
(`curation/archives.py`). The index is not sent anywhere: tasks get its address and map it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import SparkSession

from configs.errors import UserError
from configs.loading import to_plain
from configs.schema import CocuConfig
from curation import index as faiss_index
from curation.archives import build_archives
from spark_jobs.engine.commits import build_table
from spark_jobs.engine.index_cache import local_index
from spark_jobs.engine.index_inputs import read_part
from spark_jobs.engine.session import gpu_profile
from spark_jobs.engine.table_job import TableJob
from spark_jobs.engine.units import finish_unit, units_of
from spark_jobs.engine.waves import map_units
from storage import tables
from storage.tables import Manifest
from storage.units import Unit, UnitRecord

__all__ = ["check", "main", "run"]

HELP = """\
Build every pair's concept archive: reads image_embeddings, pair_concepts and index/, writes archives.

For each image the archives.neighbours most similar images of the index are found, the concepts of their
captions ranked (archives.ranking: paper | calibrated | compat), and the best archives.top kept with scores
and clusters. archives.corpora limits which corpora are curated; index.corpora (build_index) which are
searched. archives.device=gpu insists on the GPU, auto uses one where faiss-gpu and the card allow it."""

_NOT_CONTENT = ("batch_size", "device")


def check(config: CocuConfig) -> None:
    """What can be wrong before Spark starts."""
    for name in ("image_embeddings", "pair_concepts", "index"):
        tables.read_manifest(config.workspace, name)


def run(session: SparkSession, config: CocuConfig) -> Manifest:
    """Build archives."""
    images = tables.read_manifest(config.workspace, "image_embeddings")
    captions = tables.read_manifest(config.workspace, "pair_concepts")
    index = tables.read_manifest(config.workspace, "index")
    if index.inputs.get("pair_concepts") != captions.recipe:
        raise UserError(
            "the index was built from another pair_concepts table; run build_index again with overwrite=true"
        )
    settings: dict[str, Any] = to_plain(config.archives)
    for name in _NOT_CONTENT:
        settings.pop(name)
    place = (config.workspace, index.extra["folder"], index.recipe)
    device = config.archives.device
    profile = gpu_profile(session) if device != "cpu" else None

    def units() -> list[Unit]:
        # One task opens the index before hundreds do: it says where the search runs, or why it cannot.
        said = map_units(session, [Unit("device", 0)], lambda _: _placed_index(place, device)[1], profile)[0]
        print(f"build_archives: {said.decode()}", flush=True)
        return [
            Unit(unit.name, unit.rows, (*unit.payload, place, config.archives))
            for unit in units_of(images, [captions], config.archives.corpora)
        ]

    job = TableJob(
        job="build_archives",
        table="archives",
        settings=settings,
        inputs={"image_embeddings": images.recipe, "pair_concepts": captions.recipe, "index": index.recipe},
        units=units,
        task=archive_unit,
        profile=profile,
        finish=_note_devices,
    )
    return build_table(session, config, job)


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
    images, captions, place, options = unit.payload
    index, _ = _placed_index(place, options.device)
    keys, vectors, own = read_part(images, captions)
    archives = build_archives(keys, vectors, index, options, own, _threads())
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

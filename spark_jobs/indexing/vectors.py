"""An index of the vectors alone, without captions and concepts: what the images are compared with one another in."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession

from configs.schema import CocuConfig
from curation import index as faiss_index
from curation.csr import Csr
from curation.index import VectorFile
from spark_jobs.engine.commits import build_scratch
from spark_jobs.engine.folders import FolderJob, build_folder, place_folder, placed_folder
from spark_jobs.engine.table_job import TableJob
from spark_jobs.engine.units import finish_unit, part_address
from spark_jobs.engine.waves import map_units
from spark_jobs.indexing.segments import grouped, write_vectors
from spark_jobs.indexing.training import kept_centres, spec_of
from storage import tables
from storage.tables import Manifest
from storage.units import Unit, UnitRecord
from storage.vectors import column_to_vectors

__all__ = ["JOB", "LISTS", "PARTS", "Place", "Scores", "build_vector_index", "starts_of"]

LISTS, PARTS = "duplicate_lists", "duplicate_parts"
JOB = "find_duplicates"

Place = tuple[str, str, str, str]
"""Workspace, folder, recipe and table of an index."""


@dataclass(frozen=True)
class Scores:
    """Where the column `score` of some rows of the index is: image_text_score, or NaN."""

    start: int
    rows: int
    address: str


def build_vector_index(
    session: SparkSession, config: CocuConfig, units: Sequence[Unit], images: Manifest
) -> tuple[Manifest, list[Scores]]:
    """The manifest of the index, and the scores of its rows; built, or found to be there.

    Args:
        session: where to run it.
        config: the section `index` says of which kind it is.
        units: parts, whose payloads are the address of their embeddings; rows count through them.
        images: manifest of `image_embeddings`.
    """
    options = config.index
    settings = {
        "kind": options.kind,
        "memory_gb": options.memory_gb,
        "nlist": options.nlist,
        "train_rows": options.train_rows,
        "format": faiss_index.FORMAT,
    }
    job = FolderJob(job=JOB, table=LISTS, settings=settings, inputs=[images])
    left = tables.find_manifest(config.workspace, LISTS)
    if left is not None and left.recipe != job.recipe:  # of a run with other settings that was cut short
        for table in (PARTS, LISTS):
            tables.remove_table(config.workspace, table)
    addresses = [unit.payload[0] for unit in units]
    spec = spec_of(config, addresses, sum(unit.rows for unit in units))
    print(f"{JOB}: {spec.reason}", flush=True)
    centres = kept_centres(session, config, LISTS, job.recipe, addresses, spec)
    trained = session.sparkContext.broadcast(centres)
    segments = grouped(units)
    encoding = TableJob(
        job=JOB,
        table=PARTS,
        settings=settings,
        inputs={**job.recipes, "trained": hashlib.sha256(centres).hexdigest()[:16]},
        units=[replace(group, payload=(group.payload, trained, config.workspace)) for group in segments],
        task=encode_vectors,
        what="vectors",
        whole=True,
    )
    parts = build_scratch(session, config, encoding)
    written = [VectorFile(**record.extra["vectors"]) for record in parts.units]
    scores = [
        Scores(start, group.rows, part_address(parts, record.parts[0]))
        for group, record, start in zip(segments, parts.units, starts_of(segments), strict=True)
    ]

    def write(folder: Path) -> dict[str, Any]:
        none = np.zeros(0, np.float32)
        concepts = faiss_index.concept_table(
            pa.array([], pa.string()), np.zeros((0, spec.d), np.float32), none, none
        )
        with faiss_index.IndexWriter(folder, spec, trained.value, concepts) as writer:
            for address in addresses:
                keys = tables.read_file(address, ["key"]).column("key")
                writer.add_rows(keys, Csr(np.zeros(len(keys) + 1, np.int64), np.zeros(0, np.int32)), none)
            for segment, file in zip(scores, written, strict=True):
                rows = np.arange(segment.start, segment.start + segment.rows)
                lists = tables.read_file(segment.address, ["list"]).column("list").to_numpy()
                writer.add_segment(rows, lists, file)
            return writer.finish({"recipe": job.recipe})

    workspace, recipe = config.workspace, job.recipe

    def build() -> tuple[str, dict[str, Any]]:
        (placed,) = map_units(
            session, [Unit("join", 0)], lambda _: place_folder(workspace, LISTS, recipe, write)
        )
        return placed_folder(placed)

    return build_folder(config, job, build)[0], scores


def starts_of(groups: Sequence[Unit]) -> list[int]:
    """The row at which each group of parts begins."""
    return np.cumsum([0, *(unit.rows for unit in groups)])[:-1].tolist()


def encode_vectors(unit: Unit, folder: str, recipe: str) -> UnitRecord:
    """Write a segment of some parts, the list of its every row, and its image_text_score or NaN (on an executor)."""
    members, trained, workspace = unit.payload
    read = []
    for _, address in members:
        scored = ["image_text_score"] if "image_text_score" in tables.read_schema(address).names else []
        read.append(tables.read_file(address, ["embedding", *scored]))
    vectors = np.concatenate([column_to_vectors(part.column("embedding")) for part in read])
    lists = faiss_index.lists_of(trained.value, vectors)
    scores = [
        part.column("image_text_score").to_numpy()
        if "image_text_score" in part.column_names
        else np.full(len(part), np.nan)
        for part in read
    ]
    rows = pa.table({"list": lists, "score": np.concatenate(scores).astype(np.float32)})
    extra = {"vectors": write_vectors(workspace, LISTS, vectors, lists)}
    return finish_unit(unit, folder, recipe, rows, extra=extra)

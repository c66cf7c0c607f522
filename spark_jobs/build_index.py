"""Job 5: image_embeddings, pair_concepts, concepts -> index/. What an anchor's neighbours are looked up in.

A sample trains the index (one task), groups of parts are encoded in parallel (`index_parts`, removed at the
end), one task joins them, and one chooses how many lists a query visits and measures recall@L against exact search.
The index is a folder with `index.json`; executors memory-map it, so that a host holds one copy of it whatever
the number of its Python workers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import Broadcast
from pyspark.sql import SparkSession

from configs.errors import UserError
from configs.schema import CocuConfig
from curation import index as faiss_index
from curation.csr import Csr
from curation.index import SearchQuality
from spark_jobs.engine.commits import build_table
from spark_jobs.engine.folders import FolderJob, build_folder, write_folder
from spark_jobs.engine.index_inputs import read_concepts, read_part, read_vectors
from spark_jobs.engine.index_search import search_quality
from spark_jobs.engine.table_job import TableJob
from spark_jobs.engine.units import finish_unit, part_address, units_of
from spark_jobs.engine.waves import attempt_name, map_units
from spark_jobs.planning import plan_text
from storage import tables
from storage.addresses import join
from storage.selection import read_selected
from storage.small_files import read_small, write_atomically
from storage.tables import Manifest
from storage.units import Unit, UnitRecord

__all__ = ["check", "check_options", "main", "plan", "planned", "run", "seconds_of"]

HELP = """\
Build the index of the retrieval corpus: reads image_embeddings, pair_concepts and concepts, writes
index/.

index.kind: flat (exact), ivf (inverted lists), or auto: exact while that is cheap. What exceeds
index.memory_gb is split and searched split by split with the same result. Recall@L against exact search is
measured; index.nprobe is chosen to reach index.target_recall, again for every archives.neighbours that is asked
for: the index stays as it is."""

_GROUP_ROWS = 100_000  # rows encoded by a task


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
    manifest, built = build_folder(config, job, lambda: _build(session, config, units, job), "index_parts")
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
    """Decide, train, encode in parallel, join: where the index is, relative to `index/`, and its index.json."""
    concepts = tables.read_manifest(config.workspace, "concepts")
    options = config.index
    groups = _groups(units)
    spec = faiss_index.choose_index(
        sum(unit.rows for unit in groups),
        _dimension(groups),
        options.memory_gb,
        options.kind,
        options.nlist,
        options.train_rows,
    )
    print(f"build_index: {spec.reason}", flush=True)
    kept = _trained(session, config, groups, spec, job.recipe)
    trained = session.sparkContext.broadcast(kept)
    encoded = TableJob(
        job="build_index",
        table="index_parts",
        settings=job.settings,
        # Codes mean something only beside what they were made by.
        inputs={**job.recipes, "trained": hashlib.sha256(kept).hexdigest()[:16]},
        units=[Unit(unit.name, unit.rows, (unit.payload, tuple(concepts.files), trained)) for unit in groups],
        task=encode_unit,
        what="vectors",
        whole=True,
    )
    parts = build_table(session, config, encoded)
    return _join(session, config, groups, parts, tuple(concepts.files), spec, trained, encoded.recipe)


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


def _groups(units: Sequence[Unit]) -> list[Unit]:
    """Units joined until a task has enough rows; they stay within a corpus and in order."""
    groups: list[Unit] = []
    members: list[Unit] = []

    def close() -> None:
        if members:
            payload = tuple(unit.payload for unit in members)
            groups.append(Unit(members[0].name, sum(unit.rows for unit in members), payload))
            members.clear()

    for unit in units:
        corpus = unit.name.partition("/")[0]
        if members and (
            members[0].name.partition("/")[0] != corpus or sum(u.rows for u in members) >= _GROUP_ROWS
        ):
            close()
        members.append(unit)
    close()
    return groups


def _dimension(groups: Sequence[Unit]) -> int:
    if not groups:
        raise UserError("there is nothing to index: image_embeddings has no rows of index.corpora")
    return tables.read_schema(groups[0].payload[0][0]).field("embedding").type.byte_width // 2


def _trained(
    session: SparkSession, config: CocuConfig, groups: Sequence[Unit], spec: Any, recipe: str
) -> bytes:
    """What is trained, kept until the index is complete: a run that was killed goes on with it and its parts."""
    address = join(config.workspace, "index_parts", f"_trained-{recipe}.faiss")
    kept = read_small(address)
    if kept is None:
        kept = _train(session, config, groups, spec)
        write_atomically(address, kept)
    return kept


def _train(session: SparkSession, config: CocuConfig, groups: Sequence[Unit], spec: Any) -> bytes:
    """Train on a sample, in one task: the sample is too much for a driver."""
    addresses = [pair[0] for unit in groups for pair in unit.payload]
    order = np.random.default_rng(0).permutation(len(addresses))
    wanted = config.index.train_rows or spec.sample_rows

    def work(_unit: Unit) -> bytes:
        sample: list[np.ndarray] = []
        if spec.kind != "flat":
            # A few hundred parts at random hold a fair sample; rows within a part at random as well.
            some = order[: max(400, wanted // 600)]
            share = -(-wanted // len(some))
            for number in some:
                vectors = read_vectors(addresses[number])
                rows = np.random.default_rng(int(number)).permutation(len(vectors))[:share]
                sample.append(vectors[np.sort(rows)])
        joined = np.concatenate(sample) if sample else np.zeros((0, spec.d), np.float16)
        return faiss_index.train(joined, spec)

    return map_units(session, [Unit("train", 0)], work)[0]


def encode_unit(unit: Unit, folder: str, recipe: str) -> UnitRecord:
    """The list of every row of a group of parts, and the cosines of its caption's concepts (on an executor)."""
    pairs, concept_files, trained = unit.payload
    embeddings = read_concepts(concept_files)[1]
    tables_of = []
    for images, captions in pairs:
        _, vectors, words = read_part(images, captions)
        cosines = Csr(words.offsets, faiss_index.caption_cosines(vectors, words, embeddings))
        columns = {"list": faiss_index.lists_of(trained.value, vectors), "cosines": cosines.to_list_array()}
        tables_of.append(pa.table(columns))
    return finish_unit(unit, folder, recipe, pa.concat_tables(tables_of))


def _join(
    session: SparkSession,
    config: CocuConfig,
    groups: Sequence[Unit],
    parts: Manifest,
    concept_files: tuple[str, ...],
    spec: faiss_index.IndexSpec,
    trained: Broadcast[bytes],
    recipe: str,
) -> tuple[str, dict[str, Any]]:
    """Join the encoded groups in one task; where the index is, relative to `index/`, and its index.json."""
    workspace = config.workspace
    members = [
        (unit.payload, part_address(parts, record.parts[0]))
        for unit, record in zip(groups, parts.units, strict=True)
    ]

    def write(folder: Path) -> dict[str, Any]:
        table = faiss_index.concept_table(*read_concepts(concept_files))
        with faiss_index.IndexWriter(folder, spec, trained.value, table) as writer:
            for payload, encoded in members:
                _add_group(writer, payload, encoded)
            return writer.finish({"recipe": recipe})

    def work(_unit: Unit) -> str:
        inner = f"_parts/{recipe}/{attempt_name()}"
        metadata = write_folder(join(workspace, "index", inner), write)
        return json.dumps({"folder": inner, "metadata": metadata})

    result = json.loads(map_units(session, [Unit("join", 0)], work)[0])
    return result["folder"], result["metadata"]


def _add_group(writer: Any, payload: Sequence[tuple[str, str]], encoded: str) -> None:
    """A group's parts with what ``encode_unit`` found."""
    rows, start = tables.read_file(encoded), 0
    lists = rows.column("list").to_numpy()
    cosines = rows.column("cosines")
    for images, captions in payload:
        keys, vectors, words = read_part(images, captions)
        end = start + len(keys)
        values = Csr.from_list_array(cosines[start:end]).values
        writer.add(keys, vectors, words, values, lists[start:end])
        start = end


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

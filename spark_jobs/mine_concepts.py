"""Job 3: captions -> concepts, pair_concepts. The vocabulary V and E(y) of every caption.

Nouns and noun phrases are counted by Spark over the whole corpus (or a list is given), embedded by CLIP
with the prompt "a photo of a {}", and found again in every caption. Mean and spread of each concept's
cosine with the corpus' images, which the calibrated ranking needs, follow exactly from the images' mean
vector and second-moment matrix: E<t,x> = <t, mu>, E<t,x>^2 = t' M t.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession
from pyspark.sql import functions as sql

from configs.errors import UserError
from configs.loading import to_plain
from configs.schema import CocuConfig
from curation.text import vocabulary
from curation.text.extraction import Extractor
from models.clip import check_clip, clip_settings
from spark_jobs.engine.commits import build_table
from spark_jobs.engine.concept_vectors import check_given, embed_texts, given_vectors
from spark_jobs.engine.session import gpu_profile, task_slots
from spark_jobs.engine.table_job import TableJob
from spark_jobs.engine.units import finish_unit, units_of
from storage import tables
from storage.tables import Manifest
from storage.units import Unit, UnitRecord
from storage.vectors import column_to_vectors, vectors_to_column

__all__ = ["check", "count_concepts", "image_moments", "main", "run"]

HELP = """\
Find the concepts of the corpus: reads pairs and image_embeddings, writes concepts and pair_concepts.

Without concepts.vocabulary, nouns and noun phrases of the captions are counted over the whole corpus,
singular and plural folded, and those in at least concepts.min_count captions are kept. With it, the
file's lines are the vocabulary. concepts.hold_out=[voc,ade20k] keeps the class names of benchmarks out
(the list of the paper's authors holds 862 of them); the job always reports how many are in."""

_CHUNK = 1024  # concepts a task embeds


def check(config: CocuConfig) -> None:
    """What can be wrong before Spark starts."""
    check_options(config)
    tables.read_manifest(config.workspace, "pairs")
    tables.read_manifest(config.workspace, "image_embeddings")


def check_options(config: CocuConfig) -> None:
    """What can be wrong in the section `concepts`, whatever tables there are."""
    options = config.concepts
    given = vocabulary.read_vocabulary(options.vocabulary) if options.vocabulary else []
    if options.embeddings:
        check_given(options.embeddings, options.vocabulary, len(given))
    else:
        check_clip(config.clip)
    for path in (options.stop_words, options.embeddings):
        if path:
            _digest(path)
    vocabulary.select([], hold_out=options.hold_out)  # raises for what is neither word nor benchmark


def run(session: SparkSession, config: CocuConfig) -> Manifest:
    """Build concepts, then pair_concepts."""
    concepts = _build_concepts(session, config)
    return _build_pair_concepts(session, config, concepts)


def _build_concepts(session: SparkSession, config: CocuConfig) -> Manifest:
    pairs = tables.read_manifest(config.workspace, "pairs")
    images = tables.read_manifest(config.workspace, "image_embeddings")
    options = config.concepts
    settings: dict[str, Any] = to_plain(options)
    for name in ("vocabulary", "stop_words", "embeddings"):
        if settings[name]:
            settings[name] = _digest(settings[name])
    if not options.embeddings:
        settings["clip"] = clip_settings(config.clip)
        settings["prompt"] = config.clip.prompt

    def units() -> list[Unit]:
        chosen = _choose(session, config, pairs)
        rows, mean, second = image_moments(session, images)
        moments = session.sparkContext.broadcast((mean, second))  # a d x d matrix: 2 MB for d = 512
        print(f"mine_concepts: {len(chosen):,} concepts; cosines over {rows:,} images", flush=True)
        lines = _lines_of(chosen, options.vocabulary) if options.embeddings else None
        result = []
        for start in range(0, len(chosen), _CHUNK):
            part = slice(start, start + _CHUNK)
            given = (options.embeddings, lines[part]) if lines else None
            payload = (start, chosen[part], config.clip, given, moments)
            result.append(Unit(f"concepts/{start // _CHUNK:05d}", len(chosen[part]), payload))
        return result

    def finish(manifest: Manifest) -> None:
        names = tables.read_parts(manifest, ["concept"]).column("concept").to_pylist()
        manifest.extra["benchmark_classes"] = {
            name: {"held": held, "classes": classes}
            for name, (held, classes, _) in vocabulary.leak_report(names).items()
        }

    job = TableJob(
        job="mine_concepts",
        table="concepts",
        settings=settings,
        inputs={"pairs": pairs.recipe, "image_embeddings": images.recipe},
        units=units,
        task=concept_unit,
        what="concepts",
        profile=gpu_profile(session),
        finish=finish,
    )
    manifest = build_table(session, config, job)
    leaks = manifest.extra.get("benchmark_classes", {})
    text = ", ".join(f"{name} {entry['held']}/{entry['classes']}" for name, entry in leaks.items())
    print(f"mine_concepts: benchmark class names in the vocabulary: {text}", flush=True)
    return manifest


def _choose(session: SparkSession, config: CocuConfig, pairs: Manifest) -> list[tuple[str, int]]:
    """(concept, count) in the order of their ids."""
    options = config.concepts
    stop_words = vocabulary.read_stop_words(options.stop_words) if options.stop_words else ()
    if options.vocabulary:
        given = [(concept, 0) for concept in vocabulary.read_vocabulary(options.vocabulary)]
        chosen = vocabulary.select(
            given,
            min_count=0,
            max_concepts=len(given),
            stop_words=stop_words,
            hold_out=options.hold_out,
            keep_order=True,
        )
        if not chosen:
            raise UserError(f"concepts.hold_out leaves none of the concepts in {options.vocabulary}")
        if len(chosen) < len(given):
            print(
                f"mine_concepts: {len(given) - len(chosen):,} of {len(given):,} given concepts are doubles, stop words or held out",
                flush=True,
            )
        return chosen
    counts = count_concepts(
        session, pairs, options.max_words, options.min_count, 2 * options.max_concepts + 10_000
    )
    chosen = vocabulary.select(
        counts,
        min_count=options.min_count,
        max_concepts=options.max_concepts,
        stop_words=stop_words,
        hold_out=options.hold_out,
    )
    if not chosen:
        raise UserError(
            f"no concept occurs in {options.min_count} of the {pairs.rows:,} captions; lower concepts.min_count "
            f"or give a list as concepts.vocabulary"
        )
    return chosen


def _lines_of(chosen: Sequence[tuple[str, int]], path: str) -> list[int]:
    """For each concept the line of the user's list it was first on: the row of its vector."""
    first: dict[str, int] = {}
    for number, concept in enumerate(vocabulary.read_vocabulary(path)):
        first.setdefault(concept, number)
    return [first[concept] for concept, _ in chosen]


def count_concepts(
    session: SparkSession, pairs: Manifest, max_words: int, min_count: int, limit: int
) -> list[tuple[str, int]]:
    """In how many captions each noun or noun phrase occurs, most frequent first; counted by Spark."""
    addresses = [unit.payload[0] for unit in units_of(pairs)]

    def count(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch.column(0).to_pylist():
                captions = tables.read_file(addresses[number], ["caption"]).column("caption").combine_chunks()
                yield vocabulary.count_batch(captions, max_words)

    frame = (
        session.range(0, len(addresses), 1, len(addresses))
        .mapInArrow(count, "concept string, count long")
        .groupBy("concept")
        .agg(sql.sum("count").alias("count"))
        .where(sql.col("count") >= min_count)
        .orderBy(sql.desc("count"), "concept")
        .limit(limit)
    )
    return [(row[0], int(row[1])) for row in frame.collect()]


def image_moments(session: SparkSession, images: Manifest) -> tuple[int, np.ndarray, np.ndarray]:
    """Rows, mean vector float64 (d,) and second-moment matrix float64 (d, d) of all image embeddings."""
    addresses = [unit.payload[0] for unit in units_of(images)]
    groups = min(len(addresses), 4 * task_slots(session))
    shares = [addresses[start::groups] for start in range(groups)]

    def total(share: Sequence[str]) -> tuple[int, np.ndarray, np.ndarray]:
        parts = None
        for address in share:
            vectors = column_to_vectors(tables.read_file(address, ["embedding"]).column("embedding")).astype(
                np.float64
            )
            here = (len(vectors), vectors.sum(axis=0), vectors.T @ vectors)
            parts = here if parts is None else _add(parts, here)
        assert parts is not None
        return parts

    rows, sums, second = session.sparkContext.parallelize(shares, groups).map(total).treeReduce(_add)
    if rows == 0:
        raise UserError("image_embeddings is empty: every pair was rejected; see the rejects of ingest")
    return rows, sums / rows, second / rows


def _add(left: tuple[int, Any, Any], right: tuple[int, Any, Any]) -> tuple[int, Any, Any]:
    return left[0] + right[0], left[1] + right[1], left[2] + right[2]


def concept_unit(unit: Unit, folder: str, recipe: str) -> UnitRecord:
    """Embed some concepts and measure their cosines with the corpus (runs on an executor)."""
    start, entries, clip, given, moments = unit.payload
    mean, second = moments.value
    names = [concept for concept, _ in entries]
    texts = given_vectors(*given) if given else embed_texts(names, clip)
    if texts.shape[1] != len(mean):
        raise UserError(
            f"the concepts' text embeddings have {texts.shape[1]} dimensions and the images' {len(mean)}: "
            f"concepts and images need the same CLIP"
        )
    exact = texts.astype(np.float64)
    average = exact @ mean
    spread = np.sqrt(
        np.maximum(np.einsum("td,de,te->t", exact, second, exact, optimize=True) - average**2, 0.0)
    )
    table = pa.table(
        {
            "concept_id": pa.array(np.arange(start, start + len(names), dtype=np.int32)),
            "concept": names,
            "count": pa.array([count for _, count in entries], pa.int64()),
            "embedding": vectors_to_column(texts.astype(np.float16), texts.shape[1]),
            "cosine_mean": pa.array(average.astype(np.float32)),
            "cosine_std": pa.array(spread.astype(np.float32)),
        }
    )
    return finish_unit(unit, folder, recipe, table)


def _digest(path: str) -> str:
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file (named in the section concepts)")
    with open(path, "rb") as stream:
        return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def _build_pair_concepts(session: SparkSession, config: CocuConfig, concepts: Manifest) -> Manifest:
    pairs = tables.read_manifest(config.workspace, "pairs")
    words = tuple(concepts.files)
    job = TableJob(
        job="mine_concepts",
        table="pair_concepts",
        settings={},
        inputs={"pairs": pairs.recipe, "concepts": concepts.recipe},
        units=[Unit(unit.name, unit.rows, (unit.payload[0], words)) for unit in units_of(pairs)],
        task=extract_unit,
        what="captions",
    )
    return build_table(session, config, job)


def extract_unit(unit: Unit, folder: str, recipe: str) -> UnitRecord:
    """Find the vocabulary's concepts in one part's captions (runs on an executor)."""
    address, words = unit.payload
    rows = tables.read_file(address, ["key", "caption"])
    found = _extractor(words).extract(rows.column("caption").combine_chunks())
    table = pa.table({"key": rows.column("key"), "concept_ids": found.to_list_array()})
    return finish_unit(unit, folder, recipe, table)


@lru_cache(maxsize=1)
def _extractor(words: tuple[str, ...]) -> Extractor:
    """One a Python worker: its look-up of 100,000 concepts takes a second to build."""
    names: list[str] = []
    for address in words:
        names.extend(tables.read_file(address, ["concept"]).column("concept").to_pylist())
    return Extractor(names)


def main() -> None:
    """Entry of spark-submit."""
    from spark_jobs.engine.entry import job_entry

    job_entry("mine_concepts", HELP, ["clip", "concepts"], check, run)


if __name__ == "__main__":
    from spark_jobs.mine_concepts import (
        main as entry,  # by its import name, so that executors find the task's function
    )

    entry()

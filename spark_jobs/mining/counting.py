"""The vocabulary: nouns and noun phrases counted over the corpus by Spark, or the user's own list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
from pyspark.sql import SparkSession
from pyspark.sql import functions as sql

from configs.errors import UserError
from configs.schema import CocuConfig
from curation.text import vocabulary
from spark_jobs.engine.session import task_slots
from spark_jobs.engine.units import units_of
from spark_jobs.engine.waves import units_per_task
from spark_jobs.engine.worker_imports import ready_for_next_task
from spark_jobs.mining.caption_nouns import build_caption_nouns
from storage import tables
from storage.tables import Manifest

__all__ = ["choose_concepts", "count_concepts", "lines_of"]


def choose_concepts(session: SparkSession, config: CocuConfig, pairs: Manifest) -> list[tuple[str, int]]:
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
            twice = vocabulary.doubles(concept for concept, _ in given)
            shown = ", ".join(f"{concept} = {same}" for concept, same in twice[:5])
            print(
                f"mine_concepts: {len(given) - len(chosen):,} of {len(given):,} given concepts are left out: "
                f"{len(twice):,} doubles{f' ({shown})' if shown else ''}, the rest stop words or held out",
                flush=True,
            )
        return chosen
    nouns = build_caption_nouns(session, config, pairs)
    counts = count_concepts(session, pairs, nouns, options.min_count, 2 * options.max_concepts + 10_000)
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


def lines_of(chosen: Sequence[tuple[str, int]], path: str) -> list[int]:
    """For each concept the line of the user's list it was first on: the row of its vector."""
    first: dict[str, int] = {}
    for number, concept in enumerate(vocabulary.read_vocabulary(path)):
        first.setdefault(concept, number)
    return [first[concept] for concept, _ in chosen]


def count_concepts(
    session: SparkSession, pairs: Manifest, nouns: Manifest, min_count: int, limit: int
) -> list[tuple[str, int]]:
    """In how many captions each noun or noun phrase of ``nouns`` occurs, most frequent first; counted by Spark.

    Words that are no nouns in most of their captions are left out (:func:`vocabulary.mostly_nouns`).
    """
    units = units_of(pairs, [nouns])
    addresses = [unit.payload for unit in units]
    tasks = -(-len(units) // units_per_task(25_000, units, task_slots(session)))

    def count(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch.column(0).to_pylist():
                captions, tagged = addresses[number]
                found = tables.read_file(tagged, ["nouns"]).column("nouns").to_pylist()
                yield vocabulary.count_batch(
                    tables.read_file(captions, ["caption"]).column("caption").combine_chunks(),
                    nouns=[phrases.split("\n") if phrases else [] for phrases in found],
                )
        ready_for_next_task()

    frame = (
        session.range(0, len(addresses), 1, tasks)
        .mapInArrow(count, "concept string, count long, seen long")
        .groupBy("concept")
        .agg(sql.sum("count").alias("count"), sql.sum("seen").alias("seen"))
        .where(sql.col("count") >= min_count)
        .orderBy(sql.desc("count"), "concept")
        .limit(limit)
    )
    return vocabulary.mostly_nouns((row[0], int(row[1]), int(row[2])) for row in frame.collect())

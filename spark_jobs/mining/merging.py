"""Two words for one thing become one concept (`concepts.merge: synonyms`), before the vocabulary is written.

One more pass over captions and image embeddings: what the images of the words that might be synonyms look like.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache, reduce
from operator import add
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession

from configs.schema import CocuConfig
from curation.text.extraction import Extractor
from curation.text.synonyms import Merge, PairSums, choose_merges, close_pairs, pair_sums
from spark_jobs.engine.concept_vectors import embed_texts, given_vectors
from spark_jobs.engine.index_inputs import read_vectors_and_keys
from spark_jobs.engine.session import task_slots
from spark_jobs.engine.task_errors import translated
from spark_jobs.engine.units import units_of
from spark_jobs.engine.worker_imports import ready_for_next_task
from spark_jobs.mining.counting import lines_of
from storage import tables
from storage.tables import Manifest

__all__ = ["merge_synonyms", "merged_names"]

_CHUNK = 1024  # concepts a task embeds
_Counts = list[tuple[str, int]]


def merge_synonyms(
    session: SparkSession, config: CocuConfig, pairs: Manifest, images: Manifest, chosen: _Counts
) -> tuple[_Counts, list[dict[str, Any]]]:
    """The vocabulary without the words that others stand for, and what was merged, closest first.

    Counts are added up, less the captions that name both.

    Raises:
        UserError: a task met a mistake that the user can mend.
    """
    names = [concept for concept, _ in chosen]
    try:
        texts = _texts(session, config, chosen)
        close = close_pairs(names, texts)
        merges = (
            choose_merges(close, texts, _sums(session, pairs, images, names, close)) if len(close) else []
        )
    except Exception as error:
        raise translated(error) from error
    counts = [count for _, count in chosen]
    for merge in merges:
        counts[merge.into] += max(0, counts[merge.concept] - merge.captions_with_both)
    gone = {merge.concept for merge in merges}
    kept = [(name, counts[number]) for number, name in enumerate(names) if number not in gone]
    return kept, [_told(merge, chosen) for merge in merges]


def merged_names(concepts: Manifest) -> dict[str, str]:
    """Of a table `concepts`: each word that was merged, and the concept that stands for it."""
    return {entry["concept"]: entry["into"] for entry in concepts.extra.get("merges", ())}


def _told(merge: Merge, chosen: _Counts) -> dict[str, Any]:
    names = {"concept": chosen[merge.concept][0], "into": chosen[merge.into][0]}
    return {**asdict(merge), **names, "count": chosen[merge.concept][1]}


def _texts(session: SparkSession, config: CocuConfig, chosen: _Counts) -> np.ndarray:
    """Text embeddings of all concepts, float32 (V, d)."""
    options, clip = config.concepts, config.clip
    if options.embeddings:
        return given_vectors(options.embeddings, lines_of(chosen, options.vocabulary))
    chunks = [[name for name, _ in chosen[start : start + _CHUNK]] for start in range(0, len(chosen), _CHUNK)]
    found = session.sparkContext.parallelize(chunks, len(chunks)).map(lambda chunk: embed_texts(chunk, clip))
    return np.concatenate(found.collect())


def _sums(
    session: SparkSession, pairs: Manifest, images: Manifest, names: Sequence[str], close: np.ndarray
) -> PairSums:
    """Sums over the corpus; those of the shares are added in their order, whoever was done first."""
    addresses = [unit.payload for unit in units_of(images, [pairs])]
    groups = min(len(addresses), 4 * task_slots(session))
    shares = [addresses[start::groups] for start in range(groups)]
    told = session.sparkContext.broadcast((tuple(names), close))

    def total(share: Sequence[tuple[str, str]]) -> PairSums:
        words, wanted = told.value
        summed = reduce(add, (_part_sums(*part, words, wanted) for part in share))
        ready_for_next_task()
        return summed

    return reduce(add, session.sparkContext.parallelize(shares, groups).map(total).collect())


def _part_sums(images: str, pairs: str, names: tuple[str, ...], close: np.ndarray) -> PairSums:
    keys, vectors = read_vectors_and_keys(images)
    rows = tables.rows_of_keys(tables.read_file(pairs, ["key", "caption"]), keys)
    captions: pa.Array = rows.column("caption").combine_chunks()
    return pair_sums(vectors, _extractor(names).extract(captions), close)


@lru_cache(maxsize=1)
def _extractor(names: tuple[str, ...]) -> Extractor:
    return Extractor(names)

"""The table `caption_nouns`: nouns and noun phrases of every caption, tagged once.

Reading a caption's words costs more than anything else that is done to it. The vocabulary is counted from this table,
and `export_training` takes the nouns of the baseline from it where it has them. Mining that was cut off goes on with it.
"""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
from pyspark.sql import SparkSession

from configs.schema import CocuConfig
from curation.text.nouns import noun_phrases
from curation.text.vocabulary import word_lists_digest
from spark_jobs.engine.commits import build_scratch
from spark_jobs.engine.table_job import TableJob
from spark_jobs.engine.units import finish_unit, part_address, units_of
from storage import tables
from storage.tables import Manifest
from storage.units import Unit, UnitRecord

__all__ = ["TABLE", "build_caption_nouns", "joined_nouns", "table_job", "tagged_parts"]

TABLE = "caption_nouns"


def table_job(pairs: Manifest, max_words: int) -> TableJob:
    """The table to be built of these pairs: the nouns of each caption, of at most ``max_words`` words each."""
    settings = {"max_words": max_words, "word_lists": word_lists_digest()}
    captions = units_of(pairs)
    return TableJob(
        job="mine_concepts",
        table=TABLE,
        settings=settings,
        inputs={"pairs": pairs.recipe},
        units=[replace(unit, payload=(unit.payload[0], max_words)) for unit in captions],
        task=tag_unit,
        common=settings,
        contents={unit.name: unit.content for unit in captions},
        what="captions",
        rows_per_task=25_000,
    )


def build_caption_nouns(session: SparkSession, config: CocuConfig, pairs: Manifest) -> Manifest:
    """Tag all captions, or find that it was done; what was tagged otherwise is replaced."""
    return build_scratch(session, config, table_job(pairs, config.concepts.max_words))


def tag_unit(unit: Unit, folder: str, recipe: str) -> UnitRecord:
    """Tag one part's captions (runs on an executor)."""
    address, max_words = unit.payload
    rows = tables.read_file(address, ["key", "caption"])
    nouns = joined_nouns(rows.column("caption").to_pylist(), max_words)
    table = pa.table({"key": rows.column("key"), "nouns": pa.array(nouns, pa.string())})
    return finish_unit(unit, folder, recipe, table)


def joined_nouns(captions: list[str | None], max_words: int) -> list[str]:
    """Nouns and noun phrases of each caption, one a line, in their order."""
    return ["\n".join(noun_phrases(caption or "", max_words)) for caption in captions]


def tagged_parts(config: CocuConfig, pairs: Manifest) -> dict[str, str]:
    """Part of ``pairs`` -> address of its nouns, for those that were tagged as they are now."""
    done = tables.find_manifest(config.workspace, TABLE)
    if done is None:
        return {}
    marks = table_job(pairs, config.concepts.max_words).marks
    return {
        part.name: part_address(done, part)
        for record in done.units
        if record.made_of == marks.get(record.unit)
        for part in record.parts
    }

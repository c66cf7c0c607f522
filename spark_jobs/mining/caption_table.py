"""The table `pair_concepts`: E(y), the vocabulary's concepts in every caption."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import pyarrow as pa
from pyspark.sql import SparkSession

from configs.schema import CocuConfig
from curation.text.extraction import Extractor
from spark_jobs.engine.commits import build_table
from spark_jobs.engine.table_job import TableJob
from spark_jobs.engine.units import finish_unit, units_of
from spark_jobs.mining.merging import merged_names
from storage import tables
from storage.selection import read_selected
from storage.tables import Manifest
from storage.units import Unit, UnitRecord

__all__ = ["build_pair_concepts", "extractor_of", "pair_concepts_job", "words_of"]


def pair_concepts_job(config: CocuConfig, concepts: Manifest) -> TableJob:
    """What is to be built with this vocabulary."""
    pairs = read_selected(config, "pairs")
    words, merged = words_of(concepts)
    captions = units_of(pairs)
    return TableJob(
        job="mine_concepts",
        table="pair_concepts",
        settings={},
        inputs={"pairs": pairs.recipe, "concepts": concepts.recipe},
        units=[replace(unit, payload=(unit.payload[0], words, merged)) for unit in captions],
        task=extract_unit,
        common={"concepts": concepts.recipe},
        contents={unit.name: unit.content for unit in captions},
        what="captions",
        rows_per_task=25_000,
    )


def build_pair_concepts(session: SparkSession, config: CocuConfig, concepts: Manifest) -> Manifest:
    """Find the vocabulary in all captions, or find that it was done."""
    before = tables.find_manifest(config.workspace, "pair_concepts")
    manifest = build_table(session, config, pair_concepts_job(config, concepts))
    if before is None or before.recipe != manifest.recipe:
        _tell_unnamed(manifest, {record.made_of for record in before.units} if before else set())
    return manifest


def _tell_unnamed(manifest: Manifest, standing: set[str]) -> None:
    """How many of the captions that were read now name nothing that the vocabulary knows."""
    read = [record for record in manifest.units if record.made_of not in standing and record.parts]
    rows, unnamed = (
        sum(counts) for counts in ([r.rows_out for r in read], [r.extra["unnamed"] for r in read])
    )
    if rows:
        which = "new captions" if len(read) < len(manifest.units) else "captions"
        print(
            f"mine_concepts: {unnamed:,} of {rows:,} {which} ({unnamed / rows:.1%}) name no concept of the vocabulary",
            flush=True,
        )


def extract_unit(unit: Unit, folder: str, recipe: str) -> UnitRecord:
    """Find the vocabulary's concepts in one part's captions (runs on an executor)."""
    address, words, merged = unit.payload
    rows = tables.read_file(address, ["key", "caption"])
    found = extractor_of(words, merged).extract(rows.column("caption").combine_chunks())
    table = pa.table({"key": rows.column("key"), "concept_ids": found.to_list_array()})
    return finish_unit(unit, folder, recipe, table, extra={"unnamed": int((found.lengths == 0).sum())})


def words_of(concepts: Manifest) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """What an extractor is made of: addresses of the vocabulary's parts, and words with the concepts they became."""
    return tuple(concepts.files), tuple(merged_names(concepts).items())


@lru_cache(maxsize=1)
def extractor_of(words: tuple[str, ...], merged: tuple[tuple[str, str], ...]) -> Extractor:
    """One a Python worker: its look-up of 100,000 concepts takes a second to build."""
    names: list[str] = []
    for address in words:
        names.extend(tables.read_file(address, ["concept"]).column("concept").to_pylist())
    return Extractor(names, dict(merged))

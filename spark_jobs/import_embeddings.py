"""Instead of jobs 1 and 2: ready CLIP vectors with captions -> pairs, image_embeddings.

For what clip-retrieval and img2dataset users have: `.npy` files of image embeddings and metadata files
(Parquet, JSON lines or CSV) with a row for each vector. The pairs have no image, so archives can be built
from them and a training set cannot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession

from configs.errors import UserError
from configs.loading import to_plain
from configs.schema import CocuConfig, CorpusConfig, IngestConfig
from corpora.captions import Problem, clean_caption
from corpora.embedding_files import paired_files
from corpora.ingest_shard import PAIRS_SCHEMA, REJECTS_SCHEMA
from corpora.readers.metadata_rows import check_metadata, read_metadata
from corpora.readers.npy_files import NpyFile, open_npy
from corpora.reasons import Reason
from corpora.samples import sample_name
from spark_jobs.engine.commits import build_table
from spark_jobs.engine.table_job import TableJob
from spark_jobs.engine.units import RejectedRow, finish_unit, rejects_table
from spark_jobs.engine.waves import attempt_name
from spark_jobs.planning import plan_text
from storage import tables
from storage.listing import look_up, stamp_of
from storage.tables import Manifest
from storage.units import Part, Unit, UnitRecord
from storage.vectors import vectors_to_column

__all__ = ["check", "main", "plan", "planned", "run"]

HELP = """\
Take image embeddings that exist already: writes pairs (without images) and image_embeddings.
It stands for ingest and embed_images; mine_concepts, build_index and build_archives follow.

Sources are the entries of `corpora` with format: embeddings, each with
  name            short name, the first part of every key
  path            .npy files of floats, shape (n, d), as clip-retrieval writes them: img_emb/img_emb_*.npy
  metadata        .parquet, .jsonl, .csv or .tsv files, one for each .npy, a row a vector; they are paired by
                  the numbers in their names
  caption_column  the column with the caption, if not `caption`
  key_column      the column with the sample's name; without one, rows are numbered

Vectors are L2-normalised. A row with a NaN, without a caption or with a name that was there before is a
reject. The concepts' embeddings must come from the same CLIP: set clip.*, or concepts.vocabulary with
concepts.embeddings.

Example:
  spark-submit spark_jobs/import_embeddings.py --config my.yaml workspace=/data/ready \\
      'corpora=[{name: laion, format: embeddings, path: "/data/img_emb/*.npy", metadata: "/data/metadata/*.parquet"}]'"""


def check(config: CocuConfig) -> None:
    """What can be wrong before Spark starts; of every corpus the first two files are looked into."""
    if config.ingest.columns:
        raise UserError(
            "ingest.columns: columns of metadata do not go along with ready embeddings; leave it empty"
        )
    for corpus in _corpora(config):
        vectors, metadata = paired_files(corpus)[0]
        open_npy(vectors)
        check_metadata(corpus, metadata)


def _corpora(config: CocuConfig) -> list[CorpusConfig]:
    chosen = [corpus for corpus in config.corpora if corpus.format == "embeddings"]
    others = [corpus.name for corpus in config.corpora if corpus.format != "embeddings"]
    if not chosen:
        raise UserError("import_embeddings: no corpus has format: embeddings")
    if others:
        raise UserError(
            "corpora with format: embeddings need a workspace of their own; here are also "
            + ", ".join(others)
        )
    return chosen


def pairs_job(config: CocuConfig) -> TableJob:
    """What is to be built of captions; a unit a file of vectors, with ``limit`` as many as hold that many rows."""
    units = []
    for corpus in _corpora(config):
        files = paired_files(corpus)
        dimension = open_npy(files[0][0]).dimension
        left = config.limit
        for number, (vectors, metadata) in enumerate(files):
            if config.limit and left <= 0:
                break
            payload = Source(corpus, vectors, metadata, dimension, config.ingest, max(0, left))
            units.append(Unit(f"{corpus.name}/{number:05d}", 0, payload, vectors))
            left -= open_npy(vectors).rows if config.limit else 0
    return TableJob(
        job="import_embeddings",
        table="pairs",
        settings=_settings(config),
        inputs={"files": _fingerprint([unit.payload for unit in units])},
        units=units,
        task=pairs_unit,
        what="rows",
    )


def run(session: SparkSession, config: CocuConfig) -> Manifest:
    """Build pairs and image_embeddings; returns the manifest of the latter."""
    first = pairs_job(config)
    pairs = build_table(session, config, first)
    return build_table(session, config, vectors_job(first, pairs))


def vectors_job(first: TableJob, pairs: Manifest) -> TableJob:
    """What is to be built of vectors: a unit a part of the captions that ``first`` has built."""
    assert not callable(first.units)
    sources = {unit.name: unit.payload for unit in first.units}
    return TableJob(
        job="import_embeddings",
        table="image_embeddings",
        settings={},
        inputs={"pairs": pairs.recipe},
        units=[
            Unit(
                part.name,
                part.rows,
                (sources[record.unit], tables.join(pairs.folder, part.file)),
                sources[record.unit].vectors,
            )
            for record in pairs.units
            for part in record.parts
        ],
        task=vectors_unit,
        what="vectors",
    )


@dataclass(frozen=True)
class Source:
    """One .npy file and its metadata, of which the first ``limit`` rows count (0: all)."""

    corpus: CorpusConfig
    vectors: str
    metadata: str
    dimension: int
    options: IngestConfig
    limit: int = 0


def _settings(config: CocuConfig) -> dict[str, Any]:
    names = ("rows_per_part", "min_caption_chars", "max_caption_chars")
    chosen = {name: getattr(config.ingest, name) for name in names}
    limit = {"limit": config.limit} if config.limit else {}
    return {"corpora": [to_plain(corpus) for corpus in _corpora(config)], **chosen, **limit}


def _fingerprint(sources: Sequence[Source]) -> str:
    """Which files there are, how large and of when."""
    addresses = [address for source in sources for address in (source.vectors, source.metadata)]
    return stamp_of(entry for entry in look_up(addresses) if entry is not None)


def pairs_unit(unit: Unit, folder: str, recipe: str) -> UnitRecord:
    """Import the captions of one file (runs on an executor)."""
    source: Source = unit.payload
    rows = read_metadata(source.corpus, source.metadata)
    vectors = open_npy(source.vectors)
    if vectors.rows != len(rows.captions):
        raise UserError(
            f"corpus '{source.corpus.name}': {source.vectors} has {vectors.rows} rows, "
            f"{source.metadata} has {len(rows.captions)}"
        )
    if vectors.dimension != source.dimension:
        raise UserError(
            f"corpus '{source.corpus.name}': the vectors of {source.vectors} have {vectors.dimension} numbers, "
            f"those of the first file {source.dimension}"
        )
    usable = _usable(vectors)
    good: list[tuple[str, str]] = []
    rejects: list[RejectedRow] = []
    seen: set[str] = set()
    named = islice(zip(rows.keys, rows.captions, strict=True), source.limit or None)
    for number, (name, caption) in enumerate(named):
        # The sample's part of the key carries the row, by which its vector is found again.
        key = f"{unit.name}/{sample_name(name) if name else 'row'}@{number}"
        result = caption if isinstance(caption, Problem) else clean_caption(caption, source.options)
        if name and name in seen:
            result = Problem(Reason.DUPLICATE_KEY)
        elif not usable[number]:
            result = Problem(Reason.EMBEDDING_NOT_FINITE)
        seen.add(name)
        if isinstance(result, Problem):
            rejects.append(RejectedRow(key, "import_embeddings", result.reason.value, result.detail))
        else:
            good.append((key, result))
    return _write_pairs(unit, folder, recipe, good, rejects)


def _usable(vectors: NpyFile) -> np.ndarray:
    """Which rows are finite and not zero, bool (n,)."""
    found = np.zeros(vectors.rows, bool)
    for start in range(0, vectors.rows, _ROWS_AT_A_TIME):
        stop = min(start + _ROWS_AT_A_TIME, vectors.rows)
        block = vectors.read(start, stop)
        found[start:stop] = np.isfinite(block).all(axis=1) & block.any(axis=1)
    return found


_ROWS_AT_A_TIME = 16_384


def _write_pairs(
    unit: Unit, folder: str, recipe: str, good: Sequence[tuple[str, str]], rejects: Sequence[RejectedRow]
) -> UnitRecord:
    """The rows as parts of ``rows_per_part``, and their record."""
    source: Source = unit.payload
    size = source.options.rows_per_part
    attempt = attempt_name()
    parts = []
    for start in range(0, len(good), size):
        keys, captions = zip(*good[start : start + size], strict=True)
        count = len(keys)
        columns = {
            "key": keys,
            "corpus": [source.corpus.name] * count,
            "image": [b""] * count,
            "caption": captions,
            "width": [0] * count,
            "height": [0] * count,
        }
        name = f"{unit.name}-{len(parts):05d}"
        file = tables.part_path(recipe, name, attempt)
        table = pa.table(columns, schema=PAIRS_SCHEMA)
        parts.append(Part(name, file, tables.write_part(folder, file, table, PAIRS_SCHEMA)))
    reject_file = None
    if rejects:
        reject_file = tables.part_path(recipe, f"{unit.name}.rejects", attempt)
        tables.write_part(folder, reject_file, rejects_table(rejects), REJECTS_SCHEMA)
    reasons = dict(Counter(row.reason for row in rejects))
    return UnitRecord(unit.name, tuple(parts), len(good) + len(rejects), reasons, reject_file)


def vectors_unit(unit: Unit, folder: str, recipe: str) -> UnitRecord:
    """Import the vectors of one part of `pairs` (runs on an executor)."""
    source, pairs_address = unit.payload
    keys = tables.read_file(pairs_address, ["key"]).column("key")
    rows = np.array([int(key.rpartition("@")[2]) for key in keys.to_pylist()], dtype=np.int64)
    vectors = open_npy(source.vectors).read(rows[0], rows[-1] + 1)[rows - rows[0]]  # rows ascend
    vectors /= np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    embeddings = vectors_to_column(vectors.astype(np.float16), vectors.shape[1])
    return finish_unit(unit, folder, recipe, pa.table({"key": keys, "embedding": embeddings}))


def planned(config: CocuConfig) -> list[TableJob]:
    """What is to be built; `image_embeddings` once the captions are there."""
    first = pairs_job(config)
    pairs = tables.find_manifest(config.workspace, "pairs")
    known = pairs is not None and pairs.recipe == first.recipe
    return [first, vectors_job(first, pairs)] if known else [first]


def plan(config: CocuConfig) -> str:
    """What `--plan` prints."""
    return plan_text(config, "import_embeddings", [("import_embeddings", planned)])


def main() -> None:
    """Entry of spark-submit."""
    from spark_jobs.engine.entry import job_entry

    job_entry("import_embeddings", HELP, ["ingest"], check, run, plan)


if __name__ == "__main__":
    from spark_jobs.import_embeddings import (
        main as entry,  # by its import name, so that executors find the task's function
    )

    entry()

"""Instead of jobs 1 and 2: ready CLIP vectors with captions -> pairs, image_embeddings.

For what clip-retrieval and img2dataset users have: `.npy` files of image embeddings and metadata files
(Parquet, JSON lines or CSV) with a row for each vector. The pairs have no image, so archives can be built
from them and a training set cannot.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.json as pajson
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from configs.errors import UserError
from configs.loading import to_plain
from configs.schema import CocuConfig, CorpusConfig
from spark_jobs import tables
from spark_jobs.addresses import expand, resolve
from spark_jobs.captions import clean_caption
from spark_jobs.ingest_shard import PAIRS_SCHEMA, REJECTS_SCHEMA
from spark_jobs.reasons import Reason
from spark_jobs.tables import Manifest, Part, UnitRecord
from spark_jobs.units import RejectedRow, finish_unit, rejects_table
from spark_jobs.vectors import vectors_to_column
from spark_jobs.waves import TableJob, Unit, attempt_number, build_table

__all__ = ["check", "main", "run"]

HELP = """\
Take image embeddings that exist already: writes pairs (without images) and image_embeddings.

For corpora with format: embeddings
  path        .npy files, float16 or float32 of shape (n, d): img_emb/img_emb_*.npy
  metadata    .parquet, .jsonl or .csv files, one for each .npy in the same order, one row for each vector
  caption_column, key_column   their columns (key: the row number when empty)
Vectors are L2-normalised. Concepts' embeddings must come from the same CLIP: clip.*, or
concepts.vocabulary with concepts.embeddings."""


def check(config: CocuConfig) -> None:
    """What can be wrong before Spark starts."""
    corpora = _corpora(config)
    for corpus in corpora:
        _pairs_of_files(corpus)


def _corpora(config: CocuConfig) -> list[CorpusConfig]:
    chosen = [corpus for corpus in config.corpora if corpus.format == "embeddings"]
    others = [corpus.name for corpus in config.corpora if corpus.format != "embeddings"]
    if not chosen:
        raise UserError("import_embeddings: no corpus has format: embeddings")
    if others:
        raise UserError(
            f"corpora with format: embeddings need a workspace of their own; here are also {', '.join(others)}"
        )
    return chosen


def _pairs_of_files(corpus: CorpusConfig) -> list[tuple[str, str]]:
    if not corpus.metadata:
        raise UserError(
            f"corpus '{corpus.name}': metadata is missing, the files with the captions of {corpus.path}"
        )
    vectors, metadata = expand(corpus.path), expand(corpus.metadata)
    if len(vectors) != len(metadata):
        raise UserError(
            f"corpus '{corpus.name}': {len(vectors)} .npy files ({corpus.path}) and {len(metadata)} metadata files ({corpus.metadata}); "
            f"they must be as many, in the same order"
        )
    return list(zip(vectors, metadata, strict=True))


def run(session: SparkSession, config: CocuConfig) -> Manifest:
    """Build pairs and image_embeddings; returns the manifest of the latter."""
    corpora = _corpora(config)
    units = []
    for corpus in corpora:
        for number, files in enumerate(_pairs_of_files(corpus)):
            units.append(Unit(f"{corpus.name}/{number:05d}", 0, (corpus, *files, config.ingest)))
    settings: dict[str, Any] = {
        "corpora": [to_plain(corpus) for corpus in corpora],
        "rows_per_part": config.ingest.rows_per_part,
        "min_caption_chars": config.ingest.min_caption_chars,
        "max_caption_chars": config.ingest.max_caption_chars,
    }
    names = hashlib.sha256("\n".join(str(unit.payload[1:3]) for unit in units).encode()).hexdigest()[:16]
    pairs = build_table(
        session,
        config,
        TableJob("import_embeddings", "pairs", settings, {"files": names}, units, pairs_unit, "rows"),
    )
    by_unit = {record.unit: record for record in pairs.units}
    vector_units = []
    for unit in units:
        for part in by_unit[unit.name].parts:
            address = tables.join(pairs.folder, part.file)
            vector_units.append(Unit(part.name, part.rows, (unit.payload[0], unit.payload[1], address)))
    return build_table(
        session,
        config,
        TableJob(
            "import_embeddings",
            "image_embeddings",
            {},
            {"pairs": pairs.recipe},
            vector_units,
            vectors_unit,
            "vectors",
        ),
    )


def read_metadata(corpus: CorpusConfig, address: str) -> pa.Table:
    """key string, caption string of one metadata file, in its order."""
    filesystem, path = resolve(address)
    suffix = posixpath.splitext(path)[1].lower()
    try:
        with filesystem.open_input_file(path) as source:
            if suffix == ".parquet":
                rows = pq.read_table(source)
            elif suffix in (".jsonl", ".json", ".ndjson"):
                rows = pajson.read_json(source)
            elif suffix in (".csv", ".tsv"):
                rows = pacsv.read_csv(
                    source, parse_options=pacsv.ParseOptions(delimiter="\t" if suffix == ".tsv" else ",")
                )
            else:
                raise UserError(
                    f"corpus '{corpus.name}': {address}: metadata must be .parquet, .jsonl, .csv or .tsv"
                )
    except (pa.ArrowInvalid, FileNotFoundError) as error:
        raise UserError(f"corpus '{corpus.name}': {address}: cannot be read: {error}") from None
    for option in ("caption_column", "key_column"):
        name = getattr(corpus, option)
        if name and name not in rows.column_names:
            raise UserError(
                f"corpus '{corpus.name}': {option}={name} is not in {address}; columns: {', '.join(rows.column_names)}"
            )
    captions = rows.column(corpus.caption_column).cast(pa.string())
    keys = (
        rows.column(corpus.key_column).cast(pa.string())
        if corpus.key_column
        else pa.array(map(str, range(len(rows))))
    )
    return pa.table({"key": keys, "caption": captions})


def open_vectors(corpus: CorpusConfig, address: str) -> np.ndarray:
    """A .npy file, memory-mapped where it is local."""
    filesystem, path = resolve(address)
    try:
        if "://" not in address:
            values = np.load(path, mmap_mode="r", allow_pickle=False)
        else:
            with filesystem.open_input_file(path) as source:
                values = np.lib.format.read_array(source, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"corpus '{corpus.name}': {address}: not a readable .npy of numbers: {error}"
        ) from None
    if values.ndim != 2 or values.dtype.kind != "f":
        raise UserError(
            f"corpus '{corpus.name}': {address}: expected floats of shape (n, d), found {values.dtype} {values.shape}"
        )
    return values


def pairs_unit(unit: Unit, folder: str, recipe: str) -> UnitRecord:
    """Import the captions of one file (runs on an executor)."""
    corpus, vectors_address, metadata_address, options = unit.payload
    rows = read_metadata(corpus, metadata_address)
    vectors = open_vectors(corpus, vectors_address)
    if len(vectors) != len(rows):
        raise UserError(
            f"corpus '{corpus.name}': {vectors_address} has {len(vectors)} rows, {metadata_address} has {len(rows)}"
        )
    usable = np.isfinite(vectors).all(axis=1) & (np.abs(vectors).max(axis=1) > 0)
    good: list[tuple[str, str]] = []
    rejects: list[RejectedRow] = []
    seen: set[str] = set()
    for number, (name, caption) in enumerate(zip(*(rows.column(i).to_pylist() for i in (0, 1)), strict=True)):
        # The sample's part of the key carries the row, by which its vector is found again.
        key = f"{unit.name}/{_safe(name)}@{number}"
        cleaned = clean_caption(caption, options)
        if not usable[number]:
            rejects.append(RejectedRow(key, "import_embeddings", "embedding not finite"))
        elif name in seen:
            rejects.append(RejectedRow(key, "import_embeddings", str(Reason.DUPLICATE_KEY.value), str(name)))
        elif not isinstance(cleaned, str):
            rejects.append(RejectedRow(key, "import_embeddings", str(cleaned.reason), str(cleaned.detail)))
        else:
            good.append((key, cleaned))
        seen.add(name)
    return _write_pairs(unit, folder, recipe, corpus, good, rejects, options.rows_per_part)


def _safe(name: str | None) -> str:
    return "".join(char if char.isalnum() or char in "-_." else "_" for char in str(name))


def _write_pairs(
    unit: Unit,
    folder: str,
    recipe: str,
    corpus: CorpusConfig,
    good: Sequence[tuple[str, str]],
    rejects: list[RejectedRow],
    size: int,
) -> UnitRecord:
    attempt = attempt_number()
    parts = []
    for start in range(0, len(good), size):
        some = good[start : start + size]
        columns = {
            "key": [key for key, _ in some],
            "corpus": [corpus.name] * len(some),
            "image": [b""] * len(some),
            "caption": [caption for _, caption in some],
            "width": [0] * len(some),
            "height": [0] * len(some),
        }
        name = f"{unit.name}-{len(parts):05d}"
        file = tables.part_path(recipe, name, attempt)
        parts.append(
            Part(
                name,
                file,
                tables.write_part(folder, file, pa.table(columns, schema=PAIRS_SCHEMA), PAIRS_SCHEMA),
            )
        )
    reject_file = None
    reasons: dict[str, int] = {}
    if rejects:
        reject_file = tables.part_path(recipe, f"{unit.name}.rejects", attempt)
        tables.write_part(folder, reject_file, rejects_table(rejects), REJECTS_SCHEMA)
        for row in rejects:
            reasons[row.reason] = reasons.get(row.reason, 0) + 1
    return UnitRecord(unit.name, tuple(parts), len(good) + len(rejects), reasons, reject_file)


def vectors_unit(unit: Unit, folder: str, recipe: str) -> UnitRecord:
    """Import the vectors of one part of `pairs` (runs on an executor)."""
    corpus, vectors_address, pairs_address = unit.payload
    keys = tables.read_file(pairs_address, ["key"]).column("key")
    rows = np.array([int(key.rpartition("@")[2]) for key in keys.to_pylist()], dtype=np.int64)
    vectors = np.asarray(open_vectors(corpus, vectors_address)[rows], dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    table = pa.table(
        {"key": keys, "embedding": vectors_to_column(vectors.astype(np.float16), vectors.shape[1])}
    )
    return finish_unit(unit, folder, recipe, table)


def main() -> None:
    """Entry of spark-submit."""
    from spark_jobs.entry import job_entry

    job_entry("import_embeddings", HELP, ["ingest"], check, run)


if __name__ == "__main__":
    from spark_jobs.import_embeddings import (
        main as entry,  # by its import name, so that executors find the task's function
    )

    entry()

"""Instead of jobs 1 and 2: ready CLIP vectors with captions -> pairs, image_embeddings.

For what clip-retrieval and img2dataset users have: `.npy` files of image embeddings and metadata files
(Parquet, JSON lines or CSV) with a row for each vector. The pairs have no image, so archives can be built
from them and a training set cannot.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.json as pajson
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from configs.errors import UserError
from configs.loading import to_plain
from configs.schema import CocuConfig, CorpusConfig, IngestConfig
from corpora.captions import Problem, clean_caption
from corpora.ingest_shard import PAIRS_SCHEMA, REJECTS_SCHEMA
from corpora.readers.npy_files import NpyFile, open_npy
from corpora.reasons import Reason
from corpora.samples import sample_name
from corpora.shards import split_fields
from spark_jobs.engine.commits import build_table
from spark_jobs.engine.table_job import TableJob
from spark_jobs.engine.units import RejectedRow, finish_unit, rejects_table
from spark_jobs.engine.waves import attempt_number
from storage import tables
from storage.addresses import expand, file_sizes, resolve
from storage.tables import Manifest
from storage.units import Part, Unit, UnitRecord
from storage.vectors import vectors_to_column

__all__ = ["check", "main", "run"]

HELP = """\
Take image embeddings that exist already: writes pairs (without images) and image_embeddings.
It stands for ingest and embed_images; mine_concepts, build_index and build_archives follow.

Sources are the entries of `corpora` with format: embeddings, each with
  name            short name, the first part of every key
  path            .npy files of floats, shape (n, d), as clip-retrieval writes them: img_emb/img_emb_*.npy
  metadata        .parquet, .jsonl, .csv or .tsv files, one for each .npy in the same order, a row a vector
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
    for corpus in _corpora(config):
        vectors, metadata = _pairs_of_files(corpus)[0]
        open_npy(vectors)
        _check_columns(corpus, metadata, _column_names(metadata))


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


def _pairs_of_files(corpus: CorpusConfig) -> list[tuple[str, str]]:
    if not corpus.metadata:
        raise UserError(
            f"corpus '{corpus.name}': metadata is missing, the files with the captions of {corpus.path}"
        )
    vectors, metadata = expand(corpus.path), expand(corpus.metadata)
    if len(vectors) != len(metadata):
        raise UserError(
            f"corpus '{corpus.name}': {len(vectors)} .npy files ({corpus.path}) and {len(metadata)} metadata "
            f"files ({corpus.metadata}); they must be as many, in the same order"
        )
    return list(zip(vectors, metadata, strict=True))


def run(session: SparkSession, config: CocuConfig) -> Manifest:
    """Build pairs and image_embeddings; returns the manifest of the latter."""
    units = []
    for corpus in _corpora(config):
        files = _pairs_of_files(corpus)
        dimension = open_npy(files[0][0]).dimension
        for number, (vectors, metadata) in enumerate(files):
            payload = Source(corpus, vectors, metadata, dimension, config.ingest)
            units.append(Unit(f"{corpus.name}/{number:05d}", 0, payload))
    pairs = build_table(
        session,
        config,
        TableJob(
            job="import_embeddings",
            table="pairs",
            settings=_settings(config),
            inputs={"files": _fingerprint([unit.payload for unit in units])},
            units=units,
            task=pairs_unit,
            what="rows",
        ),
    )
    sources = {unit.name: unit.payload for unit in units}
    return build_table(
        session,
        config,
        TableJob(
            job="import_embeddings",
            table="image_embeddings",
            settings={},
            inputs={"pairs": pairs.recipe},
            units=[
                Unit(part.name, part.rows, (sources[record.unit], tables.join(pairs.folder, part.file)))
                for record in pairs.units
                for part in record.parts
            ],
            task=vectors_unit,
            what="vectors",
        ),
    )


@dataclass(frozen=True)
class Source:
    """One .npy file and its metadata."""

    corpus: CorpusConfig
    vectors: str
    metadata: str
    dimension: int
    options: IngestConfig


def _settings(config: CocuConfig) -> dict[str, Any]:
    names = ("rows_per_part", "min_caption_chars", "max_caption_chars")
    chosen = {name: getattr(config.ingest, name) for name in names}
    return {"corpora": [to_plain(corpus) for corpus in _corpora(config)], **chosen}


def _fingerprint(sources: Sequence[Source]) -> str:
    """Which files there are and how large they are."""
    addresses = [address for source in sources for address in (source.vectors, source.metadata)]
    lines = [f"{address} {size}" for address, size in zip(addresses, file_sizes(addresses), strict=True)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def read_metadata(corpus: CorpusConfig, address: str) -> pa.Table:
    """key string (null: none), caption string (null: none) of one metadata file, in its order.

    Raises:
        UserError: the file is damaged, of another kind, or lacks the columns.
    """
    wanted = [name for name in (corpus.caption_column, corpus.key_column) if name]
    filesystem, path = resolve(address)
    try:
        _check_columns(corpus, address, _column_names(address))
        with filesystem.open_input_file(path) as source:
            rows = _READERS[_kind(address)](source, wanted)
        captions = rows.column(corpus.caption_column).cast(pa.string())
        keys = rows.column(corpus.key_column).cast(pa.string()) if corpus.key_column else None
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, FileNotFoundError) as error:
        text = " ".join(str(error).split())[:200]
        raise UserError(f"corpus '{corpus.name}': {address}: cannot be read: {text}") from None
    return pa.table(
        {"key": keys if keys is not None else pa.nulls(len(rows), pa.string()), "caption": captions}
    )


def _read_csv(source: pa.NativeFile, wanted: Sequence[str], delimiter: str = ",") -> pa.Table:
    # As strings: a guessed type would make 12 of the key 00012.
    return pacsv.read_csv(
        source,
        parse_options=pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pacsv.ConvertOptions(
            column_types=dict.fromkeys(wanted, pa.string()), include_columns=wanted
        ),
    )


def _read_jsonl(source: pa.NativeFile, wanted: Sequence[str]) -> pa.Table:
    schema = pa.schema([(wanted[0], pa.string())])  # else a caption that looks like a date becomes one
    return pajson.read_json(
        source,
        read_options=pajson.ReadOptions(block_size=_JSON_BLOCK),
        parse_options=pajson.ParseOptions(explicit_schema=schema),
    )


_JSON_BLOCK = 16 << 20  # no line may be longer
_READERS: dict[str, Callable[[pa.NativeFile, Sequence[str]], pa.Table]] = {
    ".parquet": lambda source, wanted: pq.read_table(source, columns=list(dict.fromkeys(wanted))),
    ".jsonl": _read_jsonl,
    ".json": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".csv": _read_csv,
    ".tsv": lambda source, wanted: _read_csv(source, wanted, "\t"),
}


def _kind(address: str) -> str:
    suffix = posixpath.splitext(address)[1].lower()
    if suffix not in _READERS:
        raise UserError(f"{address}: metadata must be .parquet, .jsonl, .csv or .tsv")
    return suffix


def _column_names(address: str) -> list[str]:
    """The columns of a metadata file, from its schema or first line."""
    kind = _kind(address)
    filesystem, path = resolve(address)
    try:
        with filesystem.open_input_file(path) as source:
            if kind == ".parquet":
                return pq.ParquetFile(source).schema_arrow.names
            line = source.read(_LONGEST_FIRST_LINE).partition(b"\n")[0].decode("utf-8-sig").rstrip("\r")
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise UserError(f"{address}: cannot be read: {' '.join(str(error).split())[:200]}") from None
    if kind in (".csv", ".tsv"):
        return split_fields(line, "\t" if kind == ".tsv" else ",") or []
    try:
        values = json.loads(line)
    except ValueError as error:
        raise UserError(f"{address}: its first line is not JSON: {error}") from None
    return list(values) if isinstance(values, dict) else []


_LONGEST_FIRST_LINE = 1 << 20


def _check_columns(corpus: CorpusConfig, address: str, columns: Sequence[str]) -> None:
    for option in ("caption_column", "key_column"):
        name = getattr(corpus, option)
        if name and name not in columns:
            raise UserError(
                f"corpus '{corpus.name}': {option}={name} is not in {address}; columns: {', '.join(columns)[:300]}"
            )


def pairs_unit(unit: Unit, folder: str, recipe: str) -> UnitRecord:
    """Import the captions of one file (runs on an executor)."""
    source: Source = unit.payload
    rows = read_metadata(source.corpus, source.metadata)
    vectors = open_npy(source.vectors)
    if vectors.rows != rows.num_rows:
        raise UserError(
            f"corpus '{source.corpus.name}': {source.vectors} has {vectors.rows} rows, "
            f"{source.metadata} has {rows.num_rows}"
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
    captions = rows.column("caption").to_pylist()
    for number, (name, caption) in enumerate(zip(rows.column("key").to_pylist(), captions, strict=True)):
        # The sample's part of the key carries the row, by which its vector is found again.
        key = f"{unit.name}/{sample_name(name) if name else 'row'}@{number}"
        result = clean_caption(caption, source.options)
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
    attempt = attempt_number()
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


def main() -> None:
    """Entry of spark-submit."""
    from spark_jobs.engine.entry import job_entry

    job_entry("import_embeddings", HELP, ["ingest"], check, run)


if __name__ == "__main__":
    from spark_jobs.import_embeddings import (
        main as entry,  # by its import name, so that executors find the task's function
    )

    entry()

"""Archives for a column of embeddings: the join against the workspace's index, by its address.

The index is sent nowhere. A worker gets its address with the function and maps its files, so a host holds one copy
whatever the number of workers (spark_jobs/engine/index_cache.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.functions import pandas_udf
from pyspark.sql.types import ArrayType, FloatType, ShortType, StringType, StructField, StructType

from configs.errors import UserError
from configs.schema import CocuConfig
from spark_jobs.archiving.plan import Plan, archives_here, plan_of
from spark_jobs.engine.index_search import search_quality
from spark_jobs.engine.session import gpu_profile
from spark_jobs.frames.workers import Workers, as_batch, in_place, ready, widened

__all__ = ["concept_archive", "with_archives"]

_FIELDS = [
    StructField("concepts", ArrayType(StringType())),
    StructField("scores", ArrayType(FloatType())),
    StructField("clusters", ArrayType(ShortType())),
    StructField("neighbours", ArrayType(StringType())),
]
_NAMES = [entry.name for entry in _FIELDS]


@dataclass(frozen=True)
class _Archiver:
    """What goes to the workers."""

    workers: Workers
    plan: Plan

    def __call__(self, embeddings: pa.Array, keys: pa.Array | None) -> pa.RecordBatch:
        """Columns concepts, scores, clusters, neighbours; null where the embedding is null or no direction."""
        known, vectors = _vectors(embeddings)
        names = pa.array([""] * len(embeddings)) if keys is None else pc.fill_null(keys.cast(pa.string()), "")
        found, _ = archives_here(self.plan, names.filter(known), vectors)
        places = np.full(len(embeddings), -1)
        places[known.to_numpy(zero_copy_only=False)] = np.arange(len(vectors))
        rows = pa.array(places, mask=places < 0)
        columns = [found.column(found.schema.get_field_index(name)).take(rows) for name in _NAMES]
        return pa.RecordBatch.from_arrays(columns, names=_NAMES)


def _vectors(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Which rows have a direction, bool (n,), and the vectors of these, float32 (m, d) of length 1.

    Raises:
        UserError: the column holds no vectors, or vectors of several lengths.
    """
    rows = column.filter(column.is_valid())
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        values, sizes = rows.flatten(), pc.list_value_length(rows)
        if values.null_count:
            raise UserError("an embedding has a null among its numbers; make the whole embedding null")
        flat = values.cast(pa.float32()).to_numpy(zero_copy_only=False)
        sizes = sizes.to_numpy(zero_copy_only=False)
    elif pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        flat = np.frombuffer(b"".join(rows.to_pylist()), "<f2").astype(np.float32)
        sizes = pc.binary_length(rows).to_numpy(zero_copy_only=False) // 2
    else:
        raise UserError(
            f"embeddings are array<float>, or binary of float16 as the tables have, not {column.type}"
        )
    if len(set(sizes.tolist())) > 1:
        raise UserError(
            f"embeddings of {sorted(set(sizes.tolist()))[:4]} numbers in one column; all must be of one CLIP"
        )
    vectors = flat.reshape(len(rows), -1)
    lengths = np.linalg.norm(vectors, axis=1)
    usable = np.isfinite(lengths) & (lengths > 0)
    known = np.zeros(len(column), bool)
    known[np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))] = usable
    vectors, lengths = vectors[usable], lengths[usable, None]
    # float16 rounds lengths by a thousandth: what the tables hold stays what it is, to the bit.
    return pa.array(known), np.where(np.abs(lengths - 1) < 2e-3, vectors, vectors / lengths)


def _archiver(session: SparkSession, config: CocuConfig) -> _Archiver:
    config = in_place(config)
    plan, index, _ = plan_of(config)
    workers = ready(session)
    return _Archiver(workers, replace(plan, nprobe=search_quality(session, config, index).nprobe))


def concept_archive(session: SparkSession, config: CocuConfig) -> Any:
    """A pandas UDF: embedding -> struct<concepts, scores, clusters, neighbours>, the archive as build_archives has it.

    The embedding is array<float> (another length than 1 is mended) or binary as the tables have it. A second
    argument, the pair's key, leaves the image of that key in the index out of its own neighbours. All four are null
    for an embedding that is null, zero or not finite.

    Args:
        session: running.
        config: its ``workspace``, with an index (and a probe, for the calibrated ranking), and its section ``archives``.

    Raises:
        UserError: the workspace lacks something; executors with other packages or code.
    """
    archive = _archiver(session, config)

    def archives(batches: Iterator[pd.Series | tuple[pd.Series, ...]]) -> Iterator[pd.DataFrame]:
        for batch in batches:
            embeddings, *keys = batch if isinstance(batch, tuple) else (batch,)
            # Not as pandas' own: it would take a NaN inside a vector for a null.
            vectors = pa.array(embeddings.to_numpy(), from_pandas=False)
            columns = archive(vectors, pa.Array.from_pandas(keys[0]) if keys else None)
            yield columns.to_pandas()

    def concept_archive(batches: Iterator[tuple[pd.Series, ...]]) -> Iterator[pd.DataFrame]:
        return archive.workers.guarded(archives(batches))

    return pandas_udf(concept_archive, StructType(_FIELDS)).asNondeterministic()


def with_archives(
    session: SparkSession,
    config: CocuConfig,
    frame: DataFrame,
    embedding: str = "embedding",
    key: str = "",
) -> DataFrame:
    """``frame`` and, behind its columns, concepts, scores, clusters and neighbours.

    Without pandas in between, and with a GPU for each task by stage-level scheduling where executors have some and
    ``archives.device`` is not cpu. ``key``: the column that :func:`concept_archive` takes as second argument.

    Raises:
        UserError: as :func:`concept_archive`; a column is missing or taken.
    """
    schema = widened(frame, (embedding, key) if key else (embedding,), _FIELDS)
    archive = _archiver(session, config)

    def add(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            vectors, keys = (
                batch.column(batch.schema.get_field_index(name)) if name else None
                for name in (embedding, key)
            )
            found = archive(vectors, keys)
            yield as_batch(batch, dict(zip(_NAMES, found.columns, strict=True)))

    profile = gpu_profile(session) if config.archives.device != "cpu" else None
    return frame.mapInArrow(lambda batches: archive.workers.guarded(add(batches)), schema, profile=profile)

"""Embeddings of a column of images."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.functions import pandas_udf
from pyspark.sql.types import ArrayType, FloatType, StringType, StructField, StructType

from configs.schema import ClipConfig, CocuConfig, EmbedConfig, IngestConfig
from models.clip import check_clip, clip_fingerprint
from spark_jobs.embedding.images import Embedded, clip_here, decoded, embedded, images_a_pass
from spark_jobs.engine.session import gpu_profile
from spark_jobs.frames.workers import Workers, as_batch, ready, widened
from storage import tables

__all__ = ["embed_image", "embed_image_or_reason", "with_embeddings"]

_VECTOR = ArrayType(FloatType())
Row = tuple[np.ndarray | None, str | None]
"""A vector float32 (d,), or None and why."""


@dataclass(frozen=True)
class _Embedder:
    """What goes to the workers."""

    workers: Workers
    clip: ClipConfig
    options: EmbedConfig
    weights: str
    prepare: IngestConfig | None

    def __call__(self, batches: Iterator[Iterable[bytes | memoryview | None]]) -> Iterator[list[Row]]:
        """For every batch of images what became of them. Images are decoded ahead across the batches."""
        return self.workers.guarded(self._rows(batches))

    def _rows(self, batches: Iterator[Iterable[bytes | memoryview | None]]) -> Iterator[list[Row]]:
        sizes: deque[int] = deque()

        def images() -> Iterator[bytes | memoryview | None]:
            for batch in batches:
                values = list(batch)
                sizes.append(len(values))
                yield from values

        clip = clip_here(self.clip, self.weights)
        pixels = decoded(clip, images(), self.options, self.prepare)
        rows: list[Row] = []
        for row in _in_order(embedded(clip, pixels, images_a_pass(clip, self.options))):
            rows.append(row)
            while len(rows) >= sizes[0]:
                size = sizes.popleft()
                yield rows[:size]
                del rows[:size]
                if not sizes:
                    break
        yield from ([] for _ in sizes)  # batches without a row, at the end


def _in_order(passes: Iterator[Embedded]) -> Iterator[Row]:
    """One entry a row, in the order of the rows: failures come before or after the vectors around them."""
    waiting: dict[int, Row] = {}
    following = 0
    for rows, vectors, failures in passes:
        waiting.update(zip(rows, ((vector, None) for vector in vectors.astype(np.float32)), strict=True))
        waiting.update({row: (None, reason.value) for row, reason, _ in failures})
        while following in waiting:
            yield waiting.pop(following)
            following += 1


def _embedder(session: SparkSession, config: CocuConfig, raw: bool) -> _Embedder:
    check_clip(config.clip)
    workers = ready(session, config.clip)
    clip, weights = _as_stored(config), clip_fingerprint(config.clip)
    return _Embedder(workers, clip, config.embed, weights, config.ingest if raw else None)


def _as_stored(config: CocuConfig) -> ClipConfig:
    """Where ``clip.precision`` is ``auto``, that of the workspace's vectors, if there are any: new ones are like them."""
    if config.clip.precision != "auto" or not config.workspace:
        return config.clip
    stored = tables.find_manifest(config.workspace, "image_embeddings")
    found = stored.extra.get("precision") if stored else None
    return replace(config.clip, precision=found) if found else config.clip


def embed_image(session: SparkSession, config: CocuConfig, raw: bool = True) -> Any:
    """A pandas UDF: an image's bytes -> array<float>, its CLIP embedding as embed_images stores it; null for what
    has none.

    Args:
        session: running.
        config: its sections ``clip``, ``embed`` and, for raw images, ``ingest``.
        raw: image files as they come, which go through ingest's checks and scaling first. False for the images of a
            table ``pairs``, which have been through them (the result is the same, at the cost of one decoding less).

    Raises:
        UserError: no such model; executors with other packages, code or model files.
    """
    embed = _embedder(session, config, raw)

    def embed_image(images: Iterator[pd.Series]) -> Iterator[pd.Series]:
        for rows in embed(images):
            yield pd.Series([vector for vector, _ in rows], dtype=object)

    return _once(embed_image, _VECTOR)


def embed_image_or_reason(session: SparkSession, config: CocuConfig, raw: bool = True) -> Any:
    """Like :func:`embed_image`, giving struct<embedding: array<float>, reason: string>: one of them is null.

    ``reason`` is one of ``corpora.reasons.Reason``: ``missing_image`` for a null, ``truncated_image`` and so on.
    """
    embed = _embedder(session, config, raw)
    fields = [StructField("embedding", _VECTOR), StructField("reason", StringType())]

    def embed_image_or_reason(images: Iterator[pd.Series]) -> Iterator[pd.DataFrame]:
        for rows in embed(images):
            columns = {"embedding": [vector for vector, _ in rows], "reason": [reason for _, reason in rows]}
            yield pd.DataFrame(columns, dtype=object)

    return _once(embed_image_or_reason, StructType(fields))


def _once(function: Any, result: Any) -> Any:
    """As a UDF that Spark does not move below a filter, where it would be computed twice."""
    return pandas_udf(function, result).asNondeterministic()


def with_embeddings(
    session: SparkSession,
    config: CocuConfig,
    frame: DataFrame,
    image: str = "image",
    embedding: str = "embedding",
    reason: str = "reason",
    raw: bool = True,
) -> DataFrame:
    """``frame`` and, behind its columns, ``embedding`` (array<float>) and ``reason`` (string); one of them is null.

    Without pandas in between, and with a GPU for each task by stage-level scheduling where executors have some
    (a UDF gets one only where ``spark.task.resource.gpu.amount`` gives every task of the application one).

    Raises:
        UserError: as :func:`embed_image`; a column is missing or taken.
    """
    schema = widened(frame, (image,), [StructField(embedding, _VECTOR), StructField(reason, StringType())])
    embed = _embedder(session, config, raw)

    def add(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        held: deque[pa.RecordBatch] = deque()

        def images() -> Iterator[Iterable[memoryview | None]]:
            for batch in batches:
                held.append(batch)
                values = batch.column(batch.schema.get_field_index(image))
                yield (memoryview(value.as_buffer()) if value.is_valid else None for value in values)

        for rows in embed(images()):
            added = {
                embedding: pa.array([vector for vector, _ in rows], pa.list_(pa.float32())),
                reason: pa.array([why for _, why in rows], pa.string()),
            }
            yield as_batch(held.popleft(), added)

    return frame.mapInArrow(add, schema, profile=gpu_profile(session))

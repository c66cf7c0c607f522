"""Embeddings of a column of texts, and the concepts that captions name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import SparkSession
from pyspark.sql.functions import pandas_udf
from pyspark.sql.types import ArrayType, FloatType, StringType

from configs.schema import CocuConfig
from corpora.captions import Problem, clean_caption
from models.clip import check_clip, clip_fingerprint
from spark_jobs.embedding.images import clip_here
from spark_jobs.frames.workers import in_place, ready
from spark_jobs.mining.caption_table import extractor_of, words_of
from storage import tables

__all__ = ["embed_text", "find_concepts"]


def embed_text(session: SparkSession, config: CocuConfig, prompt: str = "{}") -> Any:
    """A pandas UDF: string -> array<float>, CLIP's embedding of the text, of length 1; null for null.

    Args:
        session: running.
        config: its section ``clip``.
        prompt: what stands around the text; ``config.clip.prompt`` gives concepts as the table ``concepts`` has them.

    Raises:
        UserError: no such model; executors with other packages, code or model files.
    """
    check_clip(config.clip)
    workers = ready(session, config.clip)
    clip, weights = replace(config.clip, prompt=prompt), clip_fingerprint(config.clip)

    def embed(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
        for texts in batches:
            known = texts.notna().to_numpy()
            vectors = np.full(len(texts), None, object)
            if known.any():
                model = clip_here(clip, weights)
                found = model.encode_texts([clip.prompt.replace("{}", text) for text in texts[known]])
                vectors[np.flatnonzero(known)] = list(found)
            yield pd.Series(vectors)

    def embed_text(texts: Iterator[pd.Series]) -> Iterator[pd.Series]:
        return workers.guarded(embed(texts))

    return pandas_udf(embed_text, ArrayType(FloatType())).asNondeterministic()


def find_concepts(session: SparkSession, config: CocuConfig, raw: bool = True) -> Any:
    """A pandas UDF: caption -> array<string>, the workspace's concepts that it names, in its order, each once.

    A caption that is null, or that ingest would refuse, gives null.

    Args:
        session: running.
        config: its ``workspace``, which has the table ``concepts``, and for raw captions the section ``ingest``.
        raw: captions as they come, which are cleaned as ingest does. False for those of a table ``pairs``.

    Raises:
        UserError: the workspace has no concepts; executors with other packages or code.
    """
    concepts = tables.read_manifest(in_place(config).workspace, "concepts")
    workers = ready(session)
    words, merged = words_of(concepts)
    options = config.ingest if raw else None

    def clean(caption: str | None) -> str | None:
        if caption is None or options is None:
            return caption
        found = clean_caption(caption, options)
        return None if isinstance(found, Problem) else found

    def find(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
        extractor = extractor_of(words, merged)
        for captions in batches:
            ready_captions = [clean(caption) for caption in captions]
            found = extractor.names(ready_captions)
            lists = [
                None if text is None else names for text, names in zip(ready_captions, found, strict=True)
            ]
            yield pd.Series(lists, dtype=object)

    def find_concepts(captions: Iterator[pd.Series]) -> Iterator[pd.Series]:
        return workers.guarded(find(captions))

    return pandas_udf(find_concepts, ArrayType(StringType()))

"""The jobs' functions for any DataFrame, as pandas UDFs and as functions from DataFrame to DataFrame (docs/dataframes.md)."""

from __future__ import annotations

from spark_jobs.frames.archives import concept_archive, with_archives
from spark_jobs.frames.images import embed_image, embed_image_or_reason, with_embeddings
from spark_jobs.frames.texts import embed_text, find_concepts

__all__ = [
    "concept_archive",
    "embed_image",
    "embed_image_or_reason",
    "embed_text",
    "find_concepts",
    "with_archives",
    "with_embeddings",
]

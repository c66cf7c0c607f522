"""A small workspace up to pair_concepts, written without Spark and CLIP: what the index jobs read."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from curation.csr import Csr
from storage import tables
from storage.tables import Manifest
from storage.units import Part, UnitRecord
from storage.vectors import vectors_to_column
from tests.curation.synthetic import Corpus, make_corpus

WORDS = "dog cat tree car boat house river bird horse flower".split()


def write_table(workspace: Path, name: str, job: str, parts: dict[str, pa.Table], recipe: str) -> Manifest:
    """A complete table with these parts."""
    folder = str(workspace / name)
    records = []
    for part, rows in parts.items():
        file = tables.part_path(recipe, part, 0)
        tables.write_part(folder, file, rows, rows.schema)
        records.append(UnitRecord(part, (Part(part, file, len(rows)),), len(rows)))
    manifest = Manifest(
        table=name, workspace=str(workspace), job=job, recipe=recipe, settings={}, inputs={}, config={},
        version="test", status="complete", units=records, seconds=1.0,
    )  # fmt: skip
    tables.write_manifest(manifest)
    return manifest


def write_workspace(workspace: Path, corpora: dict[str, Corpus], rows_per_part: int = 100) -> None:
    """The tables of some corpora that share their vocabulary; keys are corpus/00000/row."""
    images, captions, pairs = {}, {}, {}
    for name, corpus in corpora.items():
        for start in range(0, len(corpus), rows_per_part):
            part, rows = f"{name}/00000-{start:06d}", slice(start, min(len(corpus), start + rows_per_part))
            keys = pa.array([f"{name}/00000/{row:06d}" for row in range(rows.start, rows.stop)])
            words = corpus.captions.gather(np.arange(rows.start, rows.stop))
            vectors = vectors_to_column(corpus.vectors[rows], corpus.vectors.shape[1])
            images[part] = pa.table({"key": keys, "embedding": vectors})
            captions[part] = pa.table({"key": keys, "concept_ids": words.to_list_array()})
            pairs[part] = pa.table(
                {"key": keys, "caption": _texts(words, corpus.concepts.to_pylist()), "image": [_jpeg(0)] * len(keys)}
            )  # fmt: skip
    first = next(iter(corpora.values()))
    write_table(workspace, "pairs", "ingest", pairs, "pairs")
    write_table(workspace, "image_embeddings", "embed_images", images, "images")
    write_table(workspace, "pair_concepts", "mine_concepts", captions, "captions")
    write_table(workspace, "concepts", "mine_concepts", {"concepts/00000": _concepts(first)}, "concepts")


def two_corpora(rows: int, others: int, concepts: int = 60) -> dict[str, Corpus]:
    """``web`` and ``mine``, of so many rows, with one vocabulary."""
    web, mine = make_corpus(rows, concepts=concepts), make_corpus(others, concepts=concepts, seed=1)
    shared = {
        name: getattr(web, name) for name in ("concepts", "concept_embeddings", "cosine_mean", "cosine_std")
    }
    return {"web": web, "mine": Corpus(**{**vars(mine), **shared})}


def link_tables(source: Path, workspace: Path) -> Path:
    """``workspace`` with the tables of ``source``, which stay as they are."""
    for table in source.iterdir():
        (workspace / table.name).symlink_to(table)
    return workspace


def _concepts(corpus: Corpus) -> pa.Table:
    count = len(corpus.concepts)
    return pa.table(
        {
            "concept_id": pa.array(np.arange(count, dtype=np.int32)),
            "concept": corpus.concepts,
            "count": pa.array(np.zeros(count, np.int64)),
            "embedding": vectors_to_column(corpus.concept_embeddings, corpus.concept_embeddings.shape[1]),
            "cosine_mean": pa.array(corpus.cosine_mean),
            "cosine_std": pa.array(corpus.cosine_std),
        }
    )


def _texts(words: Csr, names: Sequence[str]) -> list[str]:
    return ["a picture of " + " and ".join(names[word] for word in ids) for ids in words.to_lists()]


def _jpeg(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 12), (shade, 100, 200)).save(buffer, "JPEG")
    return buffer.getvalue()

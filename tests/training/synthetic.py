"""A small training set as export_training writes it, without Spark."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from models.token_rows import pack_ids
from spark_jobs.export_training import training_schema
from storage import tables
from storage.units import Part, UnitRecord

WORDS = "dog cat tree car boat house river bird horse flower bridge mountain".split()
COLOURS = np.array([[int(c) for c in np.base_repr(i + 5, 3).zfill(3)[-3:]] for i in range(len(WORDS))]) * 100


def picture(word: int, seed: int, size: int = 40) -> bytes:
    """A JPEG whose colour tells the word."""
    noise = np.random.default_rng(seed).integers(0, 50, (size, size + 8, 3))
    buffer = io.BytesIO()
    Image.fromarray((COLOURS[word] + noise).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def rows_table(first: int, count: int, length: int = 4) -> pa.Table:
    """``count`` rows; row i shows word i mod 12, its archive holds that word and the two after it."""
    numbers = list(range(first, first + count))
    captions = [f"a {WORDS[n % len(WORDS)]} number {n}" for n in numbers]
    words = [[WORDS[(n + k) % len(WORDS)] for k in range(3)] + [""] * (length - 3) for n in numbers]
    return pa.table(
        {
            "key": [f"web/{n // 100:05d}/{n:09d}" for n in numbers],
            "image": [picture(n % len(WORDS), n) for n in numbers],
            "caption": captions,
            "caption_tokens": pack_ids(captions),
            "caption_nouns": [WORDS[n % len(WORDS)] for n in numbers],
            "archive_concepts": words,
            "archive_scores": [[1.9, 1.8, 1.5] + [0.0] * (length - 3) for _ in numbers],
            "archive_clusters": [[0, 1, 1] + [-1] * (length - 3) for _ in numbers],
        },
        schema=training_schema(length),
    )


def write_training_set(
    workspace: Path, files: list[int], group_rows: int, recipe: str = "abcdef123456"
) -> list[str]:
    """Write part files with that many rows each; returns all keys."""
    folder = str(workspace / "training_set")
    records, first = [], 0
    for number, rows in enumerate(files):
        table = rows_table(first, rows)
        file = tables.part_path(recipe, f"web/{number:05d}", 0)
        tables.write_part(folder, file, table, table.schema, row_group_rows=group_rows)
        part = Part(f"web/{number:05d}", file, rows)
        records.append(UnitRecord(f"web/{number:05d}", (part,), rows))
        first += rows
    tables.write_manifest(
        tables.Manifest(
            "training_set", str(workspace), "export_training", recipe, {}, {}, {}, "0", "complete", records
        )
    )
    return [f"web/{n // 100:05d}/{n:09d}" for n in range(first)]

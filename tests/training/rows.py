"""Rows of a small training set for tests: smooth random pictures, captions, archives."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
from PIL import Image

from spark_jobs.export_training import training_schema
from training.feed.batches import Batch, BatchMaker, BatchOptions
from training.feed.training_set import TOKENS

ARCHIVE = 5


def picture(seed: int, width: int = 96, height: int = 72) -> Image.Image:
    """Smooth colours without symmetry."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


def make_batches(
    tables: Iterable[pa.Table | pa.RecordBatch], options: BatchOptions, epoch: int
) -> Iterator[Batch]:
    """Batches of one epoch by processes of its own."""
    with BatchMaker(options) as maker:
        yield from maker.batches(tables, epoch)


def rows(count: int, images: list[bytes] | None = None) -> pa.Table:
    """As an earlier version exported them, without tokens. Row i: i mod (ARCHIVE + 1) concepts, each in a cluster of its own; some captions without nouns."""
    sizes = [i % (ARCHIVE + 1) for i in range(count)]
    concepts = [[f"thing{i}x{n}" for n in range(size)] for i, size in enumerate(sizes)]
    return pa.table(
        {
            "key": [f"made/{i:03d}" for i in range(count)],
            "image": images or [jpeg(picture(i, 80 + i % 7, 60 + i % 5)) for i in range(count)],
            "caption": [f"a caption that says little, number {i}" for i in range(count)],
            "caption_nouns": ["\n".join(f"noun{i}x{n}" for n in range(i % 4)) for i in range(count)],
            "archive_concepts": [some + [""] * (ARCHIVE - len(some)) for some in concepts],
            "archive_scores": [[2.0 - n / 8 if n < s else 0.0 for n in range(ARCHIVE)] for s in sizes],
            "archive_clusters": [[n if n < size else -1 for n in range(ARCHIVE)] for size in sizes],
        },
        schema=pa.schema([field for field in training_schema(ARCHIVE) if field.name != TOKENS]),
    )


def split(table: pa.Table, size: int) -> Iterator[pa.Table]:
    for start in range(0, table.num_rows, size):
        yield table.slice(start, size)

"""A small corpus of Parquet files, curated once for all tests that only read tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from configs.loading import load_config
from configs.schema import CocuConfig
from tests import harness
from tests.corpora.ingest_inputs import encode

FILES, ROWS = 2, 60


@dataclass(frozen=True)
class Curated:
    """Where the corpus is, and the configuration that it was curated with."""

    folder: Path
    config: CocuConfig

    @property
    def workspace(self) -> Path:
        return Path(self.config.workspace)


def _image(number: int, source: np.random.Generator) -> bytes | None:
    """Every kind of image file there is: JPEGs, PNGs, turned, CMYK and large ones, nulls and broken ones."""
    image = Image.fromarray(source.integers(0, 255, (5, 4, 3), dtype=np.uint8)).resize(
        (72 if number % 2 else 60, 90)
    )
    if number % 60 == 13:
        return None
    if number % 60 == 29:
        return encode(image)[:400]
    if number % 60 == 41:
        return b"<html>not found</html>"
    if number % 9 == 2:
        return encode(image, "PNG")
    if number % 9 == 4:
        return encode(image.convert("CMYK"))
    if number % 9 == 6:
        return encode(image.resize((400, 500)), exif=_turned())
    return encode(image)


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@pytest.fixture(scope="session")
def curated(spark, tmp_path_factory) -> Curated:
    """Parquet files with key, image, caption, url and licence, through all jobs up to training_set."""
    from spark_jobs import (
        build_archives,
        build_index,
        embed_images,
        export_training,
        fit_probe,
        ingest,
        mine_concepts,
    )

    folder = tmp_path_factory.mktemp("curated")
    (folder / "source").mkdir()
    source = np.random.default_rng(5)
    for file in range(FILES):
        numbers = range(file * ROWS, (file + 1) * ROWS)
        words = source.choice(harness.WORDS, (ROWS, 2))
        rows = {
            "key": [f"{number:05d}" for number in numbers],
            "image": pa.array([_image(number, source) for number in numbers], pa.binary()),
            "caption": [f"a {one} near two <b>{other}s</b>" for one, other in words],
            "url": [f"https://example.org/{number}.jpg" for number in numbers],
            "licence": ["CC BY" if number % 2 else None for number in numbers],
        }
        pq.write_table(pa.table(rows), folder / "source" / f"{file:05d}.parquet", row_group_size=25)
    clip = harness.write_tiny_clip(folder / "clip")
    corpus = {"name": "web", "format": "parquet", "path": f"{folder}/source/*.parquet"}
    file = harness.write_config(folder, folder, clip, rows_per_part=25, corpora=[corpus])
    config = load_config(str(file), [f"workspace={folder}/workspace"])
    for job in (ingest, embed_images, mine_concepts, fit_probe, build_index, build_archives, export_training):
        job.run(spark, config)
    return Curated(folder, config)

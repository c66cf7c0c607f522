"""What one picture can cost in memory, however it is made: `ingest.max_pixels` bounds it."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from configs.schema import CorpusConfig, IngestConfig
from corpora.readers.open_shard import read_samples
from corpora.shards import list_shards
from tests.corpora.ingest_inputs import encode, jpeg
from tests.corpora.peak_memory import peak_growth

MAX_PIXELS = 17_000_000
BYTES_A_PIXEL = 17
THIN, SQUARE = (65_000, 260), (4_000, 4_200)
PICTURES = {
    "rgb.png": ("RGB", "PNG", THIN, {"compress_level": 1}),
    "rgba.png": ("RGBA", "PNG", THIN, {"compress_level": 1}),
    "palette.png": ("P", "PNG", THIN, {"compress_level": 1, "transparency": 1}),
    "grey16.png": ("I;16", "PNG", THIN, {"compress_level": 1}),
    "cmyk.jpg": ("CMYK", "JPEG", THIN, {}),
    "rgb.tif": ("RGB", "TIFF", THIN, {"compression": "tiff_lzw"}),
    "rgb.gif": ("RGB", "GIF", THIN, {}),
    "rgba.webp": ("RGBA", "WEBP", SQUARE, {"lossless": True, "method": 0}),
    "one-row.jpg": ("RGB", "JPEG", (65_000, 1), {}),
}


def _write(folder):
    for name, (mode, kind, size, options) in PICTURES.items():
        flat = Image.fromarray(np.zeros(size[::-1], np.uint16)) if mode == "I;16" else Image.new(mode, size)
        (folder / name).write_bytes(encode(flat, kind, **options))
    return sorted(folder.iterdir())


@pytest.mark.slow
def test_peak_memory_of_a_picture_is_bounded_by_its_pixels(tmp_path):
    files = _write(tmp_path)
    command = [sys.executable, "-m", "tests.corpora.peak_memory", str(MAX_PIXELS), *map(str, files)]
    # Freed memory goes back at once, so that what one picture held does not hide what the next one needs.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(lines) == len(files)
    most = MAX_PIXELS * BYTES_A_PIXEL
    assert {name: int(peak) for name, peak, _ in lines if int(peak) > most} == {}
    assert max(int(peak) for _, peak, _ in lines) > MAX_PIXELS * 4  # it is seen at all
    assert {name: said for name, _, said in lines}["one-row.jpg"] == "65000x1"
    assert all("x" in said for _, _, said in lines)  # they are pairs


def test_a_large_row_group_is_streamed(tmp_path):
    source = np.random.default_rng(0)
    image = jpeg() + source.bytes(15_000)  # what follows the picture is not part of it
    table = pa.table({"image": [image] * 10_000, "caption": ["a caption"] * 10_000})
    pq.write_table(
        table, tmp_path / "0.parquet", row_group_size=10_000, compression="none", use_dictionary=False
    )
    assert pq.ParquetFile(tmp_path / "0.parquet").metadata.row_group(0).total_byte_size > 150_000_000
    del table
    (shard,) = list_shards(CorpusConfig("web", "parquet", str(tmp_path / "0.parquet")))
    pa.default_memory_pool().release_unused()
    peak, count = peak_growth(lambda: sum(1 for _ in read_samples(shard, IngestConfig())))
    assert count == 10_000
    assert peak < 90_000_000

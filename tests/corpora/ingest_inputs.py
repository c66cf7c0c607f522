"""What the ingest tests share: pictures, img2dataset-like inputs, and a run of the tasks without Spark."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from configs.schema import CorpusConfig, IngestConfig
from corpora.shards import list_shards
from spark_jobs.ingest import ingest_unit
from storage import tables
from storage.units import Unit, UnitRecord


def picture(width: int = 96, height: int = 64, seed: int = 0) -> Image.Image:
    """A smooth RGB picture without any symmetry: what is turned or swapped shows."""
    y, x = np.mgrid[0:height, 0:width]
    red = 255 * x / max(1, width - 1)
    green = 200 * y / max(1, height - 1)
    blue = np.where((x < width / 3) & (y < height / 2), 220, 40 + 10 * (seed % 5))
    return Image.fromarray(np.stack([red, green, blue], axis=2).astype(np.uint8))


def encode(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """The bytes of a picture in a file format."""
    buffer = io.BytesIO()
    if kind == "JPEG":
        options = {"quality": 95, **options}
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(width: int = 96, height: int = 64, seed: int = 0) -> bytes:
    """A JPEG of a picture."""
    return encode(picture(width, height, seed))


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nearly nothing: a decompression bomb's beginning."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(10_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def write_tar(path: Path, members: Iterable[tuple[str, bytes]], mode: str = "w") -> Path:
    """A tar of (name, content)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def members(key: str, image: bytes | None, caption: str | bytes | None) -> list[tuple[str, bytes]]:
    """The files of a sample, in the order in which img2dataset writes them."""
    found = []
    if image is not None:
        found.append((f"{key}.jpg", image))
    if caption is not None:
        found.append((f"{key}.txt", caption.encode() if isinstance(caption, str) else caption))
    return [*found, (f"{key}.json", json.dumps({"key": key}).encode())]


@dataclass
class Ingested:
    """Rows of `pairs` and `rejects` of a corpus, and the records of its units."""

    pairs: list[dict]
    rejects: list[dict]
    records: list[UnitRecord]

    @property
    def reasons(self) -> dict[str, str]:
        """Reason by sample name ("" is the shard itself)."""
        return {row["sample"]: row["reason"] for row in self.rejects}

    def by_sample(self) -> dict[str, dict]:
        """Pairs by the last part of their key."""
        return {row["key"].rpartition("/")[2]: row for row in self.pairs}


def ingest(corpus: CorpusConfig, folder: Path | str, **options: object) -> Ingested:
    """Every shard of a corpus through the task that Spark would run; checks that the counts add up."""
    config = IngestConfig(**{"threads": 2, **options})  # type: ignore[arg-type]
    units = [Unit(f"{s.corpus}/{s.name}", 0, (s, config)) for s in list_shards(corpus)]
    records = [ingest_unit(unit, str(folder), "recipe") for unit in units]
    pairs: list[dict] = []
    rejects: list[dict] = []
    for record in records:
        for part in record.parts:
            rows = tables.read_file(tables.join(str(folder), part.file)).to_pylist()
            assert len(rows) == part.rows
            pairs.extend(rows)
        if record.reject_file:
            rejects.extend(tables.read_file(tables.join(str(folder), record.reject_file)).to_pylist())
    assert sum(record.rows_in for record in records) == len(pairs) + len(rejects)
    assert sum(sum(record.rejects.values()) for record in records) == len(rejects)
    assert len({row["key"] for row in pairs}) == len(pairs)
    assert [key for row in rejects for key in [row["detail"]] if "\n" in key] == []
    return Ingested(pairs, rejects, records)


def ingest_samples(
    folder: Path, samples: Mapping[str, Iterable[tuple[str, bytes]]], **options: object
) -> Ingested:
    """The samples of one webdataset tar."""
    write_tar(folder / "in" / "00000.tar", [member for files in samples.values() for member in files])
    return ingest(CorpusConfig("web", "webdataset", str(folder / "in" / "*.tar")), folder / "out", **options)


def pixels(data: bytes) -> np.ndarray:
    """Pixels of a stored JPEG, int16 (h, w, 3)."""
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "JPEG"
        assert image.mode == "RGB"
        return np.asarray(image).astype(np.int16)

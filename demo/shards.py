"""Shards as img2dataset's webdataset output has them: a tar, a Parquet file of metadata, a JSON file of counts.

Layout from img2dataset's writer.py and logger.py: keys of nine digits (five of the shard, four of the sample), the
members of a sample in alphabetical order (jpg, json, txt), metadata columns as below.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from demo.samples import Sample, make_sample

__all__ = ["METADATA_SCHEMA", "Entry", "write_shard"]

METADATA_SCHEMA = pa.schema(
    [
        ("caption", pa.string()),
        ("url", pa.string()),
        ("key", pa.string()),
        ("status", pa.string()),
        ("error_message", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("original_width", pa.int32()),
        ("original_height", pa.int32()),
        ("exif", pa.string()),
        ("sha256", pa.string()),
    ]
)


@dataclass(frozen=True)
class Entry:
    """A place in a shard: its ``key``, the ``number`` of its scene and the ``kind`` of its sample."""

    key: str
    number: int
    kind: str


def _metadata(entry: Entry, sample: Sample) -> dict[str, object]:
    rows, columns = sample.scene.mask.shape
    return {
        "caption": None if sample.caption is None else sample.caption.decode("utf-8", "replace"),
        "url": f"https://example.org/scenes/{entry.number:06d}.jpg",
        "key": entry.key,
        "status": "success",
        "error_message": None,
        "width": columns,
        "height": rows,
        "original_width": columns,
        "original_height": rows,
        "exif": "{}",
        "sha256": hashlib.sha256(sample.image).hexdigest(),
    }


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o444
    member.uname = member.gname = "bigdata"
    archive.addfile(member, io.BytesIO(content))


def write_shard(
    folder: Path, shard: int, seed: int, entries: Iterable[Entry], cut: bool
) -> list[dict[str, object]]:
    """Write shard number ``shard`` and return a record of every entry (key, kind, labels, areas, named...).

    ``cut`` ends the tar in the middle of the last sample's picture, as an interrupted copy does.
    """
    records, rows = [], []
    path = folder / f"{shard:05d}.tar"
    with tarfile.open(path, "w") as archive:
        last_picture = 0
        for entry in entries:
            sample = make_sample(seed, entry.number, entry.kind)
            metadata = _metadata(entry, sample)
            last_picture = archive.offset + tarfile.BLOCKSIZE + len(sample.image) // 2
            _add(archive, f"{entry.key}.jpg", sample.image)
            _add(archive, f"{entry.key}.json", json.dumps(metadata, indent=4).encode())
            if sample.caption is not None:
                _add(archive, f"{entry.key}.txt", sample.caption)
            rows.append(metadata)
            records.append(_record(shard, entry, sample))
    if cut:
        with path.open("r+b") as tar:
            tar.truncate(last_picture)
    pq.write_table(pa.Table.from_pylist(rows, METADATA_SCHEMA), folder / f"{shard:05d}.parquet")
    stats = {
        "count": len(rows),
        "successes": len(rows),
        "failed_to_download": 0,
        "failed_to_resize": 0,
        "duration": 0.0,
        "status_dict": {"success": len(rows)},
    }
    (folder / f"{shard:05d}_stats.json").write_text(json.dumps(stats, indent=4))
    return records


def _record(shard: int, entry: Entry, sample: Sample) -> dict[str, object]:
    scene = sample.scene
    return {
        "key": f"demo/{shard:05d}/{entry.key}",
        "labels": list(scene.areas),
        "areas": list(scene.areas.values()),
        "named": sample.named,
        "scene": entry.number,
        "kind": entry.kind,
    }

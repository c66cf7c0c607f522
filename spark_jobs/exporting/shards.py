"""Webdataset shards: with the archive in three lines of text, or as open_clip's trainer takes them, with it as JSON."""

from __future__ import annotations

import io
import json
import posixpath
import tarfile
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from spark_jobs.exporting.training_set import TRAINING_NAMES
from storage.addresses import join, list_folder, resolve
from storage.manifest import Manifest
from storage.small_files import write_atomically

__all__ = [
    "finish_open_clip",
    "open_clip_files",
    "remove_other_shards",
    "shard_name",
    "three_lines",
    "write_shard",
]

Files = dict[str, bytes]
"""Suffix -> content of one sample's files."""


def three_lines(row: dict[str, Any]) -> Files:
    """KEY.jpg, and KEY.txt: the caption; the archive's concepts, best first; their scores."""
    found = _archive(row)
    lines = [row["caption"], ", ".join(c for c, _, _ in found), ", ".join(f"{s:.6f}" for _, s, _ in found)]
    return {"jpg": row["image"], "txt": "\n".join(lines).encode()}


def open_clip_files(row: dict[str, Any]) -> Files:
    """KEY.jpg, KEY.txt: the caption alone, which open_clip trains on; KEY.json: the archive and the columns that travel."""
    found = _archive(row)
    values = {
        "key": row["key"],
        "caption": row["caption"],
        "concepts": [concept for concept, _, _ in found],
        "scores": [round(score, 6) for _, score, _ in found],
        "clusters": [cluster for _, _, cluster in found],
        **{name: value for name, value in row.items() if name not in TRAINING_NAMES},
    }
    return {"jpg": row["image"], "txt": row["caption"].encode(), "json": json.dumps(values).encode()}


def _archive(row: dict[str, Any]) -> list[tuple[str, float, int]]:
    """Concept, score and cluster of each place of the archive that is not padding."""
    columns = (row["archive_concepts"], row["archive_scores"], row["archive_clusters"])
    return [entry for entry in zip(*columns, strict=True) if entry[0]]


def shard_name(unit: str) -> str:
    """The file of a part's shard."""
    return f"{unit.replace('/', '--')}.tar"


def write_shard(folder: str, name: str, table: pa.Table, files: Callable[[dict[str, Any]], Files]) -> str:
    """One shard with a unit's rows; an attempt that runs again replaces it by one rename."""
    filesystem, path = resolve(join(folder, shard_name(name)))
    filesystem.create_dir(posixpath.dirname(path), recursive=True)
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    with filesystem.open_output_stream(temporary) as sink, tarfile.open(fileobj=sink, mode="w|") as tar:
        for row in _rows(table):
            member = row["key"].replace("/", "--").replace(".", "_")  # webdataset cuts names at the first dot
            for suffix, data in files(row).items():
                info = tarfile.TarInfo(f"{member}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    filesystem.move(temporary, path)
    return path


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(256):
        yield from batch.to_pylist()


def remove_other_shards(folder: str, manifest: Manifest) -> None:
    """Shards of an earlier training set with other units would be read along with this one's."""
    filesystem, path = resolve(folder)
    named = {shard_name(part.name) for part in manifest.parts}
    for info in list_folder(filesystem, path):
        if info.type == pafs.FileType.File and info.base_name not in named:
            filesystem.delete_file(info.path)


def finish_open_clip(folder: str, manifest: Manifest) -> None:
    """``sizes.json``, in which open_clip looks up how many samples a shard has (else ``--train-num-samples`` tells)."""
    remove_other_shards(folder, manifest)
    sizes = {shard_name(part.name): part.rows for part in manifest.parts}
    write_atomically(join(folder, "sizes.json"), json.dumps(sizes, indent=1).encode())

"""Small files that are replaced and read whole: manifests, locks, reports."""

from __future__ import annotations

import os
import posixpath
import uuid
from pathlib import Path

import pyarrow.fs as pafs

from storage.addresses import is_local, make_folder, resolve

__all__ = ["read_small", "write_atomically"]


def write_atomically(address: str, data: bytes) -> None:
    """Replace a small file so that every reader sees the old or the new one, whole.

    Local disks: temporary file, fsync, rename. Object stores: one put, which is atomic. HDFS has no
    replacing rename: the new file lies under ``.next`` (which readers also look for) for the moment in
    between.
    """
    filesystem, path = resolve(address)
    make_folder(filesystem, posixpath.dirname(path))
    if is_local(filesystem):
        temporary = f"{path}.{uuid.uuid4().hex}.tmp"
        try:
            with Path(temporary).open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            Path(temporary).replace(path)
        finally:
            Path(temporary).unlink(missing_ok=True)
        return
    if filesystem.type_name == "hdfs":
        with filesystem.open_output_stream(f"{path}.next") as stream:
            stream.write(data)
        if filesystem.get_file_info(path).type != pafs.FileType.NotFound:
            filesystem.delete_file(path)
        filesystem.move(f"{path}.next", path)
        return
    with filesystem.open_output_stream(path) as stream:
        stream.write(data)


def read_small(address: str) -> bytes | None:
    """A file's bytes, or None if there is none."""
    filesystem, path = resolve(address)
    candidates = [path, f"{path}.next"] if filesystem.type_name == "hdfs" else [path]
    for candidate in candidates:
        try:
            with filesystem.open_input_stream(candidate, compression=None) as stream:
                return stream.read()
        except FileNotFoundError:
            continue
    return None

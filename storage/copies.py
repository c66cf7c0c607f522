"""Copies folders and files between this machine's disk and a store.

Not by one call of ``pyarrow.fs.copy_files`` with threads: its copying threads and S3's background uploads of
parts share one pool, so that as many large files as the pool has threads wait for each other for ever. Here
the copying threads are Python's, and Arrow's pool is the uploads' alone.
"""

from __future__ import annotations

import contextlib
import posixpath
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.fs as pafs

from storage.addresses import is_local, make_folder, resolve

__all__ = ["download_file", "download_folder", "local_file", "upload_folder"]

_AT_ONCE = 8
_CHUNK_BYTES = 8 << 20  # of a read, which on a store is a request


def upload_folder(folder: Path, address: str) -> None:
    """Copy all files of a local folder, with those below it, to an address."""
    filesystem, target = resolve(address)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    for parent in sorted({posixpath.dirname(posixpath.join(target, name)) for name in names}):
        make_folder(filesystem, parent)
    _copy(pafs.LocalFileSystem(), str(folder), filesystem, target, names)


def download_folder(address: str, folder: Path) -> None:
    """Copy all files below an address into a local folder.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    filesystem, source = resolve(address)
    infos = filesystem.get_file_info(pafs.FileSelector(source, recursive=True))
    names = [posixpath.relpath(info.path, source) for info in infos if info.type == pafs.FileType.File]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    _copy(filesystem, source, pafs.LocalFileSystem(), str(folder), names)


def download_file(address: str, path: Path) -> None:
    """Copy one file to a local path.

    Raises:
        FileNotFoundError: there is no such file.
    """
    filesystem, source = resolve(address)
    _copy_one(filesystem, source, pafs.LocalFileSystem(), str(path))


@contextlib.contextmanager
def local_file(address: str) -> Iterator[Path]:
    """A file where programs that know paths alone can read it: itself, or a copy that is gone afterwards.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read.
        UserError: an address that cannot be.
    """
    filesystem, source = resolve(address)
    if filesystem.get_file_info(source).type != pafs.FileType.File:
        raise FileNotFoundError(address)
    if is_local(filesystem):
        yield Path(source)
        return
    with tempfile.TemporaryDirectory(prefix="cocu-copy-") as folder:
        name = posixpath.basename(source)
        _copy(filesystem, posixpath.dirname(source), pafs.LocalFileSystem(), folder, [name])
        yield Path(folder) / name


def _copy(
    source: pafs.FileSystem,
    source_folder: str,
    target: pafs.FileSystem,
    target_folder: str,
    names: Sequence[str],
) -> None:
    def copy(name: str) -> None:
        _copy_one(source, posixpath.join(source_folder, name), target, posixpath.join(target_folder, name))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(copy, names):  # raises what a copy raised
            pass


def _copy_one(source: pafs.FileSystem, path: str, target: pafs.FileSystem, to: str) -> None:
    pafs.copy_files(
        path,
        to,
        source_filesystem=source,
        destination_filesystem=target,
        chunk_size=_CHUNK_BYTES,
        use_threads=False,
    )

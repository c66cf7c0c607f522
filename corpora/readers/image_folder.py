"""Reads single files: img2dataset's `files` output, and images named by a table."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from functools import partial

import pyarrow.fs as pafs

from configs.schema import IngestConfig
from corpora.captions import Problem, longest_caption_bytes
from corpora.folder_runs import named_files, relative_paths
from corpora.members import Members
from corpora.reasons import Reason
from corpora.samples import MOST_JSON_BYTES, Part, Sample, Suffixes, too_big
from corpora.shards import Shard
from storage.addresses import join, resolve
from storage.listing import list_entries

__all__ = ["image_below", "read_folder"]


def read_folder(shard: Shard, limits: IngestConfig) -> Iterator[Sample]:
    """Samples of KEY.jpg, KEY.txt, KEY.json: the shard's files, or all in one folder and the folders in it.

    Raises:
        FileNotFoundError: the folder is gone.
    """
    filesystem, root = resolve(shard.address)
    suffixes = Suffixes.of(shard.options, limits.columns)
    paths = shard.files or relative_paths(list_entries(shard.address, recursive=True), shard.address)
    members = Members(suffixes)
    for path, name in named_files(paths, suffixes):
        wanted = name is not None and name.suffix in suffixes.known
        content = _part(filesystem, join(root, path), name.suffix, suffixes, limits) if wanted else None  # type: ignore[union-attr]
        yield from members.add(path, name, content)
    yield from members.finish()


def _part(
    filesystem: pafs.FileSystem, path: str, suffix: str, suffixes: Suffixes, limits: IngestConfig
) -> Part:
    if suffix in suffixes.images:
        return partial(_read_image, filesystem, path, limits.max_image_bytes)
    most = MOST_JSON_BYTES if suffix == "json" else longest_caption_bytes(limits)
    return partial(_read_text, filesystem, path, most)


def _read_text(filesystem: pafs.FileSystem, path: str, most: int) -> bytes | Problem:
    try:
        return _read(filesystem, path, most)
    except (FileNotFoundError, PermissionError) as error:
        return Problem(Reason.MISSING_CAPTION, type(error).__name__)


def _read(filesystem: pafs.FileSystem, path: str, most: int) -> bytes:
    with filesystem.open_input_stream(path, compression=None) as stream:
        return stream.read(most)


def _read_image(filesystem: pafs.FileSystem, path: str, most: int) -> bytes | Problem:
    """The file's bytes. Other errors than absence are the store's, not the sample's: the task fails and is
    tried again."""
    try:
        data = _read(filesystem, path, most + 1)
    except (FileNotFoundError, PermissionError) as error:
        return Problem(Reason.MISSING_IMAGE, type(error).__name__)
    except OSError:
        if filesystem.get_file_info(path).type == pafs.FileType.File:
            raise
        return Problem(Reason.MISSING_IMAGE, "not a file")
    if len(data) > most:
        return too_big(filesystem.get_file_info(path).size)
    return data


def image_below(root: str, path: str, limits: IngestConfig) -> Callable[[], bytes | Problem] | Problem:
    """A reader of the image at a table's ``path`` (relative to ``root``, or absolute and below it)."""
    filesystem, folder = resolve(root)
    folder = posixpath.normpath(folder)
    inner = posixpath.normpath(posixpath.join(folder, path))
    odd = "://" in path or any(ord(char) < 32 for char in path)
    if odd or not inner.startswith(f"{folder.rstrip('/')}/"):
        return Problem(Reason.PATH_OUTSIDE, path[:200])
    return partial(_read_image, filesystem, inner, limits.max_image_bytes)

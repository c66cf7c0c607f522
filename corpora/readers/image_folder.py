"""Reads single files: img2dataset's `files` output, and images named by a table."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from functools import partial

import pyarrow.fs as pafs

from configs.schema import IngestConfig
from corpora.captions import Problem, longest_caption_bytes
from corpora.reasons import Reason
from corpora.samples import (
    CAPTIONS,
    IMAGES,
    MOST_JSON_BYTES,
    Sample,
    assemble,
    split_member_name,
    too_big,
)
from corpora.shards import Shard
from storage.addresses import list_folder, resolve

__all__ = ["image_below", "read_folder"]


def read_folder(shard: Shard, limits: IngestConfig) -> Iterator[Sample]:
    """Samples of KEY.jpg, KEY.txt, KEY.json in one folder (and, if recursive, the folders in it).

    Raises:
        FileNotFoundError: the folder is gone.
    """
    filesystem, root = resolve(shard.address)
    groups: dict[str, dict[str, pafs.FileInfo]] = {}
    for info in list_folder(filesystem, root, recursive=shard.recursive, must_exist=True):
        name, suffix = split_member_name(posixpath.relpath(info.path, root))
        if info.type == pafs.FileType.File and name and suffix in (*IMAGES, *CAPTIONS, "json"):
            groups.setdefault(name, {})[suffix] = info
    if not shard.recursive:  # a JSON alone may be anything (statistics); the run was counted without it
        groups = {name: parts for name, parts in groups.items() if any(suffix != "json" for suffix in parts)}
    for name in sorted(groups)[shard.start : shard.end or None]:
        parts = {suffix: _part(filesystem, info, suffix, limits) for suffix, info in groups[name].items()}
        if "json" in parts and not any(suffix in parts for suffix in CAPTIONS):
            parts["json"] = _read_text(filesystem, groups[name]["json"].path, MOST_JSON_BYTES)
        yield assemble(name, parts)


def _part(
    filesystem: pafs.FileSystem, info: pafs.FileInfo, suffix: str, limits: IngestConfig
) -> bytes | Problem | Callable[[], bytes | Problem]:
    if suffix in IMAGES:
        return partial(_read_image, filesystem, info.path, limits.max_image_bytes)
    return b"" if suffix == "json" else _read_text(filesystem, info.path, longest_caption_bytes(limits))


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

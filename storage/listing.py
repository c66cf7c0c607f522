"""What is at many addresses at once, with as few questions to a store as that takes.

On S3 a question is a request of some 20 ms, and Arrow asks for one file after another: of ten thousand
shards that were minutes. Files of one folder are listed with it (a thousand a request), the rest is asked
for at once.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow.fs as pafs

from storage.addresses import is_local, list_folder, resolve, split

__all__ = ["Entry", "entry_of", "list_entries", "look_up", "stamp_of"]

_LIST_FROM = 32  # files wanted of one folder, from where on it is listed whole
_AT_ONCE = 16


@dataclass(frozen=True)
class Entry:
    """A file or folder that is there."""

    address: str
    is_folder: bool
    size: int = 0
    """bytes; of a folder 0"""
    modified: int = 0
    """nanoseconds since 1970; 0 where the store does not tell"""

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.address.rpartition("/")[2]


def entry_of(root: str, path: str, info: pafs.FileInfo) -> Entry:
    """Of what Arrow tells; ``root`` is what stands before a path in an address (:func:`split`)."""
    folder = info.type == pafs.FileType.Directory
    return Entry(f"{root}{path}", folder, 0 if folder else info.size or 0, info.mtime_ns or 0)


def list_entries(folder: str, recursive: bool = False) -> list[Entry]:
    """What is in a folder, sorted by address.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    filesystem, path = resolve(folder)
    root = split(folder)[0]
    infos = list_folder(filesystem, path, recursive=recursive, must_exist=True)
    return [entry_of(root, info.path, info) for info in infos]


def stamp_of(entries: Iterable[Entry]) -> str:
    """What changes when one of some files is another one: a hash of their addresses, sizes and times."""
    digest = hashlib.sha256()
    for entry in entries:
        if not entry.is_folder:
            digest.update(
                f"{entry.address}\0{entry.size}\0{entry.modified}\n".encode("utf-8", "surrogateescape")
            )
    return digest.hexdigest()[:16]


def look_up(addresses: Iterable[str]) -> list[Entry | None]:
    """What is at each address, in their order; None where nothing is. Local ones become absolute."""
    wanted = [(*resolve(address), split(address)[0]) for address in addresses]
    folders: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    systems: dict[str, pafs.FileSystem] = {}
    for filesystem, path, root in wanted:
        systems[root] = filesystem
        folders[root, posixpath.dirname(path.rstrip("/"))].add(path)
    questions = [
        (root, folder, group)
        for (root, folder), paths in folders.items()
        for group in _groups(systems[root], sorted(paths))
    ]
    found: dict[tuple[str, str], pafs.FileInfo] = {}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        answers = pool.map(lambda question: _ask(systems[question[0]], *question[1:]), questions)
        for (root, _, _), infos in zip(questions, answers, strict=True):
            found.update(((root, path), info) for path, info in infos.items())
    return [
        entry_of(root, path, found[root, path]) if (root, path) in found else None for _, path, root in wanted
    ]


def _groups(filesystem: pafs.FileSystem, paths: Sequence[str]) -> list[Sequence[str]]:
    """Paths of one folder that one question asks for."""
    if is_local(filesystem) or len(paths) >= _LIST_FROM:
        return [paths]
    return [[path] for path in paths]


def _ask(filesystem: pafs.FileSystem, folder: str, paths: Sequence[str]) -> dict[str, pafs.FileInfo]:
    """What is there of some paths of one folder."""
    if is_local(filesystem) or len(paths) < _LIST_FROM:
        infos = dict(zip(paths, filesystem.get_file_info(list(paths)), strict=True))
    else:
        infos = {info.path: info for info in list_folder(filesystem, folder)}
    wanted = set(paths)
    return {
        path: info for path, info in infos.items() if path in wanted and info.type != pafs.FileType.NotFound
    }

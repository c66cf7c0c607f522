"""From a corpus' address to its shards: the files (or parts of files, or folders) that one task reads each."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pyarrow.fs as pafs

from configs.errors import UserError
from configs.schema import CorpusConfig
from corpora.folder_runs import cut_into_runs, own_files, relative_files
from corpora.samples import Suffixes
from corpora.table_layout import TableLayout, find_layout
from storage.addresses import join, list_folder, resolve
from storage.listing import Entry
from storage.patterns import expand, find

__all__ = ["Shard", "list_shards"]

RANGE_BYTES = 16 << 20
"""Bytes of a CSV/TSV file that make one shard (about 100,000 lines of CC3M's)."""
FILES_A_SHARD = 10_000
"""Samples a shard, where a folder holds the files of many."""

_SUFFIXES = {
    "webdataset": (".tar", ".tar.gz", ".tgz"),
    "parquet": (".parquet",),
    "table": (".csv", ".tsv"),
    "yfcc14m": (".tsv",),
}
_ENDING = re.compile(r"\.(tar|tgz|parquet|csv|tsv|tab|txt|zip)(\.(gz|bz2|zst))?$", re.IGNORECASE)


@dataclass(frozen=True)
class Shard:
    """What one task reads. ``start`` and ``end`` are bytes of a table, ``files`` some of a folder; without, all."""

    corpus: str
    name: str
    address: str
    format: str
    options: CorpusConfig = field(repr=False, default_factory=CorpusConfig)
    start: int = 0
    end: int = 0
    layout: TableLayout | None = None
    tables: tuple[tuple[str, TableLayout], ...] = ()
    files: tuple[str, ...] = field(repr=False, default=())


def list_shards(corpus: CorpusConfig) -> list[Shard]:
    """The shards of a corpus, in order, with names that are unique in it.

    Raises:
        UserError: nothing matches ``path``, ``image_root`` is missing, or a table lacks the columns.
    """
    if corpus.format in ("table", "yfcc14m") and not corpus.image_root:
        what = (
            "folder with the zips" if corpus.format == "yfcc14m" else "folder that the image paths start from"
        )
        raise UserError(f"corpus '{corpus.name}': image_root is missing, the {what} of {corpus.path}")
    if corpus.format == "table":
        expand(corpus.image_root)
    found = find(corpus.path)
    listing = {"files": _folder_shards, "table": _table_shards, "yfcc14m": _zip_shards}.get(
        corpus.format, _file_shards
    )
    shards = listing(corpus, found)
    files = [shard.name.replace("/", "--") for shard in shards]  # the name of a part file
    if len(set(files)) != len(files):
        twice = next(name for name in files if files.count(name) > 1)
        raise UserError(
            f"corpus '{corpus.name}': two shards would both be called '{twice}'; rename one of the files"
        )
    return shards


def _file_shards(corpus: CorpusConfig, entries: Sequence[Entry]) -> list[Shard]:
    files = _files(corpus, entries)
    return [
        Shard(corpus.name, name, file, corpus.format, corpus)
        for name, file in zip(_names(files), files, strict=True)
    ]


def _files(corpus: CorpusConfig, entries: Iterable[Entry]) -> list[str]:
    """A folder stands for the files in it that have the format's suffix."""
    wanted = _SUFFIXES[corpus.format]
    found: list[str] = []
    for entry in entries:
        if not entry.is_folder:
            found.append(entry.address)
            continue
        infos = list_folder(*resolve(entry.address))
        names = [
            info.base_name
            for info in infos
            if info.type == pafs.FileType.File
            and info.base_name.endswith(wanted)
            and not info.base_name.startswith((".", "_"))
        ]
        if not names:
            raise UserError(f"corpus '{corpus.name}': no {' or '.join(wanted)} files in {entry.address}")
        found.extend(join(entry.address, name) for name in names)
    return found


def _names(addresses: Sequence[str]) -> list[str]:
    """Addresses without the folders they share and without suffix; characters that are awkward in keys replaced."""
    split = [address.split("/") for address in addresses]
    shared = len(os.path.commonprefix([parts[:-1] for parts in split]))
    whole = ["/".join(_safe(part) for part in parts[shared:]) for parts in split]
    short = [_ENDING.sub("", name) or name for name in whole]
    return short if len(set(short)) == len(short) else whole


def _safe(part: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", part).replace("..", "__") or "_"


def _folder_shards(corpus: CorpusConfig, entries: Sequence[Entry]) -> list[Shard]:
    """One shard a folder (img2dataset's 00000, 00001, ...); large ones, and the root's own files, are cut."""
    suffixes = Suffixes.of(corpus)
    labels: list[str] = []
    found: list[tuple[str, tuple[str, ...]]] = []
    names: list[str] = []
    for entry in entries:
        address = entry.address
        if not entry.is_folder:
            raise UserError(f"corpus '{corpus.name}': {address} is a file; format 'files' takes folders")
        infos = list_folder(*resolve(address))
        names.extend(info.base_name for info in infos)
        for start, files in cut_into_runs(own_files(infos, suffixes), suffixes, FILES_A_SHARD):
            labels.append(join(address, f"files-{start:08d}"))
            found.append((address, tuple(files)))
        below = [info.base_name for info in infos if info.type == pafs.FileType.Directory]
        for folder in (join(address, name) for name in below if not name.startswith((".", "_"))):
            filesystem, inner = resolve(folder)
            paths = relative_files(list_folder(filesystem, inner, recursive=True), inner)
            runs = cut_into_runs(paths, suffixes, FILES_A_SHARD)
            whole = len(runs) < 2  # its task lists it again, so that no paths need to be sent
            labels.extend([folder] if whole else [join(folder, f"files-{start:08d}") for start, _ in runs])
            found.extend([(folder, ())] if whole else [(folder, tuple(files)) for _, files in runs])
    if not found:
        seen = f"; it holds {', '.join(names[:5])}" if names else ""
        raise UserError(f"corpus '{corpus.name}': no folders and no images in {corpus.path}{seen}")
    return [
        Shard(corpus.name, name, address, corpus.format, corpus, files=files)
        for name, (address, files) in zip(_names(labels), found, strict=True)
    ]


def _table_shards(corpus: CorpusConfig, entries: Sequence[Entry]) -> list[Shard]:
    """Ranges of bytes of each file, so that one large TSV is read by many tasks."""
    shards = []
    files = _files(corpus, entries)
    for name, address in zip(_names(files), files, strict=True):
        layout = find_layout(corpus, address, ((corpus.image_column,),), ((corpus.caption_column,),))
        filesystem, path = resolve(address)
        size = filesystem.get_file_info(path).size or 0
        whole = address.endswith((".gz", ".bz2", ".zst"))  # has to be read from its beginning
        starts = [0] if whole else list(range(0, max(size, 1), RANGE_BYTES))
        for number, start in enumerate(starts):
            end = 0 if len(starts) == 1 else min(start + RANGE_BYTES, size)
            label = name if len(starts) == 1 else f"{name}-{number:05d}"
            shards.append(Shard(corpus.name, label, address, corpus.format, corpus, start, end, layout))
    return shards


def _zip_shards(corpus: CorpusConfig, entries: Sequence[Entry]) -> list[Shard]:
    """One shard a zip; every one knows the tables with the captions (see zip_reader)."""
    keys = ((corpus.image_column,), ("file",), ("photo_hash",), ("hash",))
    captions = ((corpus.caption_column,), ("title", "description"), ("description",), ("title",))
    tables = tuple(
        (address, find_layout(corpus, address, keys, captions)) for address in _files(corpus, entries)
    )
    filesystem, path = resolve(corpus.image_root)
    if filesystem.get_file_info(path).type == pafs.FileType.Directory:
        zips = expand(join(corpus.image_root, "**", "*.zip"))
    else:
        zips = expand(corpus.image_root)
    return [
        Shard(corpus.name, name, address, corpus.format, corpus, tables=tables)
        for name, address in zip(_names(zips), zips, strict=True)
    ]

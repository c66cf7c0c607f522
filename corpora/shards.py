"""From a corpus' address to its shards: the files (or parts of files, or folders) that one task reads each."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from configs.errors import UserError
from configs.schema import CorpusConfig
from corpora.folder_runs import FolderRun, folder_runs, own_runs
from corpora.samples import Suffixes
from corpora.table_layout import TableLayout, find_layout
from storage.addresses import join
from storage.listing import Entry, list_entries, stamp_of
from storage.patterns import expand, find, fixed_folder

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
    """What one task reads. ``start`` and ``end`` are bytes of a table, ``files`` some of a folder; without, all.

    ``stamp`` tells whether its files are still those that were listed: their sizes and times. ``buckets`` is where
    the lines of ``tables`` have been sorted into, if they were.
    """

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
    stamp: str = ""
    buckets: str = ""


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
        Shard(corpus.name, name, file.address, corpus.format, corpus, stamp=stamp_of([file]))
        for name, file in zip(_names([file.address for file in files], corpus.path), files, strict=True)
    ]


def _files(corpus: CorpusConfig, entries: Iterable[Entry]) -> list[Entry]:
    """A folder stands for the files in it that have the format's suffix."""
    wanted = _SUFFIXES[corpus.format]
    found: list[Entry] = []
    for entry in entries:
        if not entry.is_folder:
            found.append(entry)
            continue
        inside = [
            file
            for file in list_entries(entry.address)
            if not file.is_folder and file.name.endswith(wanted) and not file.name.startswith((".", "_"))
        ]
        if not inside:
            raise UserError(f"corpus '{corpus.name}': no {' or '.join(wanted)} files in {entry.address}")
        found.extend(inside)
    return found


def _names(addresses: Sequence[str], pattern: str) -> list[str]:
    """Addresses below the fixed part of their pattern, without suffix; characters that are awkward in keys replaced.

    What is below says the same of a file whatever others there are: adding a folder renames nothing.
    """
    split = [address.split("/") for address in addresses]
    shared = len(os.path.commonprefix([parts[:-1] for parts in split]))
    fixed = fixed_folder(pattern)
    if fixed:
        shared = min(shared, len(fixed.split("/")))
    whole = ["/".join(_safe(part) for part in parts[shared:]) for parts in split]
    short = [_ENDING.sub("", name) or name for name in whole]
    return short if len(set(short)) == len(short) else whole


def _safe(part: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", part).replace("..", "__") or "_"


def _folder_shards(corpus: CorpusConfig, entries: Sequence[Entry]) -> list[Shard]:
    """One shard a folder (img2dataset's 00000, 00001, ...); large ones, and the root's own files, are cut."""
    suffixes = Suffixes.of(corpus)
    runs: list[FolderRun] = []
    names: list[str] = []
    for entry in entries:
        if not entry.is_folder:
            raise UserError(
                f"corpus '{corpus.name}': {entry.address} is a file; format 'files' takes folders"
            )
        inside = list_entries(entry.address)
        names.extend(file.name for file in inside)
        runs.extend(own_runs(entry.address, inside, suffixes, FILES_A_SHARD))
        for folder in inside:
            if folder.is_folder and not folder.name.startswith((".", "_")):
                files = list_entries(folder.address, recursive=True)
                runs.extend(folder_runs(folder.address, files, suffixes, FILES_A_SHARD))
    if not runs:
        seen = f"; it holds {', '.join(names[:5])}" if names else ""
        raise UserError(f"corpus '{corpus.name}': no folders and no images in {corpus.path}{seen}")
    return [
        Shard(corpus.name, name, run.folder, corpus.format, corpus, files=run.files, stamp=run.stamp)
        for name, run in zip(_names([run.label for run in runs], corpus.path), runs, strict=True)
    ]


def _table_shards(corpus: CorpusConfig, entries: Sequence[Entry]) -> list[Shard]:
    """Ranges of bytes of each file, so that one large TSV is read by many tasks."""
    shards = []
    files = _files(corpus, entries)
    for name, file in zip(_names([file.address for file in files], corpus.path), files, strict=True):
        address, size, stamp = file.address, file.size, stamp_of([file])
        layout = find_layout(corpus, address, ((corpus.image_column,),), ((corpus.caption_column,),))
        whole = address.endswith((".gz", ".bz2", ".zst"))  # has to be read from its beginning
        starts = [0] if whole else list(range(0, max(size, 1), RANGE_BYTES))
        for number, start in enumerate(starts):
            end = 0 if len(starts) == 1 else min(start + RANGE_BYTES, size)
            label = name if len(starts) == 1 else f"{name}-{number:05d}"
            shard = Shard(corpus.name, label, address, corpus.format, corpus, start, end, layout, stamp=stamp)
            shards.append(shard)
    return shards


def _zip_shards(corpus: CorpusConfig, entries: Sequence[Entry]) -> list[Shard]:
    """One shard a zip; every one knows the tables with the captions (see yfcc14m.py)."""
    keys = ((corpus.image_column,), ("file",), ("photo_hash",), ("hash",))
    captions = ((corpus.caption_column,), ("title", "description"), ("description",), ("title",))
    files = _files(corpus, entries)
    tables = tuple((file.address, find_layout(corpus, file.address, keys, captions)) for file in files)
    pattern = corpus.image_root
    zips = find(pattern)
    if len(zips) == 1 and zips[0].is_folder:
        pattern = join(pattern, "**", "*.zip")
        zips = find(pattern)
    return [
        Shard(
            corpus.name,
            name,
            file.address,
            corpus.format,
            corpus,
            tables=tables,
            stamp=stamp_of([file, *files]),
        )
        for name, file in zip(_names([file.address for file in zips], pattern), zips, strict=True)
    ]

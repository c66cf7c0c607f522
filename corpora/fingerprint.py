"""Which files a corpus' rows are made from, in a few characters."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from configs.schema import CorpusConfig
from corpora.shards import Shard
from storage.listing import list_entries, stamp_of

__all__ = ["fingerprint", "fingerprint_of"]


def fingerprint(corpora: Sequence[CorpusConfig], shards: Sequence[Shard]) -> str:
    """Another one whenever a file that decides rows is added, gone or replaced (by path, size and time).

    For a table these are the images, too, that it may name: all files below ``image_root``.
    """
    lines = [f"{s.corpus}/{s.name} {s.start} {s.end} {s.stamp}" for s in shards]
    images = [_tree_stamp(corpus.image_root) for corpus in corpora if corpus.format == "table"]
    return fingerprint_of([*lines, *images])


def fingerprint_of(lines: Iterable[str]) -> str:
    """A short hash of some lines."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _tree_stamp(folder: str) -> str:
    """Of all files below a folder, a sub-folder at a time: millions are not held at once."""
    top = list_entries(folder)
    below = [stamp_of(list_entries(entry.address, recursive=True)) for entry in top if entry.is_folder]
    return fingerprint_of([stamp_of(top), *below])

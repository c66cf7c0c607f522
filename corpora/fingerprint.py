"""Which files a corpus' rows are made from, in a few characters."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from configs.loading import to_plain
from configs.schema import CorpusConfig
from corpora.shards import Shard
from storage.listing import list_entries, stamp_of

__all__ = ["fingerprint", "fingerprint_of", "how_read", "image_stamps", "shard_contents"]


def image_stamps(corpora: Sequence[CorpusConfig]) -> dict[str, str]:
    """Corpus -> what stands for the images that its table may name: all files below ``image_root``, listed."""
    return {corpus.name: _tree_stamp(corpus.image_root) for corpus in corpora if corpus.format == "table"}


def fingerprint(shards: Sequence[Shard], images: Mapping[str, str]) -> str:
    """Another one whenever a file that decides rows is added, gone or replaced (by path, size and time).

    Args:
        shards: of some corpora.
        images: :func:`image_stamps` of these.
    """
    lines = [f"{s.corpus}/{s.name} {s.start} {s.end} {s.stamp}" for s in shards]
    return fingerprint_of([*lines, *images.values()])


def shard_contents(
    corpora: Sequence[CorpusConfig], shards: Sequence[Shard], images: Mapping[str, str]
) -> dict[str, str]:
    """Unit (``corpus/shard``) -> what stands for the files that decide its rows, and for how its corpus is read."""
    read = {corpus.name: how_read(corpus) for corpus in corpora}
    return {
        f"{s.corpus}/{s.name}": fingerprint_of(
            [f"{s.name} {s.start} {s.end} {s.stamp}", f"{read[s.corpus]}", images.get(s.corpus, "")]
        )
        for s in shards
    }


def how_read(corpus: CorpusConfig) -> dict[str, Any]:
    """A corpus' options, without where it lies and which files it has."""
    return {name: value for name, value in to_plain(corpus).items() if name not in ("path", "metadata")}


def fingerprint_of(lines: Iterable[str]) -> str:
    """A short hash of some lines."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _tree_stamp(folder: str) -> str:
    """Of all files below a folder, a sub-folder at a time: millions are not held at once."""
    top = list_entries(folder)
    below = [stamp_of(list_entries(entry.address, recursive=True)) for entry in top if entry.is_folder]
    return fingerprint_of([stamp_of(top), *below])

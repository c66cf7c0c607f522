"""How many pairs the source corpora hold: exactly where a footer says it, else from the first samples of a shard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import pyarrow.parquet as pq

from configs.schema import CocuConfig, CorpusConfig
from corpora.embedding_files import paired_files
from corpora.readers.npy_files import open_npy
from corpora.readers.open_shard import read_samples
from corpora.shards import Shard, list_shards
from storage.addresses import resolve
from storage.listing import look_up

__all__ = ["Source", "measure"]

_LOOKED_AT = 200
_FOOTERS = 64  # of so many Parquet files; the others are taken to be like these
_TAR_OVERHEAD = 2048  # bytes of headers and padding that a sample of two files has in a tar


@dataclass(frozen=True)
class Source:
    """One corpus as it lies there. ``rows`` None: nothing tells; ``exact``: counted and not estimated."""

    name: str
    shards: int
    size: int
    rows: int | None
    exact: bool = False


def measure(config: CocuConfig) -> list[Source]:
    """Every corpus of the configuration, with ``limit`` applied."""
    found = [
        _vectors(corpus) if corpus.format == "embeddings" else _images(config, corpus)
        for corpus in config.corpora
    ]
    if not config.limit:
        return found
    return [
        Source(
            source.name,
            1,
            source.size if not source.rows else round(source.size * min(1, config.limit / source.rows)),
            config.limit if source.rows is None else min(config.limit, source.rows),
            source.exact,
        )
        for source in found
    ]


def _vectors(corpus: CorpusConfig) -> Source:
    files = paired_files(corpus)
    size = sum(entry.size for entry in look_up([name for pair in files for name in pair]) if entry)
    return Source(corpus.name, len(files), size, sum(open_npy(vectors).rows for vectors, _ in files), True)


def _images(config: CocuConfig, corpus: CorpusConfig) -> Source:
    shards = list_shards(corpus)
    addresses = list(dict.fromkeys(shard.address for shard in shards))
    sizes = [entry.size if entry else 0 for entry in look_up(addresses)]
    if corpus.format == "parquet":
        rows, exact = _footers(addresses)
        return Source(corpus.name, len(shards), sum(sizes), rows, exact)
    if corpus.format == "files":
        rows = sum(
            len(shard.files) for shard in shards
        )  # (files a sample: image, caption, JSON; the images are read)
        return Source(corpus.name, len(shards), 0, rows or None)
    if corpus.format == "webdataset":
        return Source(corpus.name, len(shards), sum(sizes), _by_size(config, shards, sum(sizes)))
    return Source(corpus.name, len(shards), sum(sizes), None)


def _footers(addresses: Sequence[str]) -> tuple[int, bool]:
    rows = []
    for address in addresses[:_FOOTERS]:
        filesystem, path = resolve(address)
        with filesystem.open_input_file(path) as stream:
            rows.append(pq.ParquetFile(stream).metadata.num_rows)
    return round(sum(rows) * len(addresses) / len(rows)), len(rows) == len(addresses)


def _by_size(config: CocuConfig, shards: Sequence[Shard], size: int) -> int | None:
    """From the bytes that the first samples of the first shard take."""
    seen = [sample for sample in islice(read_samples(shards[0], config.ingest), _LOOKED_AT) if sample.name]
    taken = [len(sample.image) for sample in seen if isinstance(sample.image, bytes)]
    if not taken:
        return None
    first = look_up([shards[0].address])[0]
    if len(seen) < _LOOKED_AT and first is not None:  # the shard is read to its end: it is counted
        return round(size * len(seen) / max(1, first.size))
    return round(size / (sum(taken) / len(taken) + _TAR_OVERHEAD))

"""One shard, from raw samples to rows of `pairs` and `rejects`; runs inside a Spark task, knows no Spark."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa

from configs.processors import cores
from configs.schema import IngestConfig
from corpora.captions import Problem, clean_caption
from corpora.decode_pool import Clock, DecodePool, Job
from corpora.images import Prepared, prepare_image
from corpora.readers.open_shard import read_samples
from corpora.reasons import Reason
from corpora.samples import LazyBytes, Sample
from corpora.shards import Shard

__all__ = ["PAIRS_SCHEMA", "REJECTS_SCHEMA", "Chunk", "ingest_shard", "pairs_schema"]

PAIRS_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("corpus", pa.string()),
        ("image", pa.binary()),
        ("caption", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
)


def pairs_schema(columns: Sequence[str] = ()) -> pa.Schema:
    """Of `pairs`, with the columns of ``ingest.columns`` behind the others, as text."""
    return pa.schema([*PAIRS_SCHEMA, *((name, pa.string()) for name in columns)])


_REJECT_COLUMNS = ("key", "corpus", "shard", "sample", "stage", "reason", "detail")
REJECTS_SCHEMA = pa.schema([(name, pa.string()) for name in _REJECT_COLUMNS])

_WAITING_A_THREAD = 8  # samples
_WAITING_BYTES = 64 << 20
_CHUNK_BYTES = 512 << 20
_LONGEST_DETAIL = 300


@dataclass
class Chunk:
    """Up to ``rows_per_part`` good pairs in the shard's order, and what was rejected on the way."""

    pairs: pa.Table
    rejects: pa.Table


@dataclass
class _Waiting:
    """A sample on its way: rejected already, or with its image in a decoding thread."""

    name: str
    caption: str = ""
    columns: Mapping[str, str | None] = field(default_factory=dict)
    job: Job[bytes | LazyBytes | None, Prepared | Problem] | None = None
    problem: Problem | None = None
    size: int = 0


@dataclass
class _Rows:
    """Finished rows that are not handed out yet."""

    shard: Shard
    columns: Sequence[str] = ()
    pairs: list[tuple[Any, ...]] = field(default_factory=list)
    rejects: list[tuple[str, ...]] = field(default_factory=list)
    size: int = 0

    def add(self, sample: _Waiting, image: Prepared | Problem) -> None:
        name = sample.name
        key = f"{self.shard.corpus}/{self.shard.name}/{name}"
        if isinstance(image, Problem):
            place = (key, self.shard.corpus, self.shard.name, name)
            self.rejects.append((*place, "ingest", image.reason.value, _printable(image.detail)))
        else:
            further = [sample.columns.get(column) for column in self.columns]
            row = (key, self.shard.corpus, image.jpeg, sample.caption, image.width, image.height, *further)
            self.pairs.append(row)
            self.size += len(image.jpeg)

    def take(self) -> Chunk:
        chunk = Chunk(_table(self.pairs, pairs_schema(self.columns)), _table(self.rejects, REJECTS_SCHEMA))
        self.pairs, self.rejects, self.size = [], [], 0
        return chunk


def _table(rows: list[tuple], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else ([] for _ in schema)
    return pa.Table.from_arrays(
        [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema
    )


def _printable(text: str) -> str:
    """Details quote bytes from the web; what ends up in tables and reports is plain, short text."""
    plain = text.encode("utf-8", "replace").decode()
    return "".join(char if char.isprintable() else " " for char in plain)[:_LONGEST_DETAIL]


def ingest_shard(shard: Shard, config: IngestConfig) -> Iterator[Chunk]:
    """Every sample of the shard as one row of `pairs` or of `rejects`, in order.

    Images are decoded in ``config.threads`` threads (Pillow lets go of the interpreter lock while it
    decodes). The bytes that wait for it, and the rows of a chunk, are bounded in number and in size. What is
    wrong with the shard itself is one reject with an empty sample name.
    """
    rows = _Rows(shard, tuple(config.columns))
    threads = config.threads or _task_cores()
    with DecodePool(partial(_decode, config=config), threads, config.image_seconds) as pool:
        for sample in _ahead(_admit(shard, config, pool), _WAITING_A_THREAD * threads):
            _finish(sample, pool, rows)
            # After every sample, so that a shard is cut at the same rows whatever the number of threads.
            if len(rows.pairs) >= config.rows_per_part or rows.size >= _CHUNK_BYTES:
                yield rows.take()
    if rows.pairs or rows.rejects:
        yield rows.take()


def _ahead(samples: Iterator[_Waiting], most: int) -> Iterator[_Waiting]:
    """The same samples in the same order, while up to ``most`` later ones are with the threads already."""
    waiting: deque[_Waiting] = deque()
    size = 0
    for sample in samples:
        waiting.append(sample)
        size += sample.size
        while len(waiting) > most or size > _WAITING_BYTES:
            first = waiting.popleft()
            size -= first.size
            yield first
    yield from waiting


def _task_cores() -> int:
    """Spark tells a task's cores to Python as OMP_NUM_THREADS; elsewhere all cores are ours."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdigit() and int(told) > 0 else cores()


def _admit(shard: Shard, config: IngestConfig, pool: DecodePool) -> Iterator[_Waiting]:
    """The cheap checks first; what passes them goes to the decoding threads."""
    seen: set[str] = set()
    for sample in read_samples(shard, config):
        checked = _check(sample, seen, config)
        if isinstance(checked, Problem):
            yield _Waiting(sample.name, problem=checked)
        else:
            size = len(sample.image) if isinstance(sample.image, bytes) else 0
            yield _Waiting(sample.name, checked, sample.columns, pool.submit(sample.image), size=size)


def _check(sample: Sample, seen: set[str], config: IngestConfig) -> str | Problem:
    """The clean caption, or why the sample is rejected before its image is looked at."""
    if sample.name in seen:
        return Problem(Reason.DUPLICATE_KEY)
    if sample.name:
        seen.add(sample.name)
    return sample.problem or clean_caption(sample.caption, config)


def _decode(image: bytes | LazyBytes | None, clock: Clock, config: IngestConfig) -> Prepared | Problem:
    data = image() if callable(image) else image
    return data if isinstance(data, Problem) else prepare_image(data, config, clock)


def _finish(sample: _Waiting, pool: DecodePool, rows: _Rows) -> None:
    result: Prepared | Problem
    if sample.problem is not None:
        result = sample.problem
    else:
        assert sample.job is not None
        try:
            result = pool.wait(sample.job)
        except TimeoutError as error:
            result = Problem(Reason.IMAGE_TIMEOUT, str(error))
        except MemoryError:  # while its bytes were read
            result = Problem(Reason.UNREADABLE_IMAGE, "MemoryError")
    rows.add(sample, result)

"""One shard, from raw samples to rows of `pairs` and `rejects`; runs inside a Spark task, knows no Spark."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field

import pyarrow as pa

from configs.schema import IngestConfig
from spark_jobs.captions import Problem, clean_caption
from spark_jobs.images import Prepared, prepare_image
from spark_jobs.reasons import Reason
from spark_jobs.shard_readers import Sample, Shard, read_samples

__all__ = ["PAIRS_SCHEMA", "REJECTS_SCHEMA", "Chunk", "ingest_shard"]

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
REJECTS_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("key", "corpus", "shard", "sample", "stage", "reason", "detail")]
)


@dataclass
class Chunk:
    """Up to ``rows_per_part`` good pairs in the shard's order, and what was rejected on the way."""

    pairs: pa.Table
    rejects: pa.Table


@dataclass
class _Rows:
    shard: Shard
    pairs: list[dict[str, object]] = field(default_factory=list)
    rejects: list[dict[str, object]] = field(default_factory=list)

    def add(self, name: str, caption: str | None, image: Prepared | Problem) -> None:
        corpus, shard = self.shard.corpus, self.shard.name
        key = f"{corpus}/{shard}/{name}"
        if isinstance(image, Problem):
            entry = {"key": key, "corpus": corpus, "shard": shard, "sample": name, "stage": "ingest"}
            self.rejects.append({**entry, "reason": str(image.reason), "detail": _printable(image.detail)})
            return
        data, width, height = image
        self.pairs.append(
            {
                "key": key,
                "corpus": corpus,
                "image": data,
                "caption": caption,
                "width": width,
                "height": height,
            }
        )

    def take(self) -> Chunk:
        chunk = Chunk(
            pa.Table.from_pylist(self.pairs, schema=PAIRS_SCHEMA),
            pa.Table.from_pylist(self.rejects, schema=REJECTS_SCHEMA),
        )
        self.pairs, self.rejects = [], []
        return chunk


def _printable(text: str) -> str:
    """Details quote bytes from the web; what ends up in tables and reports is plain, short text."""
    return "".join(char if char.isprintable() else " " for char in text.encode("utf-8", "replace").decode())[
        :300
    ]


def ingest_shard(shard: Shard, config: IngestConfig) -> Iterator[Chunk]:
    """Every sample of the shard as a row of `pairs` or of `rejects`, in order.

    Decoding runs in ``config.threads`` threads (Pillow lets go of the interpreter lock while it decodes);
    the number of samples in memory is bounded. An image that takes longer than ``config.image_seconds``
    is rejected and its thread left behind: Python cannot stop it, so the pool is replaced.
    """
    rows = _Rows(shard)
    seen: set[str] = set()
    waiting: deque[tuple[Sample, str | None, Future[Prepared | Problem] | Problem]] = deque()
    workers = max(1, config.threads or 1)
    pool = ThreadPoolExecutor(workers)

    def collect() -> None:
        nonlocal pool
        sample, caption, result = waiting.popleft()
        if isinstance(result, Future):
            try:
                result = result.result(timeout=config.image_seconds)
            except FutureTimeout:
                result = Problem(Reason.IMAGE_TIMEOUT, f"more than {config.image_seconds:g} s")
                pool.shutdown(wait=False, cancel_futures=True)
                pool = ThreadPoolExecutor(workers)
                for place, (other, text, future) in enumerate(waiting):
                    if isinstance(future, Future) and not future.done():
                        waiting[place] = (other, text, pool.submit(prepare_image, other.image, config))
        rows.add(sample.name, caption, result)
        sample.image = None

    try:
        for sample in read_samples(shard, config):
            caption = None if sample.problem else clean_caption(sample.caption, config)
            if sample.problem is not None:
                waiting.append((sample, None, sample.problem))
            elif sample.name in seen:
                waiting.append((sample, None, Problem(Reason.DUPLICATE_KEY)))
            elif isinstance(caption, Problem):
                waiting.append((sample, None, caption))
            else:
                waiting.append((sample, caption, pool.submit(prepare_image, sample.image, config)))
            seen.add(sample.name)
            while len(waiting) > 8 * workers:
                collect()
            if len(rows.pairs) >= config.rows_per_part:
                yield rows.take()
        while waiting:
            collect()
            if len(rows.pairs) >= config.rows_per_part:
                yield rows.take()
        if rows.pairs or rows.rejects:
            yield rows.take()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)

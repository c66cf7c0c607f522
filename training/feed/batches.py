"""From encoded rows to batches that a step takes: pixels by decoding processes, texts beside them.

    with BatchMaker(options) as maker:
        for epoch in range(epochs):
            for batch in maker.batches(tables_of(epoch), epoch):
                ...

What an image or a text becomes depends on (seed, epoch, key) alone, not on the batch it is in, the number of
ranks or of workers. The order of batches is that of the tables.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import pyarrow as pa
import torch

from configs.errors import UserError
from models.pixels import MEAN, STD
from training.feed import texts
from training.feed.augment import Augmenter, AugmentOptions
from training.feed.batch_options import BatchOptions, check_options
from training.feed.batch_queue import BoundedQueue, closed_after
from training.feed.decode import CHUNK, Bad, DecodePool, decode_rows
from training.feed.texts import Prompts

__all__ = ["Batch", "BatchMaker", "BatchOptions"]


@dataclass
class Batch:
    """n rows for a step.

    Attributes:
        keys: n.
        images: uint8 (n, H, W, 3), RGB.
        captions: int64 (n, T) tokens.
        prompts: tokens and concepts, or None without prompts.
        bad: keys of images that could not be decoded and are grey.
    """

    keys: list[str]
    images: torch.Tensor
    captions: torch.Tensor
    prompts: Prompts | None
    bad: list[str]


class BatchMaker:
    """Makes batches; its processes start with the first one and serve all epochs, until :meth:`close`."""

    def __init__(self, options: BatchOptions) -> None:
        """Raises UserError for an option that cannot be."""
        check_options(options)
        self.options = options
        self._augment = AugmentOptions(options.augment, options.image_size, options.seed, MEAN, STD)
        self._pool: DecodePool | None = None

    @property
    def process_ids(self) -> list[int]:
        """Of the decoding processes that run now."""
        return self._pool.process_ids if self._pool else []

    def batches(self, tables: Iterable[pa.Table | pa.RecordBatch], epoch: int) -> Iterator[Batch]:
        """One batch a table, in their order. ``tables`` is read in a thread of its own, if there are workers.

        Closing the iterator early closes the maker's processes at once; they start again when needed.

        Raises:
            UserError: a column is missing; an image does not decode and ``bad_images`` is stop.
            RuntimeError: a decoding process died.
        """
        if self.options.workers == 0:
            augmenter = Augmenter(self._augment)
            with closed_after(iter(tables)) as iterator:
                for table in iterator:
                    yield self._begin(table, epoch, augmenter).finish()
            return
        if self._pool is None:
            self._pool = DecodePool(self._augment, self.options.workers)
        begun: BoundedQueue[_Unfinished] = BoundedQueue(self.options.prefetch)
        arguments = (tables, epoch, self._pool, begun)
        thread = threading.Thread(target=self._begin_all, args=arguments, daemon=True, name="batches")
        thread.start()
        complete = False
        try:
            while (batch := begun.take()) is not None:
                yield batch.finish()
            complete = True
        finally:
            begun.stop()
            if not complete:
                self.close()
            thread.join(timeout=_READER_SECONDS)

    def close(self) -> None:
        """End the processes. The maker can be used again."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _begin_all(
        self,
        tables: Iterable[pa.Table | pa.RecordBatch],
        epoch: int,
        pool: DecodePool,
        begun: BoundedQueue[_Unfinished],
    ) -> None:
        try:
            with closed_after(iter(tables)) as iterator:
                while begun.has_room() and (table := next(iterator, None)) is not None:
                    begun.put(self._begin(table, epoch, pool))
            begun.put(None)
        except BaseException as error:  # for whoever takes the batches
            begun.put(error)

    def _begin(
        self, table: pa.Table | pa.RecordBatch, epoch: int, decoder: DecodePool | Augmenter
    ) -> _Unfinished:
        """Hand a table's images to the decoder, then see to its texts."""
        options = self.options
        _check_columns(table)
        keys = texts.strings(table, "key")
        jpegs = table.column("image").to_pylist()
        shape = (len(keys), options.image_size, options.image_size, 3)
        images = torch.empty(shape, dtype=torch.uint8, pin_memory=options.pin)
        chunks = []
        for start in range(0, len(keys), CHUNK):
            rows = slice(start, start + CHUNK)
            work = (epoch, keys[rows], jpegs[rows], images.numpy()[rows])
            if isinstance(decoder, DecodePool):
                chunks.append(decoder.submit(*work))
            else:
                chunks.append(_done(decode_rows(decoder, *work)))
        captions = texts.caption_tokens(table, options.context_length)
        prompts = texts.draw_prompts(table, epoch, options.draws, options.context_length)
        return _Unfinished(Batch(keys, images, captions, prompts, []), chunks, options.bad_images)


_READER_SECONDS = 10.0  # how long a reader may take to give up when batches are no longer wanted
_COLUMNS = (
    "key",
    "image",
    "caption",
    "caption_nouns",
    "archive_concepts",
    "archive_scores",
    "archive_clusters",
)


@dataclass
class _Unfinished:
    """A batch some of whose pixels are still to come."""

    batch: Batch
    chunks: list[Future[Bad]]
    bad_images: str

    def finish(self) -> Batch:
        """Wait for the pixels; say what was not decoded."""
        for number, chunk in enumerate(self.chunks):
            for row, reason in chunk.result():
                key = self.batch.keys[number * CHUNK + row]
                if self.bad_images == "stop":
                    raise UserError(
                        f"the image of {key} in the training set cannot be decoded ({reason}): export the "
                        "training set again, or go on with grey images in such places by bad_images=replace"
                    )
                self.batch.bad.append(key)
        return self.batch


def _done(bad: Bad) -> Future[Bad]:
    future: Future[Bad] = Future()
    future.set_result(bad)
    return future


def _check_columns(table: pa.Table | pa.RecordBatch) -> None:
    missing = [name for name in _COLUMNS if name not in table.schema.names]
    if missing:
        raise UserError(
            f"the training set has no column {', '.join(missing)}: give a table that export_training wrote "
            f"(it has {', '.join(table.schema.names)})"
        )

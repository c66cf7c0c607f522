"""From encoded rows to batches that a step takes: pixels by decoding processes, texts beside them.

    with BatchMaker(options) as maker:
        for epoch in range(epochs):
            for batch in maker.batches(tables_of(epoch), epoch):
                ...

What an image or a text becomes depends on (seed, epoch, key) alone, not on the batch it is in, the number of
ranks or of workers. The order of batches is that of the tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import pyarrow as pa
import torch

__all__ = ["Batch", "BatchMaker", "BatchOptions", "make_batches"]


@dataclass(frozen=True)
class BatchOptions:
    """How rows become batches; checked by :class:`BatchMaker`.

    Attributes:
        image_size: side of the square images, pixels.
        sampling: cluster | top | caption-nouns | none (``curation.sampling``).
        prompts: K, texts an image beside its caption.
        temperature: of the draws of ``cluster``.
        seed: of augmentation and draws.
        context_length: most tokens a text keeps.
        augment: recipe | light | none (``training.augment``).
        workers: decoding processes; 0: decode in the calling thread.
        prefetch: batches prepared ahead of the one that is asked for.
        bad_images: stop | replace (grey, named in ``Batch.bad``).
        pin: put the images into pinned memory, for copies to a GPU beside its work.
    """

    image_size: int = 224
    sampling: str = "cluster"
    prompts: int = 3
    temperature: float = 1.0
    seed: int = 0
    context_length: int = 77
    augment: str = "recipe"
    workers: int = 0
    prefetch: int = 4
    bad_images: str = "stop"
    pin: bool = False


@dataclass
class Batch:
    """n rows for a step.

    Attributes:
        keys: n.
        images: uint8 (n, H, W, 3), RGB.
        captions: int64 (n, T) tokens.
        prompts: int64 (n, K, T') tokens, or None without prompts.
        bad: keys of images that could not be decoded and are grey.
    """

    keys: list[str]
    images: torch.Tensor
    captions: torch.Tensor
    prompts: torch.Tensor | None
    bad: list[str]


class BatchMaker:
    """Makes batches; its processes start with the first one and serve all epochs, until :meth:`close`."""

    def __init__(self, options: BatchOptions) -> None:
        """Raises UserError for an option that cannot be."""
        self.options = options

    def batches(self, tables: Iterable[pa.Table | pa.RecordBatch], epoch: int) -> Iterator[Batch]:
        """One batch a table, in their order. ``tables`` is read in a thread of its own, if there are workers.

        Closing the iterator early closes the maker's processes at once; they start again when needed.

        Raises:
            UserError: a column is missing; an image does not decode and ``bad_images`` is stop.
            RuntimeError: a decoding process died.
        """
        raise NotImplementedError

    def close(self) -> None:
        """End the processes. The maker can be used again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def make_batches(
    tables: Iterable[pa.Table | pa.RecordBatch], options: BatchOptions, epoch: int
) -> Iterator[Batch]:
    """Batches of one epoch by processes of its own (see :meth:`BatchMaker.batches`)."""
    with BatchMaker(options) as maker:
        yield from maker.batches(tables, epoch)

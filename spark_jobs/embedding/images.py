"""Images to vectors, as a stream: threads decode ahead while the model computes on the batch before."""

from __future__ import annotations

import io
import socket
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
import torch
from PIL import Image
from pyspark import TaskContext

from configs.errors import UserError
from configs.schema import ClipConfig, EmbedConfig, IngestConfig
from corpora.captions import Problem
from corpora.images import prepare_image
from corpora.reasons import Reason
from models.clip import Clip, clip_fingerprint, load_clip, pick_device

__all__ = [
    "Decoded",
    "Embedded",
    "Failure",
    "clip_here",
    "decoded",
    "embed_pixels",
    "embedded",
    "images_a_pass",
]

ImageBytes = bytes | memoryview
"""Anything that holds the bytes of an image file without copying them."""
Decoded = tuple[int, np.ndarray | None, Problem | None]
"""Row, pixels uint8 (h, w, 3) or None, and what was wrong instead."""
Failure = tuple[int, Reason, str]
"""Row, reason and detail."""
Embedded = tuple[list[int], np.ndarray, list[Failure]]
"""Rows that were embedded, their vectors float16 (n, d) of length 1, and failures."""


def clip_here(config: ClipConfig, weights: str) -> Clip:
    """The model, loaded once a Python worker, on the GPU that Spark gave the calling task, if it gave one.

    Args:
        config: section ``clip``.
        weights: its ``clip_fingerprint`` on the driver.

    Raises:
        UserError: the checkpoint here is another file than the driver's.
    """
    context = TaskContext.get()
    resources = context.resources() if context else {}
    address = resources["gpu"].addresses[0] if "gpu" in resources else None
    here = clip_fingerprint(config)
    if here != weights:
        raise UserError(
            f"clip.pretrained={config.pretrained} on executor {socket.gethostname()} is another file than on the "
            f"driver ({here} and {weights}); put the same checkpoint on every host or use a shared path"
        )
    return load_clip(config, pick_device(address))


def images_a_pass(clip: Clip, options: EmbedConfig) -> int:
    """Images that the model gets at once."""
    return options.batch_size or (256 if clip.device.type == "cuda" else 64)


def _threads(clip: Clip, options: EmbedConfig) -> int:
    if options.threads:
        return options.threads
    context = TaskContext.get()
    cpus = context.cpus() if context else 1
    # On a GPU one decoding thread cannot keep up, whatever spark.task.cpus says.
    return max(cpus, 4) if clip.device.type == "cuda" else max(1, cpus)


def decoded(
    clip: Clip,
    images: Iterable[ImageBytes | None],
    options: EmbedConfig,
    prepare: IngestConfig | None = None,
) -> Iterator[Decoded]:
    """The pixels that the model takes, in the order of the images; at most four batches wait decoded.

    Args:
        clip: what they are for.
        images: JPEGs as ``pairs`` holds them; with ``prepare``, files of any kind that ingest takes, or None.
        options: threads and batch size.
        prepare: bring every image into the form of ``pairs`` first, as ingest does.
    """

    def decode(item: tuple[int, ImageBytes | None]) -> Decoded:
        row, data = item
        if data is None:
            return row, None, Problem(Reason.MISSING_IMAGE)
        if prepare is not None:
            prepared = prepare_image(bytes(data), prepare)
            if isinstance(prepared, Problem):
                return row, None, prepared
            data = prepared.jpeg
        try:
            with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
                return row, clip.prepare(image.convert("RGB")), None
        except (OSError, ValueError, SyntaxError, MemoryError, Image.DecompressionBombError) as error:
            return row, None, Problem(Reason.UNREADABLE_IMAGE, f"{type(error).__name__}: {error}"[:200])

    ahead = 4 * images_a_pass(clip, options)
    with ThreadPoolExecutor(_threads(clip, options)) as pool:
        items = enumerate(images)
        waiting = deque(pool.submit(decode, item) for item in islice(items, ahead))
        while waiting:
            head = waiting.popleft()
            yield head.result()
            following = next(items, None)
            if following is not None:
                waiting.append(pool.submit(decode, following))


def embed_pixels(clip: Clip, decoded: Iterator[Decoded], batch_size: int) -> Embedded:
    """Vectors of all decoded images together; the failures in row order. See :func:`embedded`."""
    good: list[int] = []
    vectors = [np.zeros((0, clip.dimension), np.float16)]
    bad: list[Failure] = []
    for rows, found, failures in embedded(clip, decoded, batch_size):
        good.extend(rows)
        vectors.append(found)
        bad.extend(failures)
    return good, np.concatenate(vectors), sorted(bad)


def embedded(clip: Clip, decoded: Iterator[Decoded], batch_size: int) -> Iterator[Embedded]:
    """Vectors of a stream of decoded images, one pass of the model after another, every row in one of them.

    When the GPU's memory is too small for a batch, the batch is halved and tried again, and stays small for
    this process; an image that fails alone is reported.
    """
    bad: list[Failure] = []
    for batch in _batches(decoded, batch_size, bad):
        for rows, found in _encoded(clip, batch, bad):
            usable = np.abs(np.linalg.norm(found.astype(np.float32), axis=1) - 1) < 0.1  # false for NaN too
            bad.extend((rows[n], Reason.EMBEDDING_NOT_FINITE, "") for n in np.flatnonzero(~usable))
            yield [row for row, fine in zip(rows, usable, strict=True) if fine], found[usable], bad[:]
            bad.clear()
        if bad:
            yield [], np.zeros((0, clip.dimension), np.float16), bad[:]
            bad.clear()


def _batches(
    decoded: Iterator[Decoded], size: int, bad: list[Failure]
) -> Iterator[list[tuple[int, np.ndarray]]]:
    """Full batches of (row, pixels), whatever could not be decoded in between.

    Among images of which hardly any can be decoded a batch goes short, so that nobody waits for it for ever.
    """
    batch: list[tuple[int, np.ndarray]] = []
    seen = 0
    for row, pixels, problem in decoded:
        seen += 1
        if pixels is None:
            assert problem is not None
            bad.append((row, problem.reason, problem.detail))
        else:
            batch.append((row, pixels))
        if len(batch) == size or seen >= 16 * size:
            yield batch
            batch, seen = [], 0
    if batch or bad:
        yield batch


def _encoded(
    clip: Clip, batch: list[tuple[int, np.ndarray]], bad: list[Failure]
) -> Iterator[tuple[list[int], np.ndarray]]:
    """(rows, vectors) of a batch, in as many runs as the GPU's memory asks for."""
    start = 0
    while start < len(batch):
        some = batch[start : start + _fitting.get(clip.device, len(batch))]
        rows = [row for row, _ in some]
        result = _try_to_encode(clip, np.stack([pixels for _, pixels in some]))
        if isinstance(result, np.ndarray):
            yield rows, result
        elif len(some) == 1:
            bad.append((rows[0], Reason.OUT_OF_GPU_MEMORY, result))
        else:
            _fitting[clip.device] = len(some) // 2
            print(
                f"embed_images: out of GPU memory; the batch is now {len(some) // 2}",
                file=sys.stderr,
                flush=True,
            )
            continue
        start += len(some)


_fitting: dict[
    torch.device, int
] = {}  # images that a device is known to take at once, where fewer than asked for


def _try_to_encode(clip: Clip, pixels: np.ndarray) -> np.ndarray | str:
    """The vectors, or what the GPU says that its memory lacks."""
    try:
        return clip.encode_images(pixels)
    except torch.OutOfMemoryError as error:
        message = str(error).partition("\n")[0][:200]
    # Only here, where no exception holds the tensors of the failed pass any more.
    torch.cuda.empty_cache()
    return message

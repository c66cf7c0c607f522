"""Job 2: pairs -> image_embeddings. CLIP's view of every image, f(x) of the paper's section 3.2.

One task embeds one part of `pairs`, from bytes to vectors in one place: threads decode ahead while the
model computes on the batch before. On executors with a GPU the task uses the one Spark gave it.
"""

from __future__ import annotations

import io
import socket
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from pyspark import TaskContext
from pyspark.sql import SparkSession

from configs.errors import UserError
from configs.schema import ClipConfig, CocuConfig, EmbedConfig
from corpora.reasons import Reason
from models.clip import Clip, check_clip, clip_fingerprint, clip_settings, load_clip, pick_device
from spark_jobs.engine.commits import build_table
from spark_jobs.engine.session import gpu_profile
from spark_jobs.engine.table_job import TableJob
from spark_jobs.engine.units import RejectedRow, finish_unit, units_of
from storage import tables
from storage.tables import Manifest
from storage.units import Unit, UnitRecord
from storage.vectors import vectors_to_column

__all__ = ["check", "embed_pixels", "main", "run"]

HELP = """\
Embed every image of `pairs` with a frozen open_clip model: reads pairs, writes image_embeddings.

The paper's model is clip.name=ViT-B-16 clip.pretrained=openai (the first use downloads it). A local
checkpoint goes into clip.pretrained as a path that every executor sees, a model of your own into
clip.name as the path of its open_clip model-config .json.
With spark.executor.resource.gpu.amount set, each task gets one GPU and computes in bf16; without, tasks
compute on their CPU core in fp32 (clip.precision sets another). One table holds one precision: where some
hosts have GPUs and others none, it has to be set. Where a batch does not fit the GPU's memory, it is halved.
Vectors are L2-normalised and stored as float16. An image that cannot be embedded is a reject.
Stopped half-way, it goes on where it was when started again.

Example:
  spark-submit spark_jobs/embed_images.py --config configs/cc3m.yaml workspace=/data/cocu \\
      clip.name=ViT-B-32 clip.pretrained=/models/vit-b-32.safetensors"""


def check(config: CocuConfig) -> None:
    """What can be wrong before Spark starts."""
    check_clip(config.clip)
    tables.read_manifest(config.workspace, "pairs")


def run(session: SparkSession, config: CocuConfig) -> Manifest:
    """Build image_embeddings."""
    pairs = tables.read_manifest(config.workspace, "pairs")
    settings = clip_settings(config.clip)
    clip = config.clip

    def resume(done: Manifest) -> None:
        nonlocal clip
        settled = _first_with_precision(done.units)
        if settled and clip.precision == "auto":
            clip = replace(clip, precision=settled.extra["precision"])
            print(f"embed_images: goes on in {clip.precision}, as it was begun", flush=True)

    def units() -> list[Unit]:
        more = (clip, config.embed, settings["weights"])
        return [replace(unit, payload=(*unit.payload, *more)) for unit in units_of(pairs)]

    job = TableJob(
        job="embed_images",
        table="image_embeddings",
        settings={"clip": settings},
        inputs={"pairs": pairs.recipe},
        units=units,
        task=embed_unit,
        common={"clip": settings},
        contents={unit.name: unit.content for unit in units_of(pairs)},
        what="images",
        profile=gpu_profile(session),
        resume=resume,
        accept=insist_on_one_precision,
        finish=_note_precision,
    )
    return build_table(session, config, job)


def embed_unit(unit: Unit, folder: str, recipe: str) -> UnitRecord:
    """Embed one part of `pairs` (runs on an executor)."""
    address, clip_config, options, weights = unit.payload
    clip = _load_here(clip_config, weights)
    rows = tables.read_file(address, ["key", "image"])
    keys, images = rows.column("key"), rows.column("image")
    good, vectors, bad = embed_pixels(clip, _decoded(clip, images, options), _batch_size(clip, options))
    names = keys.to_pylist() if bad else []
    rejects = [RejectedRow(names[row], "embed_images", reason, detail) for row, reason, detail in bad]
    table = pa.table(
        {
            "key": keys.take(pa.array(good, pa.int64())) if bad else keys,
            "embedding": vectors_to_column(vectors, clip.dimension),
        }
    )
    extra = {"precision": clip.precision, "host": socket.gethostname()}
    return finish_unit(unit, folder, recipe, table, rejects, extra=extra)


def insist_on_one_precision(done: Manifest, records: Sequence[UnitRecord]) -> None:
    """With ``clip.precision=auto`` every host decides for itself: a table of two precisions is refused.

    Units that are still to be done when the job is started again get that of the committed ones.

    Raises:
        UserError: two of them, with a unit and the host of each.
    """
    settled = _first_with_precision(done.units)
    seen = {settled.extra["precision"]: f"unit {settled.unit}, committed before"} if settled else {}
    for record in records:
        host = record.extra.pop("host")
        seen.setdefault(record.extra["precision"], f"unit {record.unit} on host {host}")
    if len(seen) > 1:
        found = " and ".join(f"{precision} ({what})" for precision, what in seen.items())
        choice = [f"write {' or '.join(f'clip.precision={precision}' for precision in seen)}"]
        choice += [f"run again to go on in {settled.extra['precision']}"] if settled else []
        raise UserError(
            f"embed_images: clip.precision=auto gave {found}, and a table holds one precision; {', or '.join(choice)}"
        )


def _first_with_precision(records: Sequence[UnitRecord]) -> UnitRecord | None:
    """Stands for all that were accepted; failed units, and those of older versions, do not say it."""
    return next((record for record in records if "precision" in record.extra), None)


def _note_precision(manifest: Manifest) -> None:
    if first := _first_with_precision(manifest.units):
        manifest.extra["precision"] = first.extra["precision"]


def _load_here(config: ClipConfig, weights: str) -> Clip:
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


def _batch_size(clip: Clip, options: EmbedConfig) -> int:
    return options.batch_size or (256 if clip.device.type == "cuda" else 64)


def _threads(clip: Clip, options: EmbedConfig) -> int:
    if options.threads:
        return options.threads
    context = TaskContext.get()
    cpus = context.cpus() if context else 1
    # On a GPU one decoding thread cannot keep up, whatever spark.task.cpus says.
    return max(cpus, 4) if clip.device.type == "cuda" else max(1, cpus)


Decoded = tuple[int, np.ndarray | None, str]
"""Row, pixels uint8 (h, w, 3) or None, and what the decoder said instead."""
Failure = tuple[int, Reason, str]
"""Row, reason and detail."""


def _decoded(clip: Clip, images: pa.ChunkedArray, options: EmbedConfig) -> Iterator[Decoded]:
    """(row, pixels or None, error) in row order; at most four batches wait decoded."""

    def decode(item: tuple[int, pa.BinaryScalar]) -> Decoded:
        row, value = item
        try:
            with Image.open(io.BytesIO(value.as_buffer()), formats=("JPEG",)) as image:
                return row, clip.prepare(image.convert("RGB")), ""
        except (OSError, ValueError, SyntaxError, MemoryError, Image.DecompressionBombError) as error:
            return row, None, f"{type(error).__name__}: {error}"[:200]

    ahead = 4 * _batch_size(clip, options)
    with ThreadPoolExecutor(_threads(clip, options)) as pool:
        items = enumerate(value for chunk in images.chunks for value in chunk)
        waiting = deque(pool.submit(decode, item) for item in islice(items, ahead))
        while waiting:
            head = waiting.popleft()
            yield head.result()
            following = next(items, None)
            if following is not None:
                waiting.append(pool.submit(decode, following))


def embed_pixels(
    clip: Clip, decoded: Iterator[Decoded], batch_size: int
) -> tuple[list[int], np.ndarray, list[Failure]]:
    """Vectors of a stream of decoded images.

    When the GPU's memory is too small for a batch, the batch is halved and tried again, and stays small for
    this process; an image that fails alone is reported.

    Returns:
        rows that were embedded, their vectors float16 (n, d) of length 1, and the failures in row order.
    """
    good: list[int] = []
    vectors: list[np.ndarray] = []
    bad: list[Failure] = []
    for batch in _batches(decoded, batch_size, bad):
        for rows, found in _encoded(clip, batch, bad):
            usable = np.abs(np.linalg.norm(found.astype(np.float32), axis=1) - 1) < 0.1  # false for NaN too
            good.extend(row for row, fine in zip(rows, usable, strict=True) if fine)
            bad.extend((rows[n], Reason.EMBEDDING_NOT_FINITE, "") for n in np.flatnonzero(~usable))
            vectors.append(found[usable])
    return good, np.concatenate(vectors or [np.zeros((0, clip.dimension), np.float16)]), sorted(bad)


def _batches(
    decoded: Iterator[Decoded], size: int, bad: list[Failure]
) -> Iterator[list[tuple[int, np.ndarray]]]:
    """Full batches of (row, pixels), whatever could not be decoded in between."""
    batch: list[tuple[int, np.ndarray]] = []
    for row, pixels, error in decoded:
        if pixels is None:
            bad.append((row, Reason.UNREADABLE_IMAGE, error))
            continue
        batch.append((row, pixels))
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
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


def main() -> None:
    """Entry of spark-submit."""
    from spark_jobs.engine.entry import job_entry

    job_entry("embed_images", HELP, ["clip", "embed"], check, run)


if __name__ == "__main__":
    from spark_jobs.embed_images import (
        main as entry,  # by its import name, so that executors find the task's function
    )

    entry()

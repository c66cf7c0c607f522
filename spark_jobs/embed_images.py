"""Job 2: pairs -> image_embeddings. CLIP's view of every image, f(x) of the paper's section 3.2.

One task embeds one part of `pairs`, from bytes to vectors in one place: threads decode ahead while the
model computes on the batch before. On executors with a GPU the task uses the one Spark gave it.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from pyspark.resource import ResourceProfile
from pyspark.sql import SparkSession

from configs.errors import UserError
from configs.schema import CocuConfig
from models.clip import Clip, check_clip, clip_settings
from spark_jobs.embedding.images import clip_here, decoded, embed_pixels, images_a_pass
from spark_jobs.engine.commits import build_table
from spark_jobs.engine.session import gpu_profile
from spark_jobs.engine.table_job import TableJob
from spark_jobs.engine.units import RejectedRow, finish_unit, units_of
from spark_jobs.planning import plan_text
from storage import tables
from storage.tables import Manifest
from storage.units import Unit, UnitRecord
from storage.vectors import vectors_to_column

__all__ = ["check", "main", "plan", "planned", "run"]

HELP = """\
Embed every image of `pairs` with a frozen open_clip model: reads pairs, writes image_embeddings.

The paper's model is clip.name=ViT-B-16 clip.pretrained=openai (the first use downloads it). A local
checkpoint goes into clip.pretrained as a path that every executor sees, a model of your own into
clip.name as the path of its open_clip model-config .json.
With spark.executor.resource.gpu.amount set, each task gets one GPU and computes in bf16; without, tasks
compute on their CPU core, in bf16 where it has AMX (which is several times as fast), else in fp32; clip.precision
sets another. One table holds one precision: where hosts differ in what they have, it has to be set.
Where a batch does not fit the GPU's memory, it is halved.
embed.text_score=true embeds the captions beside them and stores each pair's cosine as image_text_score.
Vectors are L2-normalised and stored as float16. An image that cannot be embedded is a reject.
Stopped half-way, it goes on where it was when started again.

Example:
  spark-submit spark_jobs/embed_images.py --config configs/cc3m.yaml workspace=/data/cocu \\
      clip.name=ViT-B-32 clip.pretrained=/models/vit-b-32.safetensors"""


def check(config: CocuConfig) -> None:
    """What can be wrong before Spark starts."""
    check_clip(config.clip)
    tables.read_manifest(config.workspace, "pairs")


def table_job(config: CocuConfig, profile: ResourceProfile | None = None) -> TableJob:
    """What is to be built, by tasks of this profile."""
    pairs = tables.read_manifest(config.workspace, "pairs")
    # (Tables of before there were scores stay what they are.)
    settings = {
        "clip": clip_settings(config.clip),
        **({"text_score": True} if config.embed.text_score else {}),
    }
    clip = config.clip

    def resume(done: Manifest) -> None:
        nonlocal clip
        settled = _first_with_precision(done.units)
        if settled and clip.precision == "auto":
            clip = replace(clip, precision=settled.extra["precision"])
            print(f"embed_images: goes on in {clip.precision}, as it was begun", flush=True)

    found = units_of(pairs)

    def units() -> list[Unit]:
        more = (clip, config.embed, settings["clip"]["weights"])
        return [replace(unit, payload=(*unit.payload, *more)) for unit in found]

    return TableJob(
        job="embed_images",
        table="image_embeddings",
        settings=settings,
        inputs={"pairs": pairs.recipe},
        units=units,
        task=embed_unit,
        common=settings,
        contents={unit.name: unit.content for unit in found},
        what="images",
        profile=profile,
        resume=resume,
        accept=insist_on_one_precision,
        finish=_note_precision,
        expected=len(found),
    )


def run(session: SparkSession, config: CocuConfig) -> Manifest:
    """Build image_embeddings."""
    return build_table(session, config, table_job(config, gpu_profile(session)))


def embed_unit(unit: Unit, folder: str, recipe: str) -> UnitRecord:
    """Embed one part of `pairs` (runs on an executor)."""
    address, clip_config, options, weights = unit.payload
    clip = clip_here(clip_config, weights)
    rows = tables.read_file(address, ["key", "image", *(["caption"] if options.text_score else [])])
    keys = rows.column("key")
    images = (memoryview(value.as_buffer()) for chunk in rows.column("image").chunks for value in chunk)
    good, vectors, bad = embed_pixels(clip, decoded(clip, images, options), images_a_pass(clip, options))
    names = keys.to_pylist() if bad else []
    rejects = [RejectedRow(names[row], "embed_images", reason, detail) for row, reason, detail in bad]
    columns = {
        "key": keys.take(pa.array(good, pa.int64())) if bad else keys,
        "embedding": vectors_to_column(vectors, clip.dimension),
    }
    if options.text_score:
        captions = rows.column("caption").take(pa.array(good, pa.int64())).to_pylist()
        columns["image_text_score"] = pa.array(text_scores(clip, vectors, captions))
    table = pa.table(columns)
    extra = {"precision": clip.precision, "host": socket.gethostname()}
    return finish_unit(unit, folder, recipe, table, rejects, extra=extra)


def planned(config: CocuConfig) -> list[TableJob]:
    """What is to be built, once the tables that are read are there."""
    return [table_job(config)]


def plan(config: CocuConfig) -> str:
    """What `--plan` prints."""
    return plan_text(config, "embed_images", [("embed_images", planned)])


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


def text_scores(clip: Clip, vectors: np.ndarray, captions: Sequence[str]) -> np.ndarray:
    """Cosine of each image's vector, float16 (n, d) of length 1, with its caption's: float32 (n,)."""
    texts = clip.encode_texts(captions)
    return np.einsum("nd,nd->n", vectors.astype(np.float32), texts, dtype=np.float32)


def main() -> None:
    """Entry of spark-submit."""
    from spark_jobs.engine.entry import job_entry

    job_entry("embed_images", HELP, ["clip", "embed"], check, run, plan)


if __name__ == "__main__":
    from spark_jobs.embed_images import (
        main as entry,  # by its import name, so that executors find the task's function
    )

    entry()

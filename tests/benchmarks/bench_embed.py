"""How fast images are embedded, beside the model's forward pass alone.

Pictures of 341 x 256 pixels as ingest stores them; a model with random weights (default: ViT-B-32, whose
forward pass is the shortest of the CLIPs, so that everything else weighs most); fp32 unless asked, one core.
Rates are of CPU time, so that other work on the machine shows less, and the two take turns.

- bare forward: the model on tensors that are decoded and normalised already
- task: what a Spark task of embed_images does, from the Parquet part to the written vectors

With ``--spark CORES`` the whole job too, on a real Spark, by the clock and after start-up: that figure says
something only on a machine with nothing else to do.

``python -m tests.benchmarks.bench_embed [--model ViT-B-32] [--images 512] [--rounds 3] [--spark 2] [--out FILE.json]``
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from safetensors.torch import save_file

import models  # noqa: F401  (before open_clip)
from configs.schema import ClipConfig, CocuConfig, EmbedConfig, SparkConfig
from corpora.ingest_shard import PAIRS_SCHEMA
from models.clip import Clip, clip_fingerprint, load_clip
from spark_jobs import embed_images
from storage import tables
from storage.tables import Manifest
from storage.units import Part, Unit, UnitRecord
from tests.benchmarks.record import Entry, record
from tests.corpora.ingest_inputs import encode


def write_model(name: str, path: Path, precision: str = "fp32") -> ClipConfig:
    """A checkpoint with random weights, as a user's local one."""
    import open_clip

    torch.manual_seed(0)
    model = open_clip.create_model(name, pretrained=None)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    return ClipConfig(name, str(path), precision)


def pictures(count: int) -> list[bytes]:
    """JPEGs with about as much detail as photos have (some 40 KB each)."""
    source = np.random.default_rng(0)
    made = []
    for _ in range(count):
        coarse = Image.fromarray(source.integers(0, 255, (24, 32, 3), dtype=np.uint8)).resize((341, 256))
        fine = np.asarray(coarse).astype(np.int16) + source.integers(-12, 12, (256, 341, 3))
        made.append(encode(Image.fromarray(fine.clip(0, 255).astype(np.uint8))))
    return made


def write_pairs(workspace: Path, images: list[bytes], rows: int) -> Manifest:
    """A complete table of pairs in parts of ``rows``."""
    records = []
    for start in range(0, len(images), rows):
        some = images[start : start + rows]
        size, name = len(some), f"bench/0-{start // rows:05d}"
        keys = [f"bench/0/{start + n}" for n in range(size)]
        columns = [keys, ["bench"] * size, some, ["a caption"] * size, [341] * size, [256] * size]
        table = pa.table(columns, schema=PAIRS_SCHEMA)
        file = tables.part_path("r", name, 0)
        tables.write_part(str(workspace / "pairs"), file, table, PAIRS_SCHEMA, row_group_rows=256)
        records.append(UnitRecord(name, (Part(name, file, size),), size))
    manifest = Manifest("pairs", str(workspace), "ingest", "r", {}, {}, {}, "0", "complete", records)
    tables.write_manifest(manifest)
    return manifest


def bare_forward(clip: Clip, batches: list[torch.Tensor]) -> None:
    """The model alone."""
    with torch.inference_mode():
        for batch in batches:
            clip.model.encode_image(batch)


def cpu_seconds(work: Callable[[], object]) -> float:
    """Of all threads of this process."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(name: str, count: int, rounds: int, work: Path, precision: str) -> dict[str, float]:
    """Both rates on one core, each the best of some rounds."""
    config = write_model(name, work / "model.safetensors", precision)
    clip = load_clip(config)
    manifest = write_pairs(work, pictures(count), count)
    payload = (manifest.files[0], config, EmbedConfig(threads=1), clip_fingerprint(config))
    unit = Unit("bench/0-00000", count, payload)
    pixels = torch.randn(64, 3, *clip.image_size).to(clip.dtype)
    batches = [pixels] * (count // 64)
    bare_forward(clip, batches[:1])
    bare, task = [], []
    for _ in range(rounds):
        bare.append(cpu_seconds(lambda: bare_forward(clip, batches)))
        task.append(cpu_seconds(lambda: embed_images.embed_unit(unit, str(work / "out"), "r")))
    figures = {
        "bare forward, images/s": 64 * len(batches) / min(bare),
        "task, images/s": count / min(task),
    }
    figures["task over bare forward"] = figures["task, images/s"] / figures["bare forward, images/s"]
    return figures


def measure_spark(name: str, count: int, cores: int, work: Path, precision: str) -> dict[str, float]:
    """The job on ``local[cores]``, after Spark and its workers have started and loaded the model."""
    from spark_jobs.engine.session import open_session

    config = CocuConfig(
        clip=write_model(name, work / "model.safetensors", precision),
        embed=EmbedConfig(threads=1),
        spark=SparkConfig(master=f"local[{cores}]"),
    )
    images = pictures(count)
    session = open_session(config)
    seconds = []
    for run in ("warm", "timed"):
        config.workspace = str(work / run)
        write_pairs(work / run, images, max(1, count // (4 * cores)))
        seconds.append(embed_images.run(session, config).seconds)
    session.stop()
    return {f"whole job on {cores} cores, images/s by the clock": count / seconds[-1]}


def main() -> None:
    """Measure, print, and write what was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="ViT-B-32", help="an open_clip model name")
    parser.add_argument("--images", type=int, default=512, help="a multiple of 64")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--spark", type=int, default=0, metavar="CORES", help="measure the whole job too")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        figures = measure(given.model, given.images, given.rounds, Path(work), given.precision)
    if given.spark:
        with tempfile.TemporaryDirectory() as work:
            figures |= measure_spark(given.model, given.images, given.spark, Path(work), given.precision)
    ratio = figures["task over bare forward"]
    what = f"the bare forward of {given.model} in {given.precision} on decoded tensors, one core"
    entry = "embed_job" if given.precision == "fp32" else f"embed_job_{given.precision}"
    record(Entry(entry, figures["task, images/s"], "images/s", what, ratio, ">= 0.9"))
    for what, value in figures.items():
        print(f"{what:50s} {value:10.3g}")
    if given.out:
        given.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()

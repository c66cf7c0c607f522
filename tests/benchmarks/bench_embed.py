"""How fast images are embedded, beside the model's forward pass alone.

Pictures of 341 x 256 pixels as ingest stores them; a model with random weights (default: ViT-B-32, whose
forward pass is the shortest of the CLIPs, so that everything else weighs most); fp32 unless asked, one core.
Rates are of CPU time, so that other work on the machine shows less, and the two take turns.

- bare forward: the model on tensors that are decoded and normalised already
- task: what a Spark task of embed_images does, from the Parquet part to the written vectors

With ``--decoding`` the other end: a CLIP of 224 pixels whose forward pass costs next to nothing, as on a GPU, so that the task waits
for decoding. It takes turns, by the clock, with decoding alone (open, resize, cut out) in as many threads as there are cores; what the
model and the normalisation of its pixels do, on a GPU else, is added to that, as it takes the same cores here.

With ``--spark CORES`` the whole job too, on a real Spark, by the clock and after start-up: that figure says
something only on a machine with nothing else to do.

``python -m tests.benchmarks.bench_embed [--model ViT-B-32] [--images 512] [--rounds 3] [--decoding] [--spark 2] [--out FILE.json]``
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from safetensors.torch import save_file

import models  # noqa: F401  (before open_clip)
from configs.processors import cores
from configs.schema import ClipConfig, CocuConfig, EmbedConfig, SparkConfig
from corpora.ingest_shard import PAIRS_SCHEMA
from models.clip import Clip, clip_fingerprint, load_clip
from spark_jobs import embed_images
from storage import tables
from storage.tables import Manifest
from storage.units import Part, Unit, UnitRecord
from tests.benchmarks.record import Entry, record
from tests.corpora.ingest_inputs import encode

SMALL_CLIP = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 224, "layers": 1, "width": 64, "patch_size": 32, "head_width": 64},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
}


def write_model(name: str, path: Path, precision: str = "fp32") -> ClipConfig:
    """A checkpoint with random weights, as a user's local one."""
    import open_clip

    torch.manual_seed(0)
    if name.endswith(".json"):
        open_clip.add_model_config(name)
    model = open_clip.create_model(Path(name).stem, pretrained=None)
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


def measure_decoding(count: int, rounds: int, work: Path) -> dict[str, float]:
    """Images/s of a task whose model is nearly free, at all cores by the clock, and what decoding leaves of them at most."""
    small = work / "small-clip.json"
    small.write_text(json.dumps(SMALL_CLIP))
    config = write_model(str(small), work / "model.safetensors")
    clip, options, images = load_clip(config), EmbedConfig(threads=cores()), pictures(count)
    manifest = write_pairs(work, images, count)
    unit = Unit("bench/0-00000", count, (manifest.files[0], config, options, clip_fingerprint(config)))

    def opened(data: bytes) -> object:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            return clip.prepare(image.convert("RGB"))

    def alone() -> None:
        with ThreadPoolExecutor(cores()) as pool:
            for _ in pool.map(opened, images):
                pass

    pixels = np.random.default_rng(0).integers(0, 255, (64, *clip.image_size, 3), dtype=np.uint8)
    steps: dict[str, Callable[[], object]] = {
        "decoding": alone,
        "model": lambda: [clip.encode_images(pixels) for _ in range(count // 64)],
        "task": lambda: embed_images.embed_unit(unit, str(work / "out"), "r"),
    }
    clock, used = (dict.fromkeys(steps, float("inf")) for _ in range(2))
    for _ in range(rounds):
        for what, step in steps.items():
            start = time.perf_counter()
            spent = cpu_seconds(step)
            clock[what] = min(clock[what], time.perf_counter() - start)
            used[what] = min(used[what], spent)
    # what the model does on a GPU takes the same cores here
    shared = clock["decoding"] * (used["decoding"] + used["model"]) / used["decoding"]
    return {
        "decoding alone, images/s": count / clock["decoding"],
        "decoding and the model's work on the same cores, images/s": count / shared,
        "task, images/s": count / clock["task"],
        "task over both": shared / clock["task"],
        "model, ms of processor an image": 1e3 * used["model"] / count,
    }


def measure_spark(name: str, count: int, slots: int, work: Path, precision: str) -> dict[str, float]:
    """The job on ``local[slots]``, after Spark and its workers have started and loaded the model."""
    from spark_jobs.engine.session import open_session

    config = CocuConfig(
        clip=write_model(name, work / "model.safetensors", precision),
        embed=EmbedConfig(threads=1),
        spark=SparkConfig(master=f"local[{slots}]"),
    )
    images = pictures(count)
    session = open_session(config)
    seconds = []
    for run in ("warm", "timed"):
        config.workspace = str(work / run)
        write_pairs(work / run, images, max(1, count // (4 * slots)))
        seconds.append(embed_images.run(session, config).seconds)
    session.stop()
    return {f"whole job on {slots} cores, images/s by the clock": count / seconds[-1]}


def main() -> None:
    """Measure, print, and write what was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="ViT-B-32", help="an open_clip model name")
    parser.add_argument("--images", type=int, default=512, help="a multiple of 64")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument(
        "--decoding", action="store_true", help="a model that costs nothing, over decoding alone"
    )
    parser.add_argument("--spark", type=int, default=0, metavar="CORES", help="measure the whole job too")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.decoding:
        with tempfile.TemporaryDirectory() as work:
            figures = measure_decoding(given.images, given.rounds, Path(work))
        rate, ratio = figures["task, images/s"], figures["task over both"]
        what = f"decoding alone in {cores()} threads, and {figures['model, ms of processor an image']:.2f} ms of a small model"
        record(Entry("embed_job_decoding", rate, "images/s", what, ratio, ">= 0.8"))
        for what, value in figures.items():
            print(f"{what:60s} {value:10.3g}")
        return
    with tempfile.TemporaryDirectory() as work:
        figures = measure(given.model, given.images, given.rounds, Path(work), given.precision)
    if given.spark:
        with tempfile.TemporaryDirectory() as work:
            figures |= measure_spark(given.model, given.images, given.spark, Path(work), given.precision)
    ratio = figures["task over bare forward"]
    what = f"the bare forward of {given.model} in {given.precision} on decoded tensors, one core"
    entry = "embed_job" if given.precision == "fp32" else f"embed_job_{given.precision}"
    if given.model != parser.get_default("model"):  # its entries stay those of one model
        entry += f"_{given.model}"
    record(Entry(entry, figures["task, images/s"], "images/s", what, ratio, ">= 0.9"))
    for what, value in figures.items():
        print(f"{what:50s} {value:10.3g}")
    if given.out:
        given.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()

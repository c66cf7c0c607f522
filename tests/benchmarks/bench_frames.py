"""The functions for DataFrames beside the jobs whose work they do, on the same rows and cores.

- embed: embed_images on a table of pairs, and ``with_embeddings`` and the UDF on a DataFrame of its part files
- archives: build_archives on a table of embeddings, and ``with_archives`` and the UDF on a DataFrame of its part files

Seconds are of the clock, in a session whose workers are started and have loaded model and index; jobs and functions take
turns. Both write Parquet.

Run: ``python -m tests.benchmarks.bench_frames [--images 512] [--vectors 20000] [--cores 1]``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame

from configs.schema import ArchivesConfig, CocuConfig, EmbedConfig, IndexConfig, SparkConfig
from spark_jobs import build_archives, build_index, embed_images, fit_probe, frames
from spark_jobs.engine.session import open_session
from storage import tables
from tests.benchmarks.bench_embed import pictures, write_model, write_pairs
from tests.benchmarks.record import Entry, record
from tests.curation.synthetic import make_corpus
from tests.spark_jobs.workspaces import write_workspace

_ROUNDS = 3


def in_turn(works: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of each, the medians of some rounds after one that warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(_ROUNDS + 1):
        for name, work in works.items():
            start = time.monotonic()
            work()
            if number:
                seconds[name].append(time.monotonic() - start)
    return {name: statistics.median(found) for name, found in seconds.items()}


def write(frame: DataFrame, folder: Path) -> None:
    """To Parquet, in the place of what was there."""
    frame.write.mode("overwrite").parquet(str(folder))


def embedding(session: Any, model: str, count: int, cores: int, work: Path) -> dict[str, float]:
    """Seconds of the job, the function and the UDF."""
    config = CocuConfig(workspace=str(work), clip=write_model(model, work / "model.safetensors"))
    config.embed, config.overwrite = EmbedConfig(threads=1), ["image_embeddings"]
    manifest = write_pairs(work, pictures(count), max(1, count // (4 * cores)))
    pairs = session.read.parquet(*manifest.files).select("key", "image")
    udf = frames.embed_image(session, config, raw=False)
    plain = frames.with_embeddings(session, config, pairs, raw=False).drop("image")
    return in_turn(
        {
            "job": lambda: embed_images.run(session, config),
            "function": lambda: write(plain, work / "function"),
            "UDF": lambda: write(pairs.select("key", udf("image").alias("embedding")), work / "udf"),
        }
    )


def archiving(session: Any, count: int, work: Path) -> dict[str, float]:
    """The same for archives; an index of inverted lists."""
    corpus = make_corpus(count, d=256, concepts=2000)
    write_workspace(work, {"web": corpus}, rows_per_part=2500)
    config = CocuConfig(workspace=str(work), overwrite=["archives"])
    config.index, config.archives = IndexConfig(kind="ivf"), ArchivesConfig(device="cpu")
    fit_probe.run(session, config)
    build_index.run(session, config)
    images = session.read.parquet(*tables.read_manifest(str(work), "image_embeddings").files)
    udf = frames.concept_archive(session, config)
    plain = frames.with_archives(session, config, images, key="key").drop("embedding")
    return in_turn(
        {
            "job": lambda: build_archives.run(session, config),
            "function": lambda: write(plain, work / "function"),
            "UDF": lambda: write(
                images.select("key", udf("embedding", "key").alias("archive")), work / "udf"
            ),
        }
    )


def main() -> None:
    """Measure, print, and write what was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="ViT-B-32", help="an open_clip model name")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--vectors", type=int, default=20_000)
    parser.add_argument("--cores", type=int, default=1)
    given = parser.parse_args()
    session = open_session(CocuConfig(spark=SparkConfig(master=f"local[{given.cores}]")))
    with tempfile.TemporaryDirectory() as work:
        for name, count, what, measure in (
            ("frames_embed", given.images, "images", lambda place: embedding(session, given.model, given.images, given.cores, place)),
            ("frames_archives", given.vectors, "vectors", lambda place: archiving(session, given.vectors, place)),
        ):  # fmt: skip
            place = Path(work) / name
            place.mkdir()
            seconds = measure(place)
            for other in ("function", "UDF"):
                ratio = seconds["job"] / seconds[other]
                entry = f"{name}_{other.lower()}"
                record(Entry(entry, count / seconds[other], f"{what}/s", "the job's rate", ratio, ">= 0.8"))
    session.stop()


if __name__ == "__main__":
    main()

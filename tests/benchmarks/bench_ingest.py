"""How fast shards are ingested, beside decoding alone, by Pillow and by OpenCV.

JPEGs of web size (default 640 x 480), one thread. Rates are of CPU time, so that other work on the machine
shows less, and all take turns.

- task: what a Spark task of ingest does, from the tar to the written Parquet parts
- Pillow, OpenCV: decode, bring the short side to 256, write a JPEG of the same quality, and nothing else

``python -m tests.benchmarks.bench_ingest [--images 300] [--width 640] [--rounds 3] [--out FILE.json]``
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from configs.schema import CorpusConfig, IngestConfig
from corpora.shards import list_shards
from spark_jobs.ingest import ingest_unit
from storage.units import Unit
from tests.corpora.ingest_inputs import encode, members, write_tar


def pictures(count: int, width: int) -> list[bytes]:
    """JPEGs with about as much detail as photos have."""
    source = np.random.default_rng(0)
    size = (width, width * 3 // 4)
    made = []
    for _ in range(count):
        coarse = Image.fromarray(source.integers(0, 255, (24, 32, 3), dtype=np.uint8)).resize(size)
        fine = np.asarray(coarse).astype(np.int16) + source.integers(-12, 12, (size[1], size[0], 3))
        made.append(encode(Image.fromarray(fine.clip(0, 255).astype(np.uint8)), quality=90))
    return made


def by_pillow(images: list[bytes]) -> None:
    """Decode, resize, encode."""
    for data in images:
        with Image.open(io.BytesIO(data)) as image:
            size = (image.width * 256 // image.height, 256)
            image.draft(None, (2 * size[0], 2 * size[1]))
            small = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
            small.save(io.BytesIO(), "JPEG", quality=95)


def by_opencv(images: list[bytes]) -> None:
    """The same by OpenCV, which averages areas."""
    for data in images:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        height, width = image.shape[:2]
        small = cv2.resize(image, (width * 256 // height, 256), interpolation=cv2.INTER_AREA)
        cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 95])


def rates(works: dict[str, Callable[[], object]], count: int, rounds: int) -> dict[str, float]:
    """Images a CPU second, each the best of some rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            start = time.process_time()
            work()
            seconds[name].append(time.process_time() - start)
    return {name: count / min(found) for name, found in seconds.items()}


def measure(count: int, width: int, rounds: int, work: Path) -> dict[str, float]:
    """All rates and their ratios."""
    images = pictures(count, width)
    files = [m for n, image in enumerate(images) for m in members(f"{n:06d}", image, "a caption of a photo")]
    write_tar(work / "in/00000.tar", files)
    (shard,) = list_shards(CorpusConfig("bench", "webdataset", str(work / "in")))
    unit = Unit("bench/00000", 0, (shard, IngestConfig(threads=1)))
    works: dict[str, Callable[[], object]] = {
        "task": lambda: ingest_unit(unit, str(work / "out"), "r"),
        "Pillow": lambda: by_pillow(images),
        "OpenCV": lambda: by_opencv(images),
    }
    found = rates(works, count, rounds)
    figures = {f"{name}, images/s": rate for name, rate in found.items()}
    figures["task over Pillow"] = found["task"] / found["Pillow"]
    figures["task over OpenCV"] = found["task"] / found["OpenCV"]
    return figures


def main() -> None:
    """Measure, print, and write what was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--width", type=int, default=640, help="pixels; the height is three quarters of it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as work:
        figures = measure(given.images, given.width, given.rounds, Path(work))
    for what, value in figures.items():
        print(f"{what:30s} {value:10.3g}")
    if given.out:
        given.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()

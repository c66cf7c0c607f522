"""What a pair of the training set costs as the corpus grows.

Synthetic ``pairs``, ``archives`` and ``caption_nouns`` of 10,000, 100,000 and (``--rows``) more pairs go through the real
job export_training on local Spark, each size in a process of its own. Captions are halves of photos' captions
(``real-clip/pairs.jsonl``, without it made-up ones) put together at random, archives 8 to 24 concepts of 16,384, and
images a few hundred small JPEGs, over and over: a photo of 256 pixels is some 15 times as large, and copied.

CPU is that of the Python workers, which do all the work, after a small table has started them (they load torch once).
The clock's time includes what Spark needs for jobs and tasks and, on a shared machine, everyone else.

``python -m tests.benchmarks.bench_export [--rows 10000 100000] [--master local[1]] [--work DIR]``
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
from PIL import Image
from pyspark.sql import SparkSession

from configs.loading import load_config
from configs.schema import CocuConfig
from curation.archives import ARCHIVE_SCHEMA
from spark_jobs import export_training
from spark_jobs.engine.session import open_session
from spark_jobs.mining import caption_nouns
from storage import tables
from storage.tables import Manifest
from storage.units import Part, UnitRecord
from tests.benchmarks.bench_scale import PART_ROWS, captions_of_photos, spliced
from tests.benchmarks.record import Entry, record

_CONCEPTS = 16_384
_NAMES = np.array([f"concept {number:05d}" for number in range(_CONCEPTS)])
_COLUMNS = ("key", "concepts", "scores", "clusters")


def write_corpus(workspace: Path, rows: int) -> None:
    """pairs, archives and caption_nouns of so many pairs, a part at a time."""
    said, photos = captions_of_photos(), small_photos(300)
    units: dict[str, list[UnitRecord]] = {"pairs": [], "archives": [], caption_nouns.TABLE: []}
    for number, start in enumerate(range(0, rows, PART_ROWS)):
        random = np.random.default_rng(number)
        count = min(PART_ROWS, rows - start)
        halves = random.integers(len(said), size=(count, 2))
        captions = [spliced(said[first], said[second]) for first, second in halves]
        keys = pa.array([f"web/{number:05d}/{row:06d}" for row in range(count)])
        images = [photos[place] for place in random.integers(len(photos), size=count)]
        parts = {
            "pairs": pa.table({"key": keys, "image": pa.array(images, pa.binary()), "caption": captions}),
            "archives": archives(keys, random),
            caption_nouns.TABLE: pa.table(
                {"key": keys, "nouns": ["\n".join(caption.split()[1::2]) for caption in captions]}
            ),
        }
        name = f"web/{number:05d}-000"
        for table, part in parts.items():
            file = tables.part_path("bench", name, 0)
            tables.write_part(str(workspace / table), file, part, part.schema)
            units[table].append(UnitRecord(name, (Part(name, file, count),), count, made_of=f"bench {name}"))
    for table, records in units.items():
        tables.write_manifest(_manifest(workspace, table, records))


def tell_tagged(config: CocuConfig) -> None:
    """Mark the nouns as those of the captions, as mine_concepts leaves them."""
    nouns = tables.read_manifest(config.workspace, caption_nouns.TABLE)
    pairs = tables.read_manifest(config.workspace, "pairs")
    marks = caption_nouns.table_job(pairs, config.concepts.max_words).marks
    records = [UnitRecord(unit.unit, unit.parts, unit.rows_in, made_of=marks[unit.unit]) for unit in nouns.units]  # fmt: skip
    tables.write_manifest(_manifest(Path(config.workspace), caption_nouns.TABLE, records))
    if len(caption_nouns.tagged_parts(config, pairs)) != len(records):
        raise AssertionError("the nouns are not found")


def _manifest(workspace: Path, table: str, units: list[UnitRecord]) -> Manifest:
    return Manifest(
        table=table, workspace=str(workspace), job="bench", recipe=table, settings={}, inputs={}, config={},
        version="bench", status="complete", units=units,
    )  # fmt: skip


def archives(keys: pa.Array, random: np.random.Generator) -> pa.Table:
    """Archives of 8 to 24 concepts, frequent ones more often."""
    edges = np.concatenate([[0], np.cumsum(random.integers(8, 25, len(keys)))]).astype(np.int32)
    which = (_CONCEPTS * random.random(edges[-1]) ** 3).astype(np.int64)
    scores = random.random(edges[-1], np.float32)
    clusters = random.integers(0, 8, edges[-1]).astype(np.int16)
    columns = [keys]
    for values in (_NAMES[which], scores, clusters):
        columns.append(pa.ListArray.from_arrays(pa.array(edges), pa.array(values)))
    return pa.table(columns, schema=pa.schema([ARCHIVE_SCHEMA.field(name) for name in _COLUMNS]))


def small_photos(count: int) -> list[bytes]:
    """JPEGs of about a kilobyte."""
    random = np.random.default_rng(0)
    made = []
    for _ in range(count):
        coarse = Image.fromarray(random.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize((64, 48))
        stream = io.BytesIO()
        coarse.save(stream, "JPEG", quality=60)
        made.append(stream.getvalue())
    return made


class WorkerTime(threading.Thread):
    """Processor time of the Python processes below this one, read until it is stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.stopped = threading.Event()
        self._before = self._read()
        self._now = dict(self._before)

    def run(self) -> None:
        """Every half second, as workers may end."""
        while not self.stopped.wait(0.5):
            self._now.update(self._read())

    def seconds(self) -> float:
        """Since the start."""
        self.stopped.set()
        self.join()
        self._now.update(self._read())
        return sum(seconds - self._before.get(pid, 0.0) for pid, seconds in self._now.items())

    def _read(self) -> dict[int, float]:
        found = {}
        for process in psutil.Process().children(recursive=True):
            try:
                if process.name().startswith("python"):
                    times = process.cpu_times()
                    found[process.pid] = times.user + times.system
            except psutil.Error:  # it has ended
                continue
        return found


def measure(rows: int, master: str, folder: Path) -> dict[str, float]:
    """Everything of one size."""
    settings = [f"spark.master={master}", "corpora=[{name: web, path: none}]"]
    configs = [load_config(None, [f"workspace={folder / name}", *settings]) for name in ("first", "table")]
    session = open_session(configs[0])
    try:
        _export(session, configs[0], 2 * PART_ROWS)  # starts the workers
        return _export(session, configs[1], rows)
    finally:
        session.stop()


def _export(session: SparkSession, config: CocuConfig, rows: int) -> dict[str, float]:
    write_corpus(Path(config.workspace), rows)
    tell_tagged(config)
    watch, driver, started = WorkerTime(), time.process_time(), time.monotonic()
    watch.start()
    made = export_training.run(session, config)
    seconds, used, workers = time.monotonic() - started, time.process_time() - driver, watch.seconds()
    if made.rows != rows:
        raise AssertionError(f"{made.rows} rows of {rows}")
    written = sum(path.stat().st_size for path in Path(made.folder).rglob("*.parquet"))
    return {
        "rows": rows,
        "export, us CPU a pair": 1e6 * workers / rows,
        "export, us a pair": 1e6 * seconds / rows,
        "driver, us CPU a pair": 1e6 * used / rows,
        "driver, MB": psutil.Process().memory_info().rss / 2**20,
        "training set, bytes a pair": written / rows,
    }


def _in_a_process(given: argparse.Namespace, rows: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=given.work) as folder:
        command = [sys.executable, "-m", "tests.benchmarks.bench_export", "--one", folder]
        subprocess.run([*command, "--rows", str(rows), "--master", given.master], check=True)
        return json.loads((Path(folder) / "figures.json").read_text())


def main() -> None:
    """Measure each size, print a table with ratios to the first, and record the last's."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--master", default="local[1]")
    parser.add_argument("--work", type=Path, help="folder for the tables (default: the temporary one)")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        (rows,) = given.rows
        figures = measure(rows, given.master, given.one)
        (given.one / "figures.json").write_text(json.dumps(figures))
        return
    found = [_in_a_process(given, rows) for rows in given.rows]
    for name in found[0]:
        values = [entry[name] for entry in found]
        ratio = "" if name == "rows" else f"   x {values[-1] / values[0]:.2f}"
        print(f"{name:28s}" + "".join(f"{value:14,.1f}" for value in values) + ratio)
    first, last = (entry["export, us CPU a pair"] for entry in (found[0], found[-1]))
    sizes = f"{given.rows[0]:,} pairs instead of {given.rows[-1]:,}; images of 1 KB, {given.master}"
    record(Entry("scale_export", last, "us CPU a pair", sizes, last / first, "<= 1.3"))


if __name__ == "__main__":
    main()

"""What a pair costs as the corpus grows, what the driver needs, and how often a host holds the index.

Synthetic tables of 10,000, 100,000 and (``--rows``) more pairs go through the real jobs build_index and
build_archives (the paper's ranking, which needs no probe) on local Spark, each size in a process of its own. While archives are built, the processes'
memory maps are read: pages of the index that are resident, counted once however many processes share them
(proportional set size), over the index' size: one copy or less, whatever the number of workers.

CPU is that of the Python workers, which do all the work; wall-clock time includes what Spark needs to start jobs
and tasks and, on a shared machine, everyone else.

``python -m tests.benchmarks.bench_scale [--rows 10000 100000] [--asked N] [--kind auto] [--out FILE.json]``
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

from configs.loading import load_config
from spark_jobs import build_archives, build_index
from spark_jobs.engine.index_search import search_quality
from spark_jobs.engine.session import open_session
from storage import tables
from storage.tables import Manifest
from storage.units import Part, UnitRecord
from storage.vectors import vectors_to_column
from tests.benchmarks.clip_like import clip_like, source_of_vectors
from tests.benchmarks.record import Entry, record
from tests.curation.synthetic import unit

CONCEPTS, PER_CAPTION, PART_ROWS = 4_000, 4, 2_500


def write_corpus(workspace: Path, rows: int, asked: int, groups: int = 500) -> None:
    """image_embeddings, pair_concepts and concepts of so many pairs, a part at a time.

    The groups are the same whatever the number of rows, so that a larger corpus is a denser sample. The first
    ``asked`` rows are corpus `web`, which is curated; the others, corpus `rest`, are in the index only.
    """
    shared = np.random.default_rng(0)
    centres, d = clip_like(groups, seed=1_000_000).astype(np.float32), clip_like(1).shape[1]
    words = unit(shared.standard_normal((CONCEPTS, d), np.float32) + np.float32(1 / np.sqrt(d)))
    images, captions = [], []
    for number, start in enumerate(range(0, rows, PART_ROWS)):
        random = np.random.default_rng(number + 1)
        count = min(PART_ROWS, rows - start)
        vectors = clip_like(count, seed=number)
        group = np.argmax(vectors.astype(np.float32) @ centres.T, axis=1)
        ids = (group[:, None] * 8 + random.integers(24, size=(count, PER_CAPTION))) % CONCEPTS
        corpus = "web" if start < asked else "rest"
        keys = pa.array([f"{corpus}/{number:05d}/{row:06d}" for row in range(count)])
        lists = pa.ListArray.from_arrays(
            pa.array(np.arange(0, ids.size + 1, PER_CAPTION, dtype=np.int32)), pa.array(_distinct(ids))
        )
        name = f"{corpus}/{number:05d}-000"
        columns = {"key": keys, "embedding": vectors_to_column(vectors, d)}
        images.append(_write(workspace, "image_embeddings", name, pa.table(columns)))
        captions.append(
            _write(workspace, "pair_concepts", name, pa.table({"key": keys, "concept_ids": lists}))
        )
    concepts = pa.table(
        {
            "concept_id": pa.array(np.arange(CONCEPTS, dtype=np.int32)),
            "concept": [f"concept {number}" for number in range(CONCEPTS)],
            "count": pa.array(np.ones(CONCEPTS, np.int64)),
            "embedding": vectors_to_column(words.astype(np.float16), d),
            "cosine_mean": pa.array(np.zeros(CONCEPTS, np.float32)),
            "cosine_std": pa.array(np.ones(CONCEPTS, np.float32)),
        }
    )
    _finish(workspace, "image_embeddings", images)
    _finish(workspace, "pair_concepts", captions)
    _finish(workspace, "concepts", [_write(workspace, "concepts", "concepts/00000", concepts)])


def _distinct(ids: np.ndarray) -> np.ndarray:
    """Concepts of a row made different, int32, flat."""
    return ((np.sort(ids, axis=1) + np.arange(ids.shape[1])) % CONCEPTS).astype(np.int32).ravel()


def _write(workspace: Path, table: str, name: str, rows: pa.Table) -> UnitRecord:
    file = tables.part_path("bench", name, 0)
    tables.write_part(str(workspace / table), file, rows, rows.schema)
    return UnitRecord(name, (Part(name, file, len(rows)),), len(rows))


def _finish(workspace: Path, table: str, units: list[UnitRecord]) -> None:
    manifest = Manifest(
        table=table, workspace=str(workspace), job="bench", recipe=table, settings={}, inputs={}, config={},
        version="bench", status="complete", units=units,
    )  # fmt: skip
    tables.write_manifest(manifest)


class MemoryWatch(threading.Thread):
    """Reads the memory maps of this process' descendants until it is stopped."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder, self.stopped = str(folder), threading.Event()
        self.copies, self.workers, self.private_mb, self.driver_mb = 0.0, 0, 0.0, 0.0
        self.cpu: dict[int, float] = {}
        self.cpu_before = {
            process.pid: _cpu(process) for process in psutil.Process().children(recursive=True)
        }
        self.bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    def run(self) -> None:
        """Every half second."""
        while not self.stopped.wait(0.5):
            shared, workers = 0.0, 0
            for process in psutil.Process().children(recursive=True):
                mapped, private = self._of(process)
                if mapped:
                    workers += 1
                    self.cpu[process.pid] = _cpu(process)
                    shared += mapped
                    self.private_mb = max(self.private_mb, private / 2**20)
            self.copies = max(self.copies, shared / self.bytes)
            self.workers = max(self.workers, workers)
            self.driver_mb = max(self.driver_mb, psutil.Process().memory_info().rss / 2**20)

    @property
    def cpu_seconds(self) -> float:
        """Of the processes that map the index, since the start."""
        return sum(seconds - self.cpu_before.get(pid, 0.0) for pid, seconds in self.cpu.items())

    def _of(self, process: psutil.Process) -> tuple[float, float]:
        """Proportional bytes of the index' files in a process, and bytes of its own."""
        try:
            lines = Path(f"/proc/{process.pid}/smaps").read_text().splitlines()
        except OSError:  # it has ended
            return 0.0, 0.0
        mapped, own, inside = 0.0, 0.0, False
        for line in lines:
            name, *values = line.split()
            if not name.endswith(":"):
                inside = self.folder in line
            elif name == "Pss:" and inside:
                mapped += 1024 * int(values[0])
            elif name == "Anonymous:" and not inside:
                own += 1024 * int(values[0])
        return mapped, own


def _cpu(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:  # it has ended
        return 0.0
    return times.user + times.system


def measure(rows: int, asked: int, kind: str, workspace: Path) -> dict[str, Any]:
    """Everything of one size."""
    write_corpus(workspace, rows, asked)
    config = load_config(
        None,
        [
            f"workspace={workspace}",
            f"index.kind={kind}",
            "archives.device=cpu",
            "archives.ranking=paper",
            "spark.master=local[2]",
            "corpora=[{name: web, path: none}, {name: rest, path: none}]",
            "archives.corpora=[web]",
        ],
    )
    session = open_session(config)
    try:
        index = build_index.run(session, config)
        quality = search_quality(session, config, index)
        watch = MemoryWatch(Path(os.path.realpath(workspace / "index" / index.extra["folder"])))
        watch.start()
        started = time.monotonic()
        archives = build_archives.run(session, config)
        seconds = time.monotonic() - started
        watch.stopped.set()
        watch.join()
    finally:
        session.stop()
    described = index.extra["index"]
    return {
        "rows": rows,
        "curated": archives.rows,
        "kind": described["kind"],
        "nprobe": quality.nprobe,
        "recall": quality.recall,
        "index, us a pair": 1e6 * index.seconds / rows,
        "archives, us a pair": 1e6 * seconds / archives.rows,
        "archives, us CPU a pair": 1e6 * watch.cpu_seconds / archives.rows,
        "index, MB": watch.bytes / 2**20,
        "resident copies": watch.copies,
        "workers": watch.workers,
        "worker's own, MB": watch.private_mb,
        "driver, MB": watch.driver_mb,
    }


def _sizes(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for rows in given.rows:
        with tempfile.TemporaryDirectory(dir=given.work) as folder:
            out = Path(folder) / "figures.json"
            command = [sys.executable, "-m", "tests.benchmarks.bench_scale", "--one", folder]
            command += [
                "--rows",
                str(rows),
                "--asked",
                str(given.asked),
                "--kind",
                given.kind,
                "--out",
                str(out),
            ]
            subprocess.run(command, check=True)
            yield json.loads(out.read_text())


def main() -> None:
    """Measure each size, print a table with ratios to the first, and write what was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--asked", type=int, default=10**12, help="how many of them are curated")
    parser.add_argument("--kind", default="auto", choices=["auto", "flat", "ivf"])
    parser.add_argument(
        "--work", type=Path, help="folder for the tables (default: the system's temporary one)"
    )
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.one:
        (rows,) = given.rows
        given.out.write_text(json.dumps(measure(rows, min(rows, given.asked), given.kind, given.one)))
        return
    figures = list(_sizes(given))
    for name in figures[0]:
        values = [entry[name] for entry in figures]
        shown = [f"{value:12,.3g}" if isinstance(value, float) else f"{value:>12}" for value in values]
        ratio = (
            f"   x {values[-1] / values[0]:.2f}"
            if "us a pair" in name or "CPU" in name or "driver" in name
            else ""
        )
        print(f"{name:24s}" + "".join(shown) + ratio)
    first, last = (entry["archives, us CPU a pair"] for entry in (figures[0], figures[-1]))
    sizes = f"{figures[0]['rows']:,} pairs instead of {figures[-1]['rows']:,}; {source_of_vectors()}"
    record(Entry("scale_archives", last, "us of the workers a pair", sizes, last / first, "<= 1.3"))
    if given.out:
        given.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()

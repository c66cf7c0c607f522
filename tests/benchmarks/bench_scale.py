"""What a pair costs as the corpus grows, what the driver needs, and how often a host holds the index.

Synthetic tables of 10,000, 100,000 and (``--rows``) more pairs go through the real jobs mine_concepts, build_index
and build_archives (the paper's ranking, which needs no probe) on local Spark, each size in a process of its own:
vectors as ``clip_like`` makes them, and halves of photos' captions (``real-clip/pairs.jsonl``, without it made-up
ones) put together at random. While
archives are built, the processes' memory maps are read: pages of the index that are resident, counted once however
many processes share them (proportional set size), over the index' size: one copy or less, whatever the number of
workers. ``--more N`` then adds N pairs and builds again what they need: what a new shard costs beside a large corpus.

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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
from pyspark.sql import SparkSession

from configs.loading import load_config
from configs.schema import CocuConfig
from spark_jobs import build_archives, build_index, mine_concepts
from spark_jobs.engine.index_search import search_quality
from spark_jobs.engine.session import open_session
from storage import tables
from storage.growth import GROWN_FROM
from storage.tables import Manifest
from storage.units import Part, UnitRecord
from storage.vectors import vectors_to_column
from tests.benchmarks.clip_like import D, clip_like, source_of_vectors
from tests.benchmarks.record import Entry, record
from tests.harness import write_tiny_clip

PART_ROWS = 2_500


def write_corpus(workspace: Path, rows: int, asked: int, grown_from: int = 0) -> None:
    """pairs and image_embeddings of so many pairs, a part at a time.

    The first ``asked`` rows are corpus `web`, which is curated; the others, corpus `rest`, are in the index only.
    ``grown_from``: the tables are those of so many pairs, and the rest was added.
    """
    captions = captions_of_photos()
    records: dict[str, list[UnitRecord]] = {"pairs": [], "image_embeddings": []}
    for number, start in enumerate(range(0, rows, PART_ROWS)):
        random = np.random.default_rng(number + 1)
        count = min(PART_ROWS, rows - start)
        corpus = "web" if start < asked else "rest"
        name = f"{corpus}/{number:05d}-000"
        keys = pa.array([f"{corpus}/{number:05d}/{row:06d}" for row in range(count)])
        vectors = clip_like(count, seed=number)
        halves = random.integers(len(captions), size=(count, 2))
        told = pa.array([spliced(captions[first], captions[second]) for first, second in halves])
        parts = {
            "pairs": pa.table({"key": keys, "caption": told}),
            "image_embeddings": pa.table(
                {"key": keys, "embedding": vectors_to_column(vectors, vectors.shape[1])}
            ),
        }
        for table, part in parts.items():
            there = start + count <= grown_from
            records[table].append(_record(name, count) if there else _write(workspace, table, name, part))
    for table, units in records.items():
        _finish(workspace, table, units, grown=grown_from > 0)


def spliced(first: str, second: str) -> str:
    """The first half of one caption and the second of another: hardly any comes twice, as on the web."""
    begin, end = first.split(), second.split()
    return " ".join([*begin[: len(begin) // 2], *end[len(end) // 2 :]])


def captions_of_photos() -> list[str]:
    """Real ones where ``COCU_REAL_DATA`` is, else made-up ones."""
    path = Path(os.environ.get("COCU_REAL_DATA") or ".") / "real-clip" / "pairs.jsonl"
    if path.is_file():
        pairs = [json.loads(line) for line in path.open(encoding="utf-8")]
        return [text for pair in pairs for text in (pair["caption"], *pair.get("other_captions", ()))]
    random = np.random.default_rng(0)
    words = "dog cat tree car boat house river bird horse flower kite table beach street window chair".split()
    return [
        f"a {words[a]} and two {words[b]}s by the {words[c]}"
        for a, b, c in random.integers(len(words), size=(5000, 3))
    ]


def _write(workspace: Path, table: str, name: str, rows: pa.Table) -> UnitRecord:
    record = _record(name, len(rows))
    tables.write_part(str(workspace / table), record.parts[0].file, rows, rows.schema)
    return record


def _record(name: str, rows: int) -> UnitRecord:
    return UnitRecord(
        name, (Part(name, tables.part_path("bench", name, 0), rows),), rows, made_of=f"bench {name}"
    )


def _finish(workspace: Path, table: str, units: list[UnitRecord], grown: bool) -> None:
    manifest = Manifest(
        table=table, workspace=str(workspace), job="bench", recipe=f"{table}{'-grown' if grown else ''}", settings={},
        inputs={}, config={}, version="bench", status="complete", units=units,
        extra={GROWN_FROM: [table]} if grown else {},
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
        """Every half second, and once more at the end: workers that are idle have used what they used."""
        stopped = False
        while not stopped:
            stopped = self.stopped.wait(0.5)
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


def measure(rows: int, asked: int, more: int, kind: str, workspace: Path) -> dict[str, Any]:
    """Everything of one size."""
    write_corpus(workspace, rows, asked)
    name, weights = write_tiny_clip(workspace / "clip", embed_dim=D)
    config = load_config(
        None,
        [
            f"workspace={workspace}",
            f"index.kind={kind}",
            f"clip.name={name}",
            f"clip.pretrained={weights}",
            f"concepts.min_count={max(2, rows // 5000)}",
            "archives.device=cpu",
            "archives.ranking=paper",
            "spark.master=local[2]",
            "corpora=[{name: web, path: none}, {name: rest, path: none}]",
            "archives.corpora=[web]",
        ],
    )
    session = open_session(config)
    try:
        mine_concepts.run(session, config)
        mining = _seconds(workspace, "caption_nouns", "concepts", "pair_concepts")
        index = build_index.run(session, config)
        quality = search_quality(session, config, index)
        watch = MemoryWatch(Path(os.path.realpath(workspace / "index" / "_parts")))
        watch.start()
        started = time.monotonic()
        archives = build_archives.run(session, config)
        seconds = time.monotonic() - started
        watch.stopped.set()
        watch.join()
        added = _added(session, config, workspace, rows, more) if more else None
    finally:
        session.stop()
    described = index.extra["index"]
    return {
        "rows": rows,
        "curated": archives.rows,
        "kind": described["kind"],
        "nprobe": quality.nprobe,
        "recall": quality.recall,
        "all three, s": mining + index.seconds + seconds,
        "mining, us a pair": 1e6 * mining / rows,
        "index, us a pair": 1e6 * index.seconds / rows,
        "archives, us a pair": 1e6 * seconds / archives.rows,
        "archives, us CPU a pair": 1e6 * watch.cpu_seconds / archives.rows,
        "index, MB": watch.bytes / 2**20,
        "resident copies": watch.copies,
        "workers": watch.workers,
        "worker's own, MB": watch.private_mb,
        "driver, MB": watch.driver_mb,
        **({} if added is None else {"added pairs, s": added}),
    }


def _run(job: Any, session: SparkSession, config: CocuConfig) -> float:
    """Seconds that a job takes."""
    started = time.monotonic()
    job.run(session, config)
    return time.monotonic() - started


def _seconds(workspace: Path, *names: str) -> float:
    return sum(tables.read_manifest(str(workspace), name).seconds for name in names)


def _added(session: SparkSession, config: CocuConfig, workspace: Path, rows: int, more: int) -> float:
    """Seconds of mining, index and archives of ``more`` pairs beside ``rows``."""
    write_corpus(workspace, rows + more, 10**12, grown_from=rows)
    return sum(_run(job, session, config) for job in (mine_concepts, build_index, build_archives))


def _sizes(given: argparse.Namespace, sizes: Sequence[int], more: int) -> Iterator[dict[str, Any]]:
    for rows in sizes:
        with tempfile.TemporaryDirectory(dir=given.work) as folder:
            out = Path(folder) / "figures.json"
            command = [sys.executable, "-m", "tests.benchmarks.bench_scale", "--one", folder]
            command += [
                "--rows",
                str(rows),
                "--asked",
                str(given.asked),
                "--more",
                str(more),
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
    parser.add_argument(
        "--more", type=int, default=0, help="pairs that are added afterwards, for example 2500"
    )
    parser.add_argument("--kind", default="auto", choices=["auto", "flat", "ivf"])
    parser.add_argument(
        "--work", type=Path, help="folder for the tables (default: the system's temporary one)"
    )
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.one:
        (rows,) = given.rows
        figures = measure(rows, min(rows, given.asked), given.more, given.kind, given.one)
        given.out.write_text(json.dumps(figures))
        return
    figures = list(_sizes(given, given.rows, given.more))
    for name in figures[0]:
        values = [entry[name] for entry in figures]
        shown = [f"{value:12,.3g}" if isinstance(value, float) else f"{value:>12}" for value in values]
        ratio = (
            f"   x {values[-1] / values[0]:.2f}"
            if "us a pair" in name or "CPU" in name or "driver" in name
            else ""
        )
        print(f"{name:24s}" + "".join(shown) + ratio)
    sizes = f"{figures[0]['rows']:,} pairs instead of {figures[-1]['rows']:,}; {source_of_vectors()}"
    for name, column in (("scale_archives", "archives, us CPU a pair"), ("scale_mine", "mining, us a pair")):
        first, last = (entry[column] for entry in (figures[0], figures[-1]))
        record(Entry(name, last, column.partition(", ")[2], sizes, last / first, "<= 1.3"))
    if given.more:
        (alone,) = _sizes(given, [given.more], 0)
        beside = f"{given.more:,} pairs alone, from {alone['all three, s']:.1f} s to added to {figures[-1]['rows']:,}"
        seconds = figures[-1]["added pairs, s"]
        record(Entry("incremental_shard", seconds, "s", beside, seconds / alone["all three, s"], "<= 1.3"))
    if given.out:
        given.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()

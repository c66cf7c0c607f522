"""What a job asks of a store before its first task, and what committing a wave costs beside what is committed.

- ``store_start``: requests a shard to an S3 server on loopback (moto's) until the units of ingest are known: the check
  before Spark starts and all that is asked before the first task; and once more where everything is done, the whole
  job. Shards lie in folders of a hundred (below 32 wanted of a folder it is not listed: ``--folder 20``) and are
  found by braces, and by a glob. The lock's requests and the manifest's at the end, a fixed number, are left out.
- ``manifest_commit``: processor time of ``commit_wave`` with few and with many units committed already, on disk, in
  turn; seconds on the clock, of the waves' lines in ``metrics/`` and of the manifest that completes the table are printed.

``python -m tests.benchmarks.bench_store [--shards 400] [--folder 100]
[--units 1000 160000] [--wave 64] [--rounds 40] [--work DIR]``
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast
from unittest import mock

from pyspark.sql import SparkSession

from configs.schema import CocuConfig, CorpusConfig
from spark_jobs import ingest
from storage import tables
from storage.addresses import resolve
from storage.metrics import WaveMetrics
from storage.tables import Manifest
from storage.units import Part, Unit, UnitRecord
from tests.benchmarks.record import Entry, record
from tests.harness.object_store import ObjectStore, object_store

BEFORE = 4.0
"""HEADs a shard when shards were asked for one by one: 3 to 5, one after another."""


def store_start(shards: int, a_folder: int) -> Entry:
    """Requests a shard, the most of the four ways to start."""
    with object_store() as store, mock.patch.dict(os.environ, store.environment):
        filesystem, _ = resolve("s3a://bucket/in")
        for number in range(shards):
            with filesystem.open_output_stream(
                f"bucket/in/{number // a_folder:03d}/{number % a_folder:05d}.tar"
            ) as stream:
                stream.write(b"x" * 1000)
        found: dict[str, int] = {}
        spelled = f"{{000..{shards // a_folder - 1:03d}}}/{{00000..{a_folder - 1:05d}}}.tar"
        for how, pattern in (("braces", spelled), ("a glob", "*/*.tar")):
            corpus = CorpusConfig("web", "webdataset", f"s3a://bucket/in/{pattern}")
            config = CocuConfig(workspace=f"s3a://bucket/{how[-4:]}", corpora=[corpus])
            units, found[f"{how}, first run"] = _asked(store, lambda config=config: _start(config))
            if len(units) != shards:
                raise AssertionError(f"{len(units)} units of {shards} shards")
            _complete(config, units)
            _, found[f"{how}, everything done"] = _asked(store, lambda config=config: _done(config))
    for way, count in found.items():
        print(f"{way:28s} {count:5d} requests for {shards} shards")
    most = max(found.values()) / shards
    what = (
        f"{BEFORE:.0f} HEADs a shard, the middle of what it was; {shards} shards in folders of {a_folder}, "
        "by braces or glob, first run or everything done, whichever asks most"
    )
    return Entry("store_start", most, "requests a shard", what, BEFORE / most, ">= 4")


def _asked(store: ObjectStore, work: Callable[[], list[Unit]]) -> tuple[list[Unit], int]:
    before = len(store.requests)
    return work(), len(store.requests) - before


def _start(config: CocuConfig) -> list[Unit]:
    """What comes before the first task of a first run."""
    ingest.check(config)
    job = ingest.table_job(config)
    tables.find_manifest(config.workspace, job.table)
    tables.read_progress(config.workspace, job.table, job.recipe)
    return list(job.units() if callable(job.units) else job.units)


def _done(config: CocuConfig) -> list[Unit]:
    """The whole job where its table is complete: no session is needed."""
    ingest.check(config)
    ingest.run(cast(SparkSession, None), config)
    return []


def _complete(config: CocuConfig, units: Sequence[Unit]) -> None:
    """The manifest that a finished run leaves behind."""
    job = ingest.table_job(config)
    records = [
        UnitRecord(unit.name, (Part(unit.name, f"_parts/{job.recipe}/x", 10),), 10, made_of=job.marks[unit.name])
        for unit in units
    ]  # fmt: skip
    tables.write_manifest(
        Manifest(
            table=job.table, workspace=config.workspace, job=job.job, recipe=job.recipe, settings=job.settings,
            inputs=job.inputs, config={}, version="bench", status="complete", units=records,
        )
    )  # fmt: skip


class Table:
    """A table that is being built, with so many units committed in waves."""

    def __init__(self, workspace: Path, units: int, wave: int) -> None:
        self.manifest = Manifest("pairs", str(workspace), "ingest", "r1", {"a": 1}, {"shards": "x"}, {}, "0")
        self.told = WaveMetrics(str(workspace), self.manifest, units)
        self.wave = wave
        self.metrics: list[float] = []
        while len(self.manifest.units) < units:
            self.commit()
        self.metrics.clear()

    def commit(self) -> tuple[float, float]:
        """Seconds of a wave on the clock, and of the processor."""
        first = len(self.manifest.units)
        records = [_record(number) for number in range(first, first + self.wave)]
        clock, used = time.perf_counter(), time.process_time()
        tables.commit_wave(self.manifest, "run", records)
        seconds = time.perf_counter() - clock, time.process_time() - used
        clock = time.perf_counter()
        self.told.wave(records, 0, 0)
        self.metrics.append(time.perf_counter() - clock)
        return seconds

    def publish(self) -> float:
        """Seconds until the complete table's manifest is written."""
        clock = time.perf_counter()
        self.manifest.status = "complete"
        tables.write_manifest(self.manifest)
        return time.perf_counter() - clock


def _record(number: int) -> UnitRecord:
    name = f"web/{number // 4:05d}-{number % 4:05d}"
    part = Part(name, tables.part_path("0123456789ab", name, f"{number}-0123456789ab"), 2_500)
    return UnitRecord(name, (part,), 2_512, {"unreadable image": 12}, made_of="0123456789ab")


def manifest_commit(few: int, many: int, wave: int, rounds: int, work: Path) -> Entry:
    """Median processor time of a wave beside many units, over that beside few."""
    built = [Table(work / str(units), units, wave) for units in (few, many)]
    times: list[list[tuple[float, float]]] = [[], []]
    for _ in range(rounds):
        for table, seconds in zip(built, times, strict=True):
            seconds.append(table.commit())
    clock, used = (
        [statistics.median(entry[kind] for entry in seconds) for seconds in times] for kind in (0, 1)
    )
    told = [statistics.median(table.metrics) for table in built]
    last = [table.publish() for table in built]
    for name, values in (
        ("a wave, on the clock", clock), ("a wave, processor", used), ("its line in metrics/", told), ("the complete manifest", last)
    ):  # fmt: skip
        print(
            f"{name:28s}"
            + "".join(
                f"   {1000 * value:9.2f} ms at {units:,}"
                for value, units in zip(values, (few, many), strict=True)
            )
        )
    groups = _ratios(times, 4)
    spread = (max(groups) - min(groups)) / statistics.median(groups)
    what = (
        f"{few:,} units committed already instead of {many:,}; waves of {wave}, on disk; "
        f"{1000 * clock[1]:.1f} and {1000 * clock[0]:.1f} ms on the clock"
    )
    return Entry(
        "manifest_commit", 1000 * used[1], "ms of processor a wave", what, used[1] / used[0], "<= 1.3", spread
    )


def _ratios(times: Sequence[Sequence[tuple[float, float]]], groups: int) -> list[float]:
    """Of medians of processor time, of so many groups of rounds."""
    few, many = ([entry[1] for entry in seconds] for seconds in times)
    size = max(1, len(few) // groups)
    starts = range(0, size * min(groups, len(few)), size)
    return [
        statistics.median(many[start : start + size]) / statistics.median(few[start : start + size])
        for start in starts
    ]


def main() -> None:
    """Measure both and write them down."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=int, default=400)
    parser.add_argument("--folder", type=int, default=100, help="shards in each folder")
    parser.add_argument("--units", type=int, nargs=2, default=[1_000, 160_000])
    parser.add_argument("--wave", type=int, default=64, help="units committed together")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--work", type=Path, help="folder for the tables (default: the temporary one)")
    given: Any = parser.parse_args()
    if given.shards % given.folder:
        parser.error("--shards: a multiple of --folder")
    record(store_start(given.shards, given.folder))
    with tempfile.TemporaryDirectory(dir=given.work) as folder:
        record(manifest_commit(*given.units, given.wave, given.rounds, Path(folder)))


if __name__ == "__main__":
    main()

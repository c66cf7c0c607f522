"""What a task costs by itself: processor time of a Python worker for a unit that does nothing.

    python -m tests.benchmarks.bench_task [--tasks 40] [--rounds 3]

Two pools of workers in one Spark application (PySpark keeps one a set of environment variables), used in turn: in
one, tasks end as the engine's do (no finders of zips in Python's cache, modules frozen); in the other as PySpark
leaves them. The time is from a worker's task to its next one, so that it holds what PySpark does in between.
``task_overhead_torch`` is the same in workers that have loaded open_clip, as those of embed_images.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

import pyarrow as pa
from pyspark.sql import SparkSession

from configs.schema import CocuConfig, SparkConfig
from spark_jobs.engine.session import open_session
from spark_jobs.engine.worker_imports import ready_for_next_task
from tests.benchmarks.record import Entry, record


def empty_tasks(session: SparkSession, tasks: int, forget: bool, torch: bool) -> tuple[list[float], float]:
    """Processor milliseconds of each task but a worker's first, and the wall milliseconds of one."""

    def nothing(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for _ in batches:
            yield pa.RecordBatch.from_arrays(
                [pa.array([os.getpid()], pa.int64()), pa.array([time.process_time()])], ["worker", "used"]
            )
        if torch:
            import models.clip  # noqa: F401, I001
            import open_clip  # noqa: F401
        if forget:
            ready_for_next_task()

    session.sparkContext.environment["COCU_BENCH"] = f"{forget} {torch}"
    started = time.monotonic()
    rows = session.range(0, tasks, 1, tasks).mapInArrow(nothing, "worker long, used double").collect()
    wall = (time.monotonic() - started) / tasks
    by_worker: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        by_worker[row["worker"]].append(row["used"])
    spent = [
        1000 * (later - earlier)
        for used in map(sorted, by_worker.values())
        for earlier, later in pairwise(used)
    ]
    return spent, 1000 * wall


def main() -> None:
    """Record the second, and how many times less it is than the first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    session = open_session(CocuConfig(spark=SparkConfig(master="local[2]", app_name="bench-task")))
    for torch in (False, True):
        record(_measured(session, arguments.tasks, arguments.rounds, torch))
    session.stop()


def _measured(session: SparkSession, tasks: int, rounds: int, torch: bool) -> Entry:
    processor: dict[bool, list[float]] = {True: [], False: []}
    wall: dict[bool, list[float]] = {True: [], False: []}
    for forget in (True, False):
        empty_tasks(session, 4, forget, torch)  # starts the workers
    ratios = []
    for _ in range(rounds):
        found = {forget: empty_tasks(session, tasks, forget, torch) for forget in (False, True)}
        for forget, (spent, took) in found.items():
            processor[forget].extend(spent)
            wall[forget].append(took)
        ratios.append(statistics.median(found[False][0]) / statistics.median(found[True][0]))
    before, after = statistics.median(processor[False]), statistics.median(processor[True])
    print(
        "wall ms a task, before and after:",
        [round(statistics.median(wall[forget])) for forget in (False, True)],
    )
    spread = (max(ratios) - min(ratios)) / statistics.median(ratios)
    what = f"the task as PySpark leaves its worker, {before:.0f} ms"
    name = "task_overhead_torch" if torch else "task_overhead"
    return Entry(name, after, "ms of processor", what, before / after, ">= 4", spread)


if __name__ == "__main__":
    main()

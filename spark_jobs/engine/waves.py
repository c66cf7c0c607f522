"""Runs units of work as Spark tasks, a wave at a time.

One Spark task does one unit: it reads its input part files itself (Arrow, from the workspace), writes its
own part file and returns a small record. Neither images nor vectors pass through the JVM or the driver.

Two waves are under way at once (Spark starts the second one's tasks on the slots that the first one's
last tasks leave idle), so a killed driver loses two half-sized waves at most.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict

import pyarrow as pa
from pyspark import InheritableThread, TaskContext
from pyspark.resource import ResourceProfile
from pyspark.sql import SparkSession

from configs.schema import CocuConfig
from spark_jobs.engine.progress import Progress
from spark_jobs.engine.session import task_slots
from spark_jobs.engine.table_job import TableJob
from spark_jobs.engine.task_errors import translated
from spark_jobs.engine.versions import insist_on, versions
from storage import tables
from storage.units import Part, Unit, UnitRecord

__all__ = ["attempt_name", "map_units", "run_waves"]


def run_waves(
    session: SparkSession, config: CocuConfig, job: TableJob, units: Sequence[Unit]
) -> Iterator[list[UnitRecord]]:
    """Records of finished waves, in the order in which they finish."""
    if not units:
        return
    size = config.spark.units_per_wave or max(32, 8 * task_slots(session))
    size = max(1, size // 2)  # two are under way
    waves = [list(units[start : start + size]) for start in range(0, len(units), size)]
    folder = tables.join(config.workspace, job.table)
    recipe, task = job.recipe, job.task

    def work(unit: Unit) -> str:
        started = time.monotonic()
        record = asdict(task(unit, folder, recipe))
        record["seconds"] = round(time.monotonic() - started, 3)
        return json.dumps(record)

    with Progress(job.job, units, job.what) as progress:
        for lines in _overlapped(session, job, waves, work, progress):
            records = []
            for line in lines:
                entry = json.loads(line)
                parts = tuple(Part(**part) for part in entry.pop("parts"))
                records.append(UnitRecord(parts=parts, **entry))
            yield records


def _overlapped(
    session: SparkSession,
    job: TableJob,
    waves: list[list[Unit]],
    work: Callable[[Unit], str],
    progress: Progress,
) -> Iterator[list[bytes]]:
    with ThreadPoolExecutor(2) as pool:
        pending: dict[Future[list[bytes]], list[Unit]] = {}
        remaining = iter(waves)
        try:
            while True:
                while len(pending) < 2 and (wave := next(remaining, None)) is not None:
                    group = f"cocu-{job.job}-{wave[0].name}"
                    progress.watch(session, group, wave)
                    pending[pool.submit(_submit, session, wave, work, job.profile, group)] = wave
                if not pending:
                    return
                finished, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in finished:
                    wave = pending.pop(future)
                    lines = future.result()
                    progress.done(wave)
                    yield lines
        except BaseException:
            for wave in pending.values():
                session.sparkContext.cancelJobGroup(f"cocu-{job.job}-{wave[0].name}")
            raise


def _submit(
    session: SparkSession,
    wave: list[Unit],
    work: Callable[[Unit], str],
    profile: ResourceProfile | None,
    group: str,
) -> list[bytes]:
    result: list[list[bytes]] = []
    failure: list[BaseException] = []

    def run() -> None:
        session.sparkContext.setJobGroup(group, group, interruptOnCancel=True)
        try:
            result.append(map_units(session, wave, work, profile))
        except BaseException as error:  # handed to the caller's thread
            failure.append(error)

    thread = InheritableThread(target=run)  # a JVM thread of its own, so that the job group is this wave's
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def map_units(
    session: SparkSession,
    units: Sequence[Unit],
    work: Callable[[Unit], str | bytes],
    profile: ResourceProfile | None = None,
) -> list[bytes]:
    """``work(unit)`` of every unit, each in a Spark task of its own; results in the order of the units.

    Raises:
        UserError: a task met a mistake that the user can mend, or an executor has other versions than the
            driver.
    """
    chosen = list(units)
    # In local mode the workers run the driver's own Python.
    local = session.sparkContext.master.startswith("local")
    wanted = None if local else tuple(versions().items())

    def apply(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        if wanted is not None:
            insist_on(wanted)
        for batch in batches:
            for number in batch.column(0).to_pylist():
                value = work(chosen[number])
                data = value.encode() if isinstance(value, str) else value
                yield pa.RecordBatch.from_arrays(
                    [pa.array([number], pa.int64()), pa.array([data], pa.binary())], ["id", "value"]
                )

    frame = session.range(0, len(chosen), 1, len(chosen))
    try:
        rows = frame.mapInArrow(apply, "id long, value binary", profile=profile).collect()
    except Exception as error:
        raise translated(error) from error
    return [bytes(row[1]) for row in sorted(rows, key=lambda row: row[0])]


def attempt_name() -> str:
    """A name that no other attempt of any task has, of this application or another (part files bear it).

    A driver that was killed may leave tasks behind that still write while the next run does their units.
    """
    context = TaskContext.get()
    return f"{context.taskAttemptId() if context else 0}-{uuid.uuid4().hex[:12]}"

"""Runs units of work as Spark tasks, a wave at a time.

One Spark task does one unit, or some small ones: it reads its input part files itself (Arrow, from the workspace), writes its
own part file and returns a small record. Neither images nor vectors pass through the JVM or the driver.

A unit that fails does not end its wave: its task returns why. A unit that ends its Python worker does; the units
of that wave are then done one by one.

Two waves are under way at once (Spark starts the second one's tasks on the slots that the first one's
last tasks leave idle), so a killed driver loses two half-sized waves at most.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import pyarrow as pa
from pyspark import InheritableThread, TaskContext
from pyspark.resource import ResourceProfile
from pyspark.sql import SparkSession

from configs.schema import CocuConfig
from spark_jobs.engine.progress import Progress
from spark_jobs.engine.session import task_slots
from spark_jobs.engine.table_job import TableJob
from spark_jobs.engine.task_errors import ExecutorFault, translated
from spark_jobs.engine.unit_outcomes import (
    FinishedWave,
    attempts_allowed,
    failed_alone,
    outcome_of,
    read_outcomes,
)
from spark_jobs.engine.versions import insist_on, versions
from spark_jobs.engine.worker_imports import ready_for_next_task
from storage import tables
from storage.units import Unit

__all__ = ["attempt_name", "map_units", "run_waves", "units_per_task"]


def run_waves(
    session: SparkSession, config: CocuConfig, job: TableJob, units: Sequence[Unit]
) -> Iterator[FinishedWave]:
    """Finished waves, in the order in which they finish.

    Raises:
        UserError: no executor can work, whatever the unit.
    """
    if not units:
        return
    slots = task_slots(session)
    per_task = units_per_task(job.rows_per_task, units, slots)
    size = config.spark.units_per_wave or per_task * max(32, 8 * slots)
    size = max(1, size // 2)  # two are under way
    waves = [list(units[start : start + size]) for start in range(0, len(units), size)]
    folder = tables.join(config.workspace, job.table)
    recipe, task, attempts = job.recipe, job.task, attempts_allowed(session)

    def work(unit: Unit) -> str:
        return outcome_of(unit, lambda unit: task(unit, folder, recipe), attempts)

    with Progress(job.job, units, job.what) as progress:
        for lines in _overlapped(session, job, waves, work, progress, min(per_task, -(-size // slots))):
            yield read_outcomes(lines)


def units_per_task(rows: int, units: Sequence[Unit], slots: int) -> int:
    """How many units a task does, for about ``rows`` rows (0: one unit), with eight tasks a slot left."""
    known = sum(unit.rows for unit in units)
    if not rows or not known:
        return 1
    return max(1, min(round(rows * len(units) / known), len(units) // (8 * slots)))


def _overlapped(
    session: SparkSession,
    job: TableJob,
    waves: list[list[Unit]],
    work: Callable[[Unit], str],
    progress: Progress,
    per_task: int,
) -> Iterator[list[bytes]]:
    with ThreadPoolExecutor(2) as pool:
        pending: dict[Future[list[bytes]], list[Unit]] = {}
        remaining = iter(waves)
        try:
            while True:
                while len(pending) < 2 and (wave := next(remaining, None)) is not None:
                    group = _group(job, wave)
                    progress.watch(session, group, wave)
                    pending[pool.submit(_submit, session, wave, work, job.profile, group, per_task)] = wave
                if not pending:
                    return
                finished, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in finished:
                    wave = pending.pop(future)
                    lines = _lines_of(session, job, wave, work, future)
                    progress.done(wave)
                    yield lines
        except BaseException:
            for wave in pending.values():
                session.sparkContext.cancelJobGroup(_group(job, wave))
            raise


def _group(job: TableJob, wave: list[Unit]) -> str:
    return f"cocu-{job.job}-{wave[0].name}"


def _lines_of(
    session: SparkSession,
    job: TableJob,
    wave: list[Unit],
    work: Callable[[Unit], str],
    future: Future[list[bytes]],
) -> list[bytes]:
    """What a wave gave; if something ended its Spark job, what its units give one by one."""
    try:
        return future.result()
    except ExecutorFault:
        raise
    except Exception as error:
        if not session.sparkContext._jsc.sc().isStopped():  # type: ignore[union-attr]
            text = str(error).strip().splitlines()[0][:200]
            print(
                f"{job.job}: a wave ended ({text}); its units are done one by one",
                file=sys.stderr,
                flush=True,
            )
            return _one_by_one(session, job, wave, work)
        raise


def _one_by_one(
    session: SparkSession, job: TableJob, wave: list[Unit], work: Callable[[Unit], str]
) -> list[bytes]:
    """Each unit as a Spark job of its own, so that a worker's crash ends nothing but the unit that causes it."""

    def alone(unit: Unit) -> bytes:
        try:
            return _submit(session, [unit], work, job.profile, _group(job, [unit]), 1)[0]
        except ExecutorFault:
            raise
        except Exception as error:
            return failed_alone(unit, error).encode()

    with ThreadPoolExecutor(task_slots(session)) as pool:
        return list(pool.map(alone, wave))


def _submit(
    session: SparkSession,
    wave: list[Unit],
    work: Callable[[Unit], str],
    profile: ResourceProfile | None,
    group: str,
    per_task: int,
) -> list[bytes]:
    result: list[list[bytes]] = []
    failure: list[BaseException] = []

    def run() -> None:
        session.sparkContext.setJobGroup(group, group, interruptOnCancel=True)
        try:
            result.append(map_units(session, wave, work, profile, per_task))
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
    per_task: int = 1,
) -> list[bytes]:
    """``work(unit)`` of every unit, ``per_task`` of them in a Spark task; results in the order of the units.

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
        ready_for_next_task()

    frame = session.range(0, len(chosen), 1, -(-len(chosen) // per_task))
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

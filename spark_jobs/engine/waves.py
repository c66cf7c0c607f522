"""Runs a table's units of work on Spark, a wave at a time, and commits each wave whole.

One Spark task does one unit: it reads its input part files itself (Arrow, from the workspace), writes its
own part file and returns a small record. Neither images nor vectors pass through the JVM or the driver.
The driver puts the records of the attempts that Spark accepted into the manifest; what other attempts
wrote is named by nobody and removed at the end.

Two waves are under way at once (Spark starts the second one's tasks on the slots that the first one's
last tasks leave idle), so a killed driver loses two half-sized waves at most.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
from pyspark import InheritableThread, TaskContext
from pyspark.resource import ResourceProfile
from pyspark.sql import SparkSession
from tqdm import tqdm

from configs.errors import UserError
from configs.schema import CocuConfig
from spark_jobs.engine.session import task_slots
from spark_jobs.engine.versions import check_executors, insist_on, versions
from storage import tables
from storage.locks import hold_lock
from storage.tables import Manifest, Part, UnitRecord

__all__ = ["TableJob", "Unit", "attempt_number", "build_table", "map_units", "print_summary", "translated"]

VERSION = "0.1.0"


@dataclass(frozen=True)
class Unit:
    """A unit of work: its name, the rows it is known to have (0: unknown) and what its task needs."""

    name: str
    rows: int
    payload: Any = None


@dataclass
class TableJob:
    """One table to build: ``settings`` and ``inputs`` decide whether a stored table is the right one."""

    job: str
    table: str
    settings: dict[str, Any]
    inputs: dict[str, str]
    units: Sequence[Unit] | Callable[[], Sequence[Unit]]  # a callable: found only when there is work to do
    task: Callable[[Unit, str, str], UnitRecord]  # (unit, table folder, recipe) -> record; runs on executors
    what: str = "pairs"
    profile: ResourceProfile | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    finish: Callable[[Manifest], None] | None = None  # last checks before the table becomes visible

    @property
    def recipe(self) -> str:
        """The hash that names this table's content."""
        return tables.make_recipe(self.job, self.settings, self.inputs)


def build_table(session: SparkSession, config: CocuConfig, job: TableJob) -> Manifest:
    """Bring a table to completion: nothing if it is there, else what is missing of it.

    Raises:
        UserError: another table is there and ``overwrite`` is not set; another run is at work; a task met
            a mistake that the user can mend.
    """
    done = tables.find_manifest(config.workspace, job.table)
    if done is not None and done.recipe == job.recipe:
        print(f"{job.job}: {job.table} is complete ({done.rows:,} rows); nothing to do", flush=True)
        return done
    if done is not None and not config.overwrite:
        raise UserError(
            f"{job.job}: table '{job.table}' in {config.workspace} was built from something else: "
            f"{tables.recipe_differences(done, job.settings, job.inputs)}; say overwrite=true to replace it, "
            f"or choose another workspace="
        )
    with hold_lock(config.workspace, job.table, job.job) as lock:
        begun = time.monotonic()
        manifest = tables.read_progress(config.workspace, job.table, job.recipe) or Manifest(
            table=job.table,
            workspace=config.workspace,
            job=job.job,
            recipe=job.recipe,
            settings=job.settings,
            inputs=job.inputs,
            config=_storable(config),
            version=VERSION,
            extra=job.extra,
        )
        before = manifest.seconds
        units = list(job.units() if callable(job.units) else job.units)
        order = {unit.name: number for number, unit in enumerate(units)}
        manifest.units = [record for record in manifest.units if record.unit in order]
        have = {record.unit for record in manifest.units}
        todo = [unit for unit in units if unit.name not in have]
        if have:
            print(f"{job.job}: goes on; {len(have)} of {len(order)} units are done", flush=True)
        if todo:
            _check_executors(session, config, job)
        for records in run_waves(session, config, job, todo):
            lock.check()
            manifest.units.extend(records)
            manifest.seconds = before + time.monotonic() - begun
            _commit(manifest)
        manifest.units.sort(key=lambda record: order[record.unit])
        manifest.seconds = before + time.monotonic() - begun
        if job.finish is not None:
            job.finish(manifest)
        lock.check()
        manifest.status = "complete"
        _commit(manifest)
        tables.remove_progress(manifest)
        tables.delete_orphans(manifest)
    print_summary(manifest, job.what)
    return manifest


def _check_executors(session: SparkSession, config: CocuConfig, job: TableJob) -> None:
    try:
        check_executors(session, config.clip if "clip" in job.settings else None)
    except UserError:
        raise
    except Exception as error:
        raise translated(error) from error


def _commit(manifest: Manifest) -> None:
    try:
        tables.write_manifest(manifest)
    except OSError as error:
        raise UserError(
            f"cannot write the manifest of '{manifest.table}': {error}; free space or mend the rights, then run again"
        ) from None


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

    with _Progress(job.job, units, job.what) as progress:
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
    progress: _Progress,
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


_USER_ERROR = re.compile(r"(?:configs\.errors\.)?UserError: (.+)")
# No space (28), read-only (30), quota (122), no right (13).
_DISK_ERROR = re.compile(r"(?:OSError|PermissionError): (\[Errno (?:28|30|122|13)\][^\n]*)")
_SPARK_DISK_ERROR = re.compile(r"java\.io\.IOException: (No space left on device|Read-only file system)")
_NO_MODULE = re.compile(r"ModuleNotFoundError: No module named '([\w.]+)'")
_NO_PYTHON = re.compile(r'Cannot run program "([^"]+)"')


def translated(error: BaseException) -> BaseException:
    """The user's mistake that a task met, if that is what ended the Spark job."""
    text = str(error)
    if found := _USER_ERROR.search(text):
        return UserError(found.group(1).strip())
    if found := _DISK_ERROR.search(text):
        return UserError(
            f"a task could not write: {found.group(1).strip()}; free space or mend the rights, then run again"
        )
    if found := _SPARK_DISK_ERROR.search(text):
        return UserError(
            f"Spark could not write to spark.local.dir: {found.group(1)}; free space there or name another "
            f"disk, then run again"
        )
    if found := _NO_MODULE.search(text):
        return UserError(
            f"an executor has no Python module '{found.group(1)}'; ship environment and code: make package, "
            f"then spark-submit --archives dist/environment.tar.gz#environment --py-files dist/cocu.zip"
        )
    if found := _NO_PYTHON.search(text):
        return UserError(
            f"an executor cannot start {found.group(1)}; with --archives dist/environment.tar.gz#environment "
            f"set spark.pyspark.python=./environment/bin/python"
        )
    return error


def attempt_number() -> int:
    """A number that no other attempt of any task of this application has (0 outside of tasks)."""
    context = TaskContext.get()
    return context.taskAttemptId() if context else 0


class _Progress:
    """A bar of finished rows with rate and time left, fed by polling Spark's status."""

    def __init__(self, job: str, units: Sequence[Unit], what: str) -> None:
        known = sum(unit.rows for unit in units)
        self._by_rows = known > 0
        self._job, self._total = job, known or len(units)
        self._unit = f" {what}" if self._by_rows else " shards"
        # A terminal gets a bar, a log file a line every 15 s.
        terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=self._total, desc=job, unit=self._unit, file=sys.stderr, smoothing=0.1, disable=not terminal
        )
        self._line_every = None if terminal else 15.0
        self._started = self._last_line = time.monotonic()
        self._shown = 0
        self._watched: dict[str, tuple[SparkSession, list[Unit]]] = {}
        self._finished = 0.0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> _Progress:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._bar.close()

    def watch(self, session: SparkSession, group: str, wave: list[Unit]) -> None:
        with self._lock:
            self._watched[group] = (session, wave)

    def done(self, wave: list[Unit]) -> None:
        with self._lock:
            self._watched = {group: entry for group, entry in self._watched.items() if entry[1] is not wave}
            self._finished += self._size(wave)
        self._show(self._finished)

    def _size(self, wave: list[Unit]) -> int:
        return sum(unit.rows for unit in wave) if self._by_rows else len(wave)

    def _show(self, value: float) -> None:
        if int(value) > self._shown:
            self._bar.update(int(value) - self._shown)
            self._shown = int(value)
        now = time.monotonic()
        if self._line_every is not None and now - self._last_line >= self._line_every:
            self._last_line = now
            meter = tqdm.format_meter(
                self._shown, self._total, now - self._started, ncols=100, prefix=self._job, unit=self._unit
            )
            print(meter, file=sys.stderr, flush=True)

    def _poll(self) -> None:
        while not self._stop.wait(1.0):
            with self._lock:
                watched, total = dict(self._watched), self._finished
            for group, (session, wave) in watched.items():
                total += self._size(wave) * _share_done(session, group, len(wave))
            self._show(total)


def _share_done(session: SparkSession, group: str, tasks: int) -> float:
    tracker = session.sparkContext.statusTracker()
    completed = 0
    try:
        for number in tracker.getJobIdsForGroup(group):
            job = tracker.getJobInfo(number)
            for stage in job.stageIds if job else []:
                info = tracker.getStageInfo(stage)
                completed = max(completed, info.numCompletedTasks if info else 0)
    except Exception:
        return 0.0  # the session is going down; a progress bar must not be what fails
    return min(1.0, completed / max(1, tasks))


def _storable(config: CocuConfig) -> dict[str, Any]:
    from configs.loading import to_plain

    plain = to_plain(config)
    # Spark properties may hold credentials (fs.s3a.secret.key); manifests are read by others.
    plain["spark"]["conf"] = sorted(plain["spark"]["conf"])
    return plain


def print_summary(manifest: Manifest, what: str = "pairs") -> None:
    """The lines a job ends with: rows in, out, rejected by reason, seconds, rate."""
    rejected = sum(manifest.rejects.values())
    rate = manifest.rows_in / manifest.seconds if manifest.seconds > 0 else 0.0
    print(
        f"{manifest.job}: {manifest.table}: {manifest.rows_in:,} {what} in, {manifest.rows:,} out, {rejected:,} rejected, "
        f"{manifest.seconds:.1f} s, {rate:,.0f} {what}/s",
        flush=True,
    )
    for reason, count in manifest.rejects.items():
        print(f"  rejected: {count:,} {reason}", flush=True)

"""How a table is built: what is missing of it, wave by wave, under its lock.

The driver puts the records of the attempts that Spark accepted into the manifest, a wave at a time; what other
attempts wrote is named by nobody and removed at the end.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from pyspark.sql import SparkSession

from configs.errors import UserError
from configs.loading import to_plain
from configs.overwrite import may_replace, must_rebuild
from configs.schema import CocuConfig
from configs.version import VERSION
from spark_jobs.engine.failed_units import accept_failures, tell_failures
from spark_jobs.engine.repair import damaged_units, tell_damage
from spark_jobs.engine.table_job import TableJob
from spark_jobs.engine.task_errors import translated
from spark_jobs.engine.unit_outcomes import FinishedWave, UnitFailure
from spark_jobs.engine.versions import check_executors
from spark_jobs.engine.waves import run_waves
from storage import tables
from storage.growth import GROWN_FROM, grew, lineage, standing_units
from storage.locks import TableLock, hold_lock
from storage.metrics import WaveMetrics
from storage.tables import Manifest
from storage.units import Unit, UnitRecord

__all__ = ["build_scratch", "build_table", "only_units_differ", "print_summary", "taken_over"]

_COMMON = "common"  # in a manifest's extra: what all units have in common, where the table can grow


def build_table(session: SparkSession, config: CocuConfig, job: TableJob) -> Manifest:
    """Bring a table to completion: nothing if it is there, else what is missing of it.

    With ``verify``, units of a complete table whose files are lost or damaged are missing, too. A table that
    ``overwrite`` names is built again whatever is there; until that is complete, readers see the old one. Where a
    table that grows differs from what is there in its units alone, those that are the same stand.

    Raises:
        UserError: another table is there and ``overwrite`` does not admit it; another run is at work; more units
            failed than ``spark.max_failed_units``; no executor can work.
    """
    done = tables.find_manifest(config.workspace, job.table)
    old = None
    grows = done is not None and only_units_differ(config, done, job)
    if (
        done is not None
        and done.recipe != job.recipe
        and not grows
        and not may_replace(config.overwrite, job.table)
    ):
        raise UserError(
            f"{job.job}: table '{job.table}' in {config.workspace} was built from something else: "
            f"{tables.recipe_differences(done, job.settings, job.inputs)}; say overwrite=[{job.table}] to replace "
            f"it (or overwrite=true, any table), or choose another workspace="
        )
    if done is not None and done.recipe == job.recipe and not must_rebuild(config.overwrite, job.table):
        old = _without_damage(session, done) if config.verify else None
        if old is None:
            if not config.verify:
                print(f"{job.job}: {job.table} is complete ({done.rows:,} rows); nothing to do", flush=True)
            return done
    with hold_lock(config.workspace, job.table, job.job) as lock:
        manifest = old or tables.read_progress(config.workspace, job.table, job.recipe) or _begin(config, job)
        if done is not None and grows:
            _take_over(config, manifest, done, job)
        _complete(session, config, job, manifest, lock)
    print_summary(manifest, job.what)
    return manifest


def build_scratch(session: SparkSession, config: CocuConfig, job: TableJob) -> Manifest:
    """``build_table`` for a table that nobody but jobs reads: one that was built from something else makes room."""
    left = tables.find_manifest(config.workspace, job.table)
    if left is not None and left.recipe != job.recipe and not only_units_differ(config, left, job):
        tables.remove_table(config.workspace, job.table)
    return build_table(session, config, job)


def only_units_differ(config: CocuConfig, done: Manifest, job: TableJob) -> bool:
    """Whether a table is what it should be but for its units; one of which nothing stands was built from something else.

    That it grew, its inputs may say, too: with ``archives.refresh=all`` every unit is another one.
    """
    if job.common is None or done.recipe == job.recipe or must_rebuild(config.overwrite, job.table):
        return False
    if done.extra.get(_COMMON) != job.common_digest:
        return False
    return (
        not job.stand
        or bool(standing_units(done, job.marks))
        or (bool(job.sources) and grew(done, job.sources))
    )


def taken_over(config: CocuConfig, job: TableJob) -> list[UnitRecord]:
    """The units that a table gets from a complete one that it grows from."""
    done = tables.find_manifest(config.workspace, job.table)
    if done is None or not job.stand or not only_units_differ(config, done, job):
        return []
    return standing_units(done, job.marks)


def _take_over(config: CocuConfig, manifest: Manifest, old: Manifest, job: TableJob) -> None:
    """Units of the old table that stand, into the new one; what is gone and what is to do, in a line."""
    have, marks = {record.unit for record in manifest.units}, job.marks
    manifest.seconds = manifest.seconds or old.seconds
    manifest.units.extend(record for record in taken_over(config, job) if record.unit not in have)
    manifest.extra[GROWN_FROM] = lineage(old)
    gone = len({record.unit for record in old.units} - marks.keys())
    left = f"; {gone} are gone from the input and leave with their rows" if gone else ""
    print(
        f"{job.job}: {job.table} grows: {len(manifest.units)} of {len(marks)} units stand, "
        f"{len(marks) - len(manifest.units)} to do{left}",
        flush=True,
    )


def _without_damage(session: SparkSession, done: Manifest) -> Manifest | None:
    """A complete table as one that lacks its damaged units, or None if it has none."""
    damage = damaged_units(session, done)
    tell_damage(done, damage)
    kept = [record for record in done.units if record.unit not in damage]
    return replace(done, status="partial", units=kept) if damage else None


def _begin(config: CocuConfig, job: TableJob) -> Manifest:
    return Manifest(
        table=job.table,
        workspace=config.workspace,
        job=job.job,
        recipe=job.recipe,
        settings=job.settings,
        inputs=job.inputs,
        config=_storable(config),
        version=VERSION,
        extra={**job.extra, _COMMON: job.common_digest} if job.common is not None else job.extra,
    )


def _complete(
    session: SparkSession, config: CocuConfig, job: TableJob, manifest: Manifest, lock: TableLock
) -> None:
    """Do the units that a manifest lacks, and publish it."""
    begun, before = time.monotonic(), manifest.seconds
    if job.resume is not None:
        job.resume(manifest)
    units = list(job.units() if callable(job.units) else job.units)
    order = {unit.name: number for number, unit in enumerate(units)}
    manifest.units = [record for record in manifest.units if record.unit in order]
    have = {record.unit for record in manifest.units}
    if have and GROWN_FROM not in manifest.extra:
        print(f"{job.job}: goes on; {len(have)} of {len(order)} units are done", flush=True)
    failures: list[UnitFailure] = []
    marks = job.marks
    allowed = 0 if job.whole else config.spark.max_failed_units
    told = WaveMetrics(config.workspace, manifest, len(order))
    for wave in _waves(session, config, job, [unit for unit in units if unit.name not in have]):
        lock.check()
        manifest.seconds = before + time.monotonic() - begun
        records = [
            replace(record, made_of=marks.get(record.unit, ""), beside=job.beside) for record in wave.records
        ]
        if records:
            if job.accept is not None:
                job.accept(manifest, records)
            with _told_of_failure(job.table):
                tables.commit_wave(manifest, lock.token, records)
        told.wave(records, len(wave.failures), wave.memory)
        tell_failures(job.job, wave.failures)
        failures.extend(wave.failures)
        if not records and len(failures) > allowed:
            break  # nothing works any more: not the units' fault
    if failures:
        accept_failures(manifest, failures, allowed, len(order))
    manifest.units.sort(key=lambda record: order[record.unit])
    manifest.seconds = before + time.monotonic() - begun
    if job.finish is not None:
        job.finish(manifest)
    lock.check()
    manifest.status, manifest.waves = "complete", {}
    with _told_of_failure(job.table):
        tables.write_manifest(manifest)
    tables.remove_progress(manifest)
    tables.delete_orphans(manifest)
    told.complete()


def _waves(
    session: SparkSession, config: CocuConfig, job: TableJob, units: Sequence[Unit]
) -> Iterator[FinishedWave]:
    if units:
        _check_executors(session, config, job)
        yield from run_waves(session, config, job, units)


def _check_executors(session: SparkSession, config: CocuConfig, job: TableJob) -> None:
    try:
        check_executors(session, config.clip if "clip" in job.settings else None)
    except UserError:
        raise
    except Exception as error:
        raise translated(error) from error


@contextlib.contextmanager
def _told_of_failure(table: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write the manifest of '{table}': {error}; free space or mend the rights, then run again"
        ) from None


def _storable(config: CocuConfig) -> dict[str, Any]:
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

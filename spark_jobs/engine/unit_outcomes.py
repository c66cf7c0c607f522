"""What came of a unit: its record, or why it failed. A task returns either, so that one bad unit costs no other."""

from __future__ import annotations

import json
import re
import resource
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from pyspark import TaskContext
from pyspark.sql import SparkSession

from configs.errors import UserError
from spark_jobs.engine.task_errors import translated
from storage.units import Part, Unit, UnitRecord

__all__ = ["FinishedWave", "UnitFailure", "attempts_allowed", "failed_alone", "outcome_of", "read_outcomes"]

# Spark repeats a failed task on another executor, which mends what is the host's fault. What fails on three is
# the unit's own.
_ATTEMPTS = 3
_DEAD_WORKER = re.compile(r"Python worker exited unexpectedly|ExecutorLostFailure")


@dataclass(frozen=True)
class UnitFailure:
    """A unit that could not be done. ``trace`` is empty for what the user can mend."""

    unit: str
    source: str
    rows: int
    reason: str
    trace: str = ""


@dataclass(frozen=True)
class FinishedWave:
    """Records and failures of a wave's units, in their order."""

    records: Sequence[UnitRecord]
    failures: Sequence[UnitFailure]
    memory: int = 0
    """bytes: the most that one of the Python workers has held since it began"""


def attempts_allowed(session: SparkSession) -> int:
    """How often a unit is tried before its error counts: three times, or less where Spark gives up earlier."""
    context = session.sparkContext
    if context.master.startswith("local"):
        given = re.fullmatch(r"local\[[^,]+,\s*(\d+)\]", context.master)
        return min(_ATTEMPTS, int(given[1]) if given else 1)
    return min(_ATTEMPTS, int(context.getConf().get("spark.task.maxFailures", "4") or 4))


def outcome_of(unit: Unit, work: Callable[[Unit], UnitRecord], attempts: int) -> str:
    """Do a unit (on an executor): its record or its failure, as text.

    Raises:
        Exception: what ``work`` raised, in all attempts but the last.
    """
    started = time.monotonic()
    try:
        record = asdict(work(unit))
    except Exception as error:
        context = TaskContext.get()
        if context is not None and context.attemptNumber() + 1 < attempts:
            raise
        return json.dumps({"failed": asdict(_failure(unit, error)), "memory": _peak_memory()})
    record["seconds"] = round(time.monotonic() - started, 3)
    return json.dumps({**record, "memory": _peak_memory()})


def _peak_memory() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _failure(unit: Unit, error: Exception) -> UnitFailure:
    told = error if isinstance(error, UserError) else translated(RuntimeError(_named(error)))
    known = isinstance(told, UserError)
    reason = str(told) if known else _named(error)
    trace = "" if known else traceback.format_exc()
    return UnitFailure(unit.name, unit.source, unit.rows, " ".join(reason.split()), trace)


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def failed_alone(unit: Unit, error: Exception) -> str:
    """The failure of a unit whose Spark job of its own was ended by ``error``, as text."""
    text = str(error)
    if isinstance(error, UserError):
        reason = text
    elif _DEAD_WORKER.search(text):
        reason = "the process that worked on it died (out of memory, or a crash in native code)"
    else:
        reason = " ".join(text.split())[:300]
    return json.dumps({"failed": asdict(UnitFailure(unit.name, unit.source, unit.rows, reason))})


def read_outcomes(lines: Sequence[bytes]) -> FinishedWave:
    """The outcomes that tasks returned."""
    records, failures, memory = [], [], 0
    for line in lines:
        entry = json.loads(line)
        memory = max(memory, entry.pop("memory", 0))
        if "failed" in entry:
            failures.append(UnitFailure(**entry["failed"]))
        else:
            parts = tuple(Part(**part) for part in entry.pop("parts"))
            records.append(UnitRecord(parts=parts, **entry))
    return FinishedWave(records, failures, memory)

"""Units that failed: said at once, and whether the table may do without them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from configs.errors import UserError
from corpora.reasons import Reason
from spark_jobs.engine.unit_outcomes import UnitFailure
from storage.tables import Manifest
from storage.units import UnitRecord

__all__ = ["accept_failures", "lost_units", "tell_failures"]

_SHOWN = 3


def tell_failures(job: str, failures: Sequence[UnitFailure]) -> None:
    """A line each on stderr while the others go on; a bug shows its trace once."""
    for failure in failures[:_SHOWN]:
        print(f"{job}: failed: {_line(failure)}", file=sys.stderr, flush=True)
    if len(failures) > _SHOWN:
        print(f"{job}: failed: {len(failures) - _SHOWN} more units", file=sys.stderr, flush=True)
    trace = next((failure.trace for failure in failures if failure.trace), "")
    if trace:
        print(trace, file=sys.stderr, flush=True)


def accept_failures(manifest: Manifest, failures: Sequence[UnitFailure], allowed: int, total: int) -> None:
    """Count the rows of failed units as rejects, so that no sum hides them.

    Raises:
        UserError: there are more than ``allowed``; what is done stays committed.
    """
    if len(failures) > allowed:
        raise UserError(_refusal(manifest, failures, total))
    for failure in failures:
        rows = (
            failure.rows or 1
        )  # a shard whose rows nobody has counted is one reject, as an unreadable one is
        what = {"source": failure.source, "reason": failure.reason}
        manifest.units.append(
            UnitRecord(failure.unit, (), rows, {Reason.UNIT_FAILED.value: rows}, extra={"failed": what})
        )


def lost_units(manifest: Manifest) -> set[str]:
    """Names of the units that a complete table does without."""
    return {record.unit for record in manifest.units if "failed" in record.extra}


def _refusal(manifest: Manifest, failures: Sequence[UnitFailure], total: int) -> str:
    reasons = list({failure.reason: failure for failure in failures}.values())
    lines = "; ".join(_line(failure) for failure in reasons[:_SHOWN])
    kept = len(manifest.units)
    without = f", or go without by spark.max_failed_units={len(failures)}" if kept else ""
    return (
        f"{manifest.job}: {len(failures)} of {total} units of '{manifest.table}' failed and it stays incomplete "
        f"({kept} are kept); mend this and run again{without}: {lines}"
    )


def _line(failure: UnitFailure) -> str:
    where = f" ({failure.source})" if failure.source and failure.source not in failure.reason else ""
    return f"{failure.unit}{where}: {failure.reason}"

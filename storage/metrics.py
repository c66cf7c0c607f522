"""Metrics of a run: a JSON line for each wave of a table and each epoch of a training, for programs and `make watch`.

``<workspace>/metrics/<table>-<when>-<token>.jsonl``, a file for each run of a job, replaced whole at each line (so that
it works on stores, too, which cannot append). A line::

    {"time": "2026-11-26T05:00:00+00:00", "job": "embed_images", "table": "image_embeddings", "recipe": "...",
     "wave": 3, "units_done": 96, "units": 332, "rows_in": 24000, "rows": 23987, "rejects": {"unreadable_image": 13},
     "units_here": 32, "failed_units": 0, "seconds": 812.4, "rate": 29.5, "memory": 1712345088,
     "complete": false}

``rows_in``, ``rows``, ``rejects``, ``seconds`` and ``rate`` (rows a second) are of this wave, the time since the wave before
it; ``memory`` is the most that a Python worker of it has held, in bytes. The last line of a run that brings its table to
completion says so.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow.fs as pafs

from storage.addresses import join, list_folder, resolve
from storage.manifest import Manifest
from storage.small_files import read_small, write_atomically
from storage.units import UnitRecord

__all__ = ["FOLDER", "MetricsFile", "WaveMetrics", "now", "read_metrics"]

FOLDER = "metrics"


def now() -> str:
    """The time in ISO 8601, UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class MetricsFile:
    """The lines of one run."""

    def __init__(self, workspace: str, name: str) -> None:
        when = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        self.address = join(workspace, FOLDER, f"{name}-{when}-{uuid.uuid4().hex[:6]}.jsonl")
        self._lines: list[str] = []
        self._told = False

    def add(self, values: Mapping[str, Any]) -> None:
        """One line more. A disk or store that does not take it is told once, and ends no run."""
        self._lines.append(json.dumps({"time": now(), **values}))
        try:
            write_atomically(self.address, ("\n".join(self._lines) + "\n").encode())
        except OSError as error:
            if not self._told:
                print(f"metrics are not written: {self.address}: {error}", file=sys.stderr, flush=True)
            self._told = True


class WaveMetrics:
    """The waves of one table's run. Nothing is written before the first wave."""

    def __init__(self, workspace: str, manifest: Manifest, units: int) -> None:
        self._workspace, self._manifest, self._units = workspace, manifest, units
        self._file: MetricsFile | None = None
        self._number = 0
        self._since = time.monotonic()

    def wave(self, records: Sequence[UnitRecord], failed: int, memory: int) -> None:
        """A line for a wave that is committed."""
        self._number += 1
        self._add(records, failed, memory, False)

    def complete(self) -> None:
        """A line without rows: the table is there. None where no wave was needed."""
        if self._file is not None:
            self._add((), 0, 0, True)

    def _add(self, records: Sequence[UnitRecord], failed: int, memory: int, complete: bool) -> None:
        manifest = self._manifest
        if self._file is None:
            self._file = MetricsFile(self._workspace, manifest.table)
        before, self._since = self._since, time.monotonic()
        seconds = self._since - before
        rejects: Counter[str] = Counter()
        for record in records:
            rejects.update(record.rejects)
        rows_in = sum(record.rows_in for record in records)
        self._file.add(
            {
                "job": manifest.job,
                "table": manifest.table,
                "recipe": manifest.recipe,
                "wave": self._number,
                "units_done": len(manifest.units),
                "units": self._units,
                "units_here": len(records),
                "rows_in": rows_in,
                "rows": sum(record.rows_out for record in records),
                "rejects": dict(rejects.most_common()),
                "failed_units": failed,
                "seconds": round(seconds, 3),
                "rate": round(rows_in / max(seconds, 1e-9), 2),
                "memory": memory,
                "complete": complete,
            }
        )


def read_metrics(workspace: str, since: str = "") -> list[list[dict[str, Any]]]:
    """The lines of each run, runs by their beginning.

    Args:
        workspace: with a folder ``metrics``, or without.
        since: leave out runs whose last line is of before this time, as ``now`` writes it.
    """
    filesystem, folder = resolve(join(workspace, FOLDER))
    runs = []
    for info in list_folder(filesystem, folder):
        if info.type != pafs.FileType.File or not info.base_name.endswith(".jsonl"):
            continue
        data = read_small(join(workspace, FOLDER, info.base_name))
        lines = [json.loads(line) for line in (data or b"").decode().splitlines()]
        if lines and lines[-1]["time"] >= since:
            runs.append(lines)
    return sorted(runs, key=lambda lines: lines[0]["time"])

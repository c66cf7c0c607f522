"""How far a table's waves are, on a terminal or in a log file."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence

from pyspark.sql import SparkSession
from tqdm import tqdm

from storage.units import Unit

__all__ = ["Progress"]


class Progress:
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

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._bar.close()

    def watch(self, session: SparkSession, group: str, wave: list[Unit]) -> None:
        """A wave is under way as the Spark jobs of this group."""
        with self._lock:
            self._watched[group] = (session, wave)

    def done(self, wave: list[Unit]) -> None:
        """A wave is over."""
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
                total += self._size(wave) * _share_done(session, group)
            self._show(total)


def _share_done(session: SparkSession, group: str) -> float:
    tracker = session.sparkContext.statusTracker()
    share = 0.0
    try:
        for number in tracker.getJobIdsForGroup(group):
            job = tracker.getJobInfo(number)
            for stage in job.stageIds if job else []:
                info = tracker.getStageInfo(stage)
                share = max(share, info.numCompletedTasks / max(1, info.numTasks) if info else 0.0)
    except Exception:
        return 0.0  # the session is going down; a progress bar must not be what fails
    return min(1.0, share)

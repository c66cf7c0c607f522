"""Threads that work on one item each under a time limit, and are left behind where they exceed it.

SIGALRM reaches only the main thread, and Python cannot stop a thread. So there are two steps. The work is
given a :class:`Clock` and checks it between its steps: that ends nearly all slow items in time and in order.
A thread that does not come back (inside of one call of a decoder) is left to itself after half the limit
more, and another one takes its place. Threads are daemons: none keeps the process from ending.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

__all__ = ["Clock", "DecodePool", "Job"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class Clock:
    """How long an item has been worked on."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._started: float | None = None

    def start(self) -> None:
        """Work begins, or begins again after a wait that does not count."""
        self._started = time.monotonic()

    def pause(self) -> None:
        """What follows is waiting."""
        self._started = None

    @property
    def elapsed(self) -> float:
        """Seconds since the start; 0 while paused."""
        started = self._started
        return 0.0 if started is None else time.monotonic() - started

    def check(self) -> None:
        """Raises TimeoutError if the time is over."""
        if self.elapsed > self.seconds:
            raise TimeoutError(f"more than {self.seconds:g} s")


class Job(Generic[Item, Result]):
    """One item, and what came of it."""

    def __init__(self, item: Item, seconds: float) -> None:
        self.item: Item | None = item
        self.clock = Clock(seconds)
        self.done = threading.Event()
        self.result: Result | None = None
        self.error: BaseException | None = None
        self.abandoned = False


class DecodePool(Generic[Item, Result]):
    """``work(item, clock)`` in some threads; results are asked for job by job."""

    def __init__(self, work: Callable[[Item, Clock], Result], threads: int, seconds: float) -> None:
        self._work = work
        self._seconds = seconds
        self._queue: queue.SimpleQueue[Job[Item, Result] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = threads
        for _ in range(threads):
            self._start_thread()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for _ in range(self._threads):
            self._queue.put(None)

    def submit(self, item: Item) -> Job[Item, Result]:
        """Queue an item."""
        job: Job[Item, Result] = Job(item, self._seconds)
        self._queue.put(job)
        return job

    def wait(self, job: Job[Item, Result]) -> Result:
        """The result of a job.

        Raises:
            TimeoutError: it took too long; its thread has been replaced.
        """
        while not job.done.wait(max(0.01, min(1.0, 1.5 * self._seconds - job.clock.elapsed))):
            if job.clock.elapsed > 1.5 * self._seconds and self._abandon(job):
                raise TimeoutError(f"more than {self._seconds:g} s, and its thread does not answer")
        if job.error is not None:
            raise job.error
        return job.result  # type: ignore[return-value]

    def _abandon(self, job: Job[Item, Result]) -> bool:
        with self._lock:
            if job.done.is_set():
                return False
            job.abandoned = True
        self._start_thread()
        return True

    def _start_thread(self) -> None:
        threading.Thread(target=self._run, daemon=True, name="decode").start()

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            item, job.item = job.item, None
            job.clock.start()
            try:
                job.result = self._work(item, job.clock)  # type: ignore[arg-type]
            except BaseException as error:  # handed to whoever waits for the job
                job.error = error
            del item
            with self._lock:
                job.done.set()
                if job.abandoned:
                    return

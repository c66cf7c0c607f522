"""JPEG bytes to pixels, in processes of their own.

Why not ``multiprocessing``: its children import the program's main module again, which for training means torch
and Horovod in each of them, and one killed at the wrong moment holds a lock that the others wait for. Here a
worker is a fresh interpreter (never a fork of a process that runs Horovod) with one socket and one piece of
anonymous shared memory. Nothing is shared between workers; one that dies is seen as the end of its socket, and
a parent that dies as well, so neither leaves the other waiting.

Why not threads: Pillow lets go of Python's lock in its loops, and on two full cores threads are as quick
(tests/benchmarks/bench_decode.py); but what Python does between those loops, for each of many cores' threads,
would come between the training step and its lock, and one crash in a decoder would take the training with it.

Decoding is whole: a decoder that leaves out fine frequencies would change pixels wherever it would be quicker
(at half size and twice the wanted pixels: hardly ever on images of 256 pixels, under 2 % of the time at 512).
"""

from __future__ import annotations

import io
import mmap
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from PIL import Image

from training.feed.augment import GREY, Augmenter, AugmentOptions

__all__ = ["CHUNK", "MAX_PIXELS", "DecodePool", "Undecodable", "decode_rows", "open_rgb", "serve"]

CHUNK = 8
"""Images that travel to a worker at once: some 20 ms of work."""
MAX_PIXELS = 64_000_000
"""A larger image is refused on its header, before memory is taken for it."""

Bad = list[tuple[int, str]]
"""Rows that could not be decoded, and why."""

_PARENT_SECONDS = 5.0  # how often a worker without work looks whether its parent lives
warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the header is checked here


class Undecodable(Exception):
    """The bytes are no whole JPEG of a reasonable size; says why."""


def open_rgb(jpeg: bytes | None) -> Image.Image:
    """A decoded JPEG in RGB.

    Raises:
        Undecodable: missing, not a JPEG, damaged, truncated, or larger than ``MAX_PIXELS``.
    """
    if not jpeg:
        raise Undecodable("there are no bytes")
    try:
        image = Image.open(io.BytesIO(jpeg), formats=("JPEG",))
        if image.width * image.height > MAX_PIXELS:
            raise Undecodable(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS}")
        image.load()
        return image if image.mode == "RGB" else image.convert("RGB")
    except Image.UnidentifiedImageError:
        raise Undecodable(f"not a JPEG: it begins with {jpeg[:8]!r}") from None
    except (OSError, SyntaxError, ValueError, LookupError, ArithmeticError, MemoryError) as error:
        raise Undecodable(f"{type(error).__name__}: {error}"[:200]) from None
    except Image.DecompressionBombError as error:
        raise Undecodable(str(error)[:200]) from None


def decode_rows(
    augmenter: Augmenter, epoch: int, keys: Sequence[str], jpegs: Sequence[bytes | None], out: np.ndarray
) -> Bad:
    """Write the augmented pixels of n images to ``out``, uint8 (n, H, W, 3); grey where one does not decode."""
    bad: Bad = []
    for row, (key, jpeg) in enumerate(zip(keys, jpegs, strict=True)):
        try:
            image = open_rgb(jpeg)
        except Undecodable as error:
            out[row] = GREY
            bad.append((row, str(error)))
            continue
        out[row] = augmenter(image, key, epoch)
    return bad


@dataclass
class _Task:
    epoch: int
    keys: Sequence[str]
    jpegs: Sequence[bytes | None]
    out: np.ndarray
    done: Future[Bad] = field(default_factory=Future)


class _Worker:
    """The parent's end of one decoding process."""

    def __init__(self, options: AugmentOptions, seconds: int) -> None:
        self.seconds = seconds
        self.shape = (2, CHUNK, options.image_size, options.image_size, 3)
        ours, theirs = socket.socketpair()
        with theirs, _anonymous_file(int(np.prod(self.shape))) as file:
            # Pixels come back through two halves by turns: one is written while the other is read.
            self.pixels = np.ndarray(self.shape, np.uint8, mmap.mmap(file.fileno(), 0))
            self.process = _start_python(theirs.fileno(), file.fileno())
        self.connection = Connection(ours.detach())
        self.connection.send((options, os.getpid(), seconds))
        self._sent = self._received = 0

    def send(self, task: _Task) -> None:
        self.connection.send((self._sent % 2, task.epoch, list(task.keys), list(task.jpegs)))
        self._sent += 1

    def receive(self, task: _Task) -> Bad:
        bad, failure = self.connection.recv()
        if failure:
            raise RuntimeError(f"decoding failed in a worker process:\n{failure}")
        np.copyto(task.out, self.pixels[self._received % 2, : len(task.keys)])
        self._received += 1
        return bad

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def epitaph(self) -> str:
        """How the process ended."""
        try:
            code = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "closed its connection"
        if code >= 0:
            return f"ended with exit code {code}"
        ended_by = signal.Signals(-code)
        notes = {
            signal.SIGKILL: "; is the machine out of memory?",
            signal.SIGALRM: f": it took longer than {self.seconds} s over {CHUNK} images",
        }
        return f"was ended by {ended_by.name}{notes.get(ended_by, '')}"


class DecodePool:
    """Decoding processes, and one thread each that hands them chunks. Close it, or use it with ``with``."""

    def __init__(self, options: AugmentOptions, workers: int, seconds: int = 300) -> None:
        """Start ``workers`` processes; one that takes longer than ``seconds`` over a chunk hangs and is ended."""
        self._queue: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._workers: list[_Worker] = []
        self._threads: list[threading.Thread] = []
        try:
            for _ in range(workers):
                self._workers.append(_Worker(options, seconds))
        except BaseException:
            self.close()
            raise
        for worker in self._workers:
            thread = threading.Thread(target=self._attend, args=(worker,), daemon=True, name="decode")
            thread.start()
            self._threads.append(thread)

    @property
    def process_ids(self) -> list[int]:
        """Of the workers."""
        return [worker.process.pid for worker in self._workers]

    def submit(
        self, epoch: int, keys: Sequence[str], jpegs: Sequence[bytes | None], out: np.ndarray
    ) -> Future[Bad]:
        """Have at most ``CHUNK`` images decoded into ``out`` (see :func:`decode_rows`)."""
        task = _Task(epoch, keys, jpegs, out)
        with self._lock:
            if self._error is not None:
                task.done.set_exception(self._error)
            else:
                self._queue.put(task)
        return task.done

    def close(self) -> None:
        """Kill the processes, whatever they are doing; what is not done fails."""
        self._fail(RuntimeError("the decoding processes were closed"))
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.kill()
        for thread in self._threads:
            thread.join()
        for worker in self._workers:
            worker.connection.close()

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _attend(self, worker: _Worker) -> None:
        """Keep one worker busy: a chunk waits in its socket while it works on another."""
        with_worker: deque[_Task] = deque()
        try:
            while (task := self._next(wait=not with_worker)) is not None or with_worker:
                if task is not None:
                    with_worker.append(task)
                    worker.send(task)
                    if len(with_worker) < 2:
                        continue
                bad = worker.receive(with_worker[0])
                with_worker.popleft().done.set_result(bad)
        except (EOFError, OSError):
            died = f"a decoding process (pid {worker.process.pid}) {worker.epitaph()}"
            if with_worker:
                died += f", at work on {with_worker[0].keys[0]} to {with_worker[0].keys[-1]}"
            self._fail(RuntimeError(died), with_worker)
        except BaseException as error:
            self._fail(error, with_worker)

    def _next(self, wait: bool) -> _Task | None:
        """The next task; None if there is none now, or when the pool ends."""
        try:
            task = self._queue.get(block=wait)
        except queue.Empty:
            return None
        if task is None:
            self._queue.put(None)  # the end of the pool is for every thread to see
        return task

    def _fail(self, error: BaseException, lost: Sequence[_Task] = ()) -> None:
        """From now on nothing works: tasks that wait, and those to come, get the first error."""
        with self._lock:
            self._error = self._error or error
            waiting = list(lost)
            while (task := self._next(wait=False)) is not None:
                waiting.append(task)
            self._queue.put(None)
        for task in waiting:
            task.done.set_exception(self._error)


def _anonymous_file(size: int) -> io.BufferedRandom:
    """A file without a name, in memory where the system can; gone with the last process that holds it."""
    if hasattr(os, "memfd_create"):
        file = os.fdopen(os.memfd_create("decoded-pixels"), "w+b")
    else:
        file = tempfile.TemporaryFile()  # noqa: SIM115
    file.truncate(size)
    return file


def _start_python(*descriptors: int) -> subprocess.Popen[bytes]:
    """A worker that holds these descriptors and finds the modules that this process finds."""
    paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    code = f"from training.feed.decode import serve; serve{descriptors}"
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code],
        stdin=subprocess.DEVNULL,
        pass_fds=descriptors,
        env={**os.environ, "PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"},
    )


def serve(connection_descriptor: int, memory_descriptor: int) -> None:
    """A worker's life: chunks in, pixels out, until its parent closes the connection or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    connection = Connection(connection_descriptor)
    options, parent, seconds = connection.recv()
    shape = (2, CHUNK, options.image_size, options.image_size, 3)
    pixels = np.ndarray(shape, np.uint8, mmap.mmap(memory_descriptor, 0))
    augmenter: Augmenter | None = None
    try:
        while _has_task(connection, parent):
            half, epoch, keys, jpegs = connection.recv()
            signal.alarm(seconds)  # without a handler its signal ends the process, native code or not
            try:
                augmenter = augmenter or Augmenter(options)
                reply = (decode_rows(augmenter, epoch, keys, jpegs, pixels[half, : len(keys)]), "")
            except Exception:
                reply = ([], traceback.format_exc())
            signal.alarm(0)
            connection.send(reply)
    except (EOFError, OSError):
        return


def _has_task(connection: Connection, parent: int) -> bool:
    """Wait for something to read; False if the parent is gone (a process forked from it may hold its end)."""
    while not connection.poll(_PARENT_SECONDS):
        if os.getppid() != parent:
            return False
    return True

"""One run of a job on a workspace at a time.

The lock is a small file beside the table with a heartbeat. On a local or network disk it is created
exclusively; object stores and HDFS offer no exclusive creation through Arrow, so there the file is
written and read back after a moment, which two runs that start in the same second can still both pass: the
later one then finds the other's name at the next heartbeat and stops.
"""

from __future__ import annotations

import contextlib
import json
import os
import posixpath
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

from configs.errors import UserError
from storage.addresses import is_local, join, make_folder, resolve
from storage.small_files import read_small, write_atomically

__all__ = ["TableLock", "hold_lock"]

HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 60.0


@dataclass
class TableLock:
    """A held lock; :meth:`check` before every commit."""

    address: str
    job: str
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    lost_to: str | None = None

    def check(self) -> None:
        """Raise if another run has taken the lock over (this one was frozen for longer than a minute).

        Raises:
            UserError: it has, or the lock cannot be read.
        """
        try:
            owner = _read(self.address)
        except OSError as error:
            raise UserError(
                f"{self.address} cannot be read: {error}; mend the store, then run again"
            ) from None
        if self.lost_to is None and owner is not None and owner.get("token", self.token) != self.token:
            self.lost_to = _describe(owner)
        if self.lost_to is not None:
            raise UserError(
                f"another run of {self.job} took over this table ({self.lost_to}); this one stops"
            )

    def content(self) -> bytes:
        """The lock file's text."""
        values = {"job": self.job, "token": self.token, "host": socket.gethostname(), "pid": os.getpid()}
        return json.dumps({**values, "time": time.time()}).encode()


@contextlib.contextmanager
def hold_lock(workspace: str, table: str, job: str) -> Iterator[TableLock]:
    """Hold a table's lock while its job runs.

    Raises:
        UserError: another live run holds it.
    """
    lock = TableLock(join(workspace, table, "_lock.json"), job)
    _acquire(lock, table)
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(lock, stop), daemon=True)
    beat.start()
    try:
        yield lock
    finally:
        stop.set()
        beat.join()
        with contextlib.suppress(OSError):  # whatever ended the run is to be told; the lock ends by its age
            owner = _read(lock.address)
            if owner is not None and owner.get("token") == lock.token:
                filesystem, path = resolve(lock.address)
                filesystem.delete_file(path)


def _acquire(lock: TableLock, table: str) -> None:
    filesystem, path = resolve(lock.address)
    try:
        make_folder(filesystem, posixpath.dirname(path))
        for _ in range(3):
            if is_local(filesystem):
                if _create_exclusively(path, lock.content()):
                    return
            elif _read(lock.address) is None:
                write_atomically(lock.address, lock.content())
                time.sleep(1.0)
            owner = _read(lock.address)
            if owner is not None and owner.get("token") == lock.token:
                return
            if owner is not None and _is_alive(owner):
                raise UserError(
                    f"another run of {lock.job} is at work on table '{table}' ({_describe(owner)}); wait for it, "
                    f"or if it is dead try again in a minute"
                )
            with contextlib.suppress(FileNotFoundError):
                filesystem.delete_file(path)
    except OSError as error:
        raise UserError(
            f"cannot write to {posixpath.dirname(lock.address)}: {error}; choose a writable workspace="
        ) from None
    raise UserError(f"{lock.address}: several runs want this lock at once; try again")


def _create_exclusively(path: str, data: bytes) -> bool:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
    return True


def _read(address: str) -> dict[str, object] | None:
    data = read_small(address)
    if data is None:
        return None
    with contextlib.suppress(ValueError):
        values = json.loads(data)
        if isinstance(values, dict) and "time" in values:
            return values
    # Being written at this moment (on a local disk it is created empty), or damaged: as old as its file.
    filesystem, path = resolve(address)
    changed = filesystem.get_file_info(path).mtime
    return {"time": changed.timestamp()} if changed is not None else None


def _is_alive(owner: dict[str, object]) -> bool:
    if owner.get("host") == socket.gethostname() and isinstance(owner.get("pid"), int):
        try:
            os.kill(int(str(owner["pid"])), 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
    stamp = owner.get("time")
    return isinstance(stamp, int | float) and time.time() - stamp < STALE_SECONDS


def _describe(owner: dict[str, object]) -> str:
    return f"host {owner.get('host', 'unknown')}, process {owner.get('pid', 'unknown')}"


def _beat(lock: TableLock, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_SECONDS):
        with contextlib.suppress(OSError):  # a request that fails: the next one tells
            owner = _read(lock.address)
            if owner is not None and owner.get("token", lock.token) != lock.token:
                lock.lost_to = _describe(owner)
                return
            write_atomically(lock.address, lock.content())

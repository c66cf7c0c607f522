"""Handing batches from the thread that begins them to the one that takes them, a few ahead."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

__all__ = ["BoundedQueue", "closed_after"]

_Item = TypeVar("_Item")


class BoundedQueue(Generic[_Item]):
    """Items in order, begun one by one and never more than ``limit`` at a time; or the error that ended them."""

    def __init__(self, limit: int) -> None:
        self._room = threading.Semaphore(limit)
        self._queue: queue.SimpleQueue[_Item | BaseException | None] = queue.SimpleQueue()
        self._stopped = False

    def has_room(self) -> bool:
        """Wait until one more may be begun; False if none is wanted any more."""
        self._room.acquire()
        return not self._stopped

    def put(self, item: _Item | BaseException | None) -> None:
        """One more; an error that the taker is to raise; or None after the last."""
        self._queue.put(item)

    def take(self) -> _Item | None:
        """The next one; None after the last."""
        item = self._queue.get()
        self._room.release()
        if isinstance(item, BaseException):
            raise item
        return item

    def stop(self) -> None:
        """No more are wanted."""
        self._stopped = True
        self._room.release()


@contextmanager
def closed_after(iterator: Iterator[_Item]) -> Iterator[Iterator[_Item]]:
    """Closes a generator in the thread that runs it; other iterators have nothing to close."""
    try:
        yield iterator
    finally:
        if isinstance(iterator, Generator):
            iterator.close()

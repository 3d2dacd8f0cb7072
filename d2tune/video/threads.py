"""Stages of a pipeline in threads of their own, with bounded queues between them."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar("Item")

_END = object()
_LOOK_S = 0.05
"""How often a waiting thread looks whether it is to stop; a wait with a limit can be interrupted by Ctrl-C."""


class Ahead(Generic[Item]):
    """Takes items from an iterator in a thread, and gives them in order; to be used as a context manager.

    Args:
        items: The iterator, which only the thread uses; an error in it is raised where the items are taken.
        waiting: The most items that wait. The thread waits then.
        newest: Whether an item that is not taken before the next one comes is dropped instead.

    Attributes:
        dropped: Number of dropped items.
    """

    def __init__(self, items: Iterator[Item], *, waiting: int, newest: bool = False) -> None:
        self._items = items
        self._newest = newest
        self._queue: queue.Queue[object] = queue.Queue(1 if newest else waiting)
        self._stop = threading.Event()
        self._is_abandoned = False
        self._error: BaseException | None = None
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="d2tune-ahead", daemon=True)

    def __enter__(self) -> Ahead[Item]:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._is_abandoned = True
        self._thread.join()

    def stop(self) -> None:
        """Take no further items from the iterator; those that wait are still given."""
        self._stop.set()

    def __iter__(self) -> Iterator[Item]:
        while (item := self._next()) is not _END:
            yield item  # type: ignore[misc]
        if self._error is not None:
            raise self._error

    def has_ready(self) -> bool:
        """Whether an item, or the end, is waiting now."""
        return not self._queue.empty()

    def _next(self) -> object:
        while True:
            try:
                return self._queue.get(timeout=_LOOK_S)
            except queue.Empty:
                continue

    def _run(self) -> None:
        try:
            for item in self._items:
                self._put(item)
                if self._stop.is_set():
                    break
        except BaseException as error:
            self._error = error
        finally:
            self._put(_END)

    def _put(self, item: object) -> None:
        while not self._is_abandoned:
            try:
                return self._queue.put(item, timeout=0.0 if self._newest else _LOOK_S)
            except queue.Full:
                pass
            if self._newest and item is not _END:
                self._drop()
            elif self._newest:
                time.sleep(_LOOK_S)

    def _drop(self) -> None:
        try:
            self._queue.get_nowait()
            self.dropped += 1
        except queue.Empty:  # it was taken just now
            pass


class Behind(Generic[Item]):
    """Calls a function with items in a thread, in their order; to be used as a context manager.

    Args:
        work: The function. After an error in it nothing more is worked on, and the error is raised by the next `put`
            or at the end.
        waiting: The most items that wait; `put` waits then.
    """

    def __init__(self, work: Callable[[Item], object], *, waiting: int) -> None:
        self._work = work
        self._queue: queue.Queue[object] = queue.Queue(waiting)
        self._error: BaseException | None = None
        self._is_abandoned = False
        self._thread = threading.Thread(target=self._run, name="d2tune-behind", daemon=True)

    def __enter__(self) -> Behind[Item]:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_abandoned = error is not None
        self._queue.put(_END)
        self._thread.join()
        if error is None and self._error is not None:
            raise self._error

    def put(self, item: Item) -> None:
        """Add an item to work on.

        Raises:
            BaseException: That of the function for an earlier item.
        """
        if self._error is not None:
            raise self._error
        self._queue.put(item)

    def _run(self) -> None:
        while (item := self._queue.get()) is not _END:
            if self._error is not None or self._is_abandoned:
                continue
            try:
                self._work(item)  # type: ignore[arg-type]
            except BaseException as error:
                self._error = error

"""Reading many files with several processes, in the order of the files.

The processes are separate Python interpreters connected by pipes. Unlike those of ``multiprocessing`` they never import
the main script again, so this works from a notebook, from ``python -c`` and from scripts without a main guard, and
unlike forks they inherit no locks of threads. loky was measured and is slower, see
docs/decisions/010-libraries-in-annotations.md.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, TypeVar

from d2tune.errors import DataError, MachineError

Item = TypeVar("Item")
Result = TypeVar("Result")
Span = tuple[int, int]

_MOST_ITEMS_AT_ONCE = 16
_SPANS_PER_WORKER = 4
_ITEMS_WORTH_A_WORKER = 1000
_QUIET_S = 2.0
_MOST_WORKERS = 4
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_START = "import sys; sys.path[:] = {path!r}; from d2tune.annotations.io import workers; workers.serve()"


class WorkerError(RuntimeError):
    """The function that reads files failed in another process."""


def worker_count(wanted: int | None, items: int) -> int:
    """The number of processes for reading, including this process.

    Args:
        wanted: The number asked for; None takes one per core and thousand files, up to four.
        items: The number of files.

    Raises:
        DataError: ``wanted`` is below 1.
    """
    if wanted is not None and wanted < 1:
        raise DataError("the number of workers must be 1 or more", found=str(wanted))
    if not sys.executable:
        return 1
    if wanted is None:
        wanted = min(_cores(), _MOST_WORKERS, items // _ITEMS_WORTH_A_WORKER)
    return max(1, min(wanted, items))


def _cores() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def ordered_map(
    function: Callable[[Sequence[Item]], list[Result]], items: Sequence[Item], *, workers: int, label: str, unit: str
) -> list[Result]:
    """``function(items)``, a few items at a time, with several processes and, after two seconds, a progress bar.

    Args:
        function: Returns a result for each of some items; can be pickled and imported, and keeps no state.
        items: Its arguments, passed a few at a time.
        workers: The number of processes, including this process.
        label: The text of the progress bar.
        unit: The unit of the progress bar, in the plural and with a space before it.

    Raises:
        MachineError: A process ended before its work was done.
        WorkerError: ``function`` raised in another process.
    """
    at_once = max(1, min(_MOST_ITEMS_AT_ONCE, len(items) // (workers * _SPANS_PER_WORKER)))
    spans = [(start, min(start + at_once, len(items))) for start in range(0, len(items), at_once)]
    work = _Work(spans)
    crew: list[_Worker] = []
    with _Progress(len(items), label, unit) as progress, no_collections():
        try:
            task = pickle.dumps((function, items)) if workers > 1 else b""
            for _ in range(workers - 1):
                crew.append(_Worker(task, work))
            while (span := work.next()) is not None:
                work.done(span, function(items[slice(*span)]))
                progress.show(work.counted)
            while any(worker.is_alive() for worker in crew):
                for worker in crew:
                    worker.join(0.02)
                progress.show(work.counted)
        finally:
            for worker in crew:
                worker.stop()
    if work.problem is not None:
        raise work.problem
    return [result for span in spans for result in work.results[span]]


@contextlib.contextmanager
def no_collections() -> Iterator[None]:
    """Switch garbage collection off: searching millions of objects for cycles takes an eighth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Progress:
    """A bar on the terminal after two seconds; tqdm is imported only then, because its import takes time too."""

    def __init__(self, total: int, label: str, unit: str) -> None:
        self._settings: dict[str, Any] = {"total": total, "desc": label, "unit": unit}
        self._started_s = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, count: int) -> None:
        """Show that ``count`` items are done in total."""
        if self._bar is None:
            elapsed_s = time.monotonic() - self._started_s
            if elapsed_s < _QUIET_S:
                return
            from tqdm import tqdm

            self._bar = tqdm(**self._settings, leave=False, disable=None)
            self._bar.start_t = time.time() - elapsed_s
        self._bar.update(count - self._bar.n)


class _Work:
    """The work that remains, shared by the threads that distribute it."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self.results: dict[Span, list[Any]] = {}
        self.counted = 0
        self.problem: Exception | None = None
        self._lock = threading.Lock()
        self._left: queue.SimpleQueue[Span] = queue.SimpleQueue()
        for span in spans:
            self._left.put(span)

    def next(self) -> Span | None:
        """The next span to work on; None where there is none, or an error occurred."""
        if self.problem is not None:
            return None
        try:
            return self._left.get_nowait()
        except queue.Empty:
            return None

    def done(self, span: Span, results: list[Any]) -> None:
        with self._lock:
            self.results[span] = results
            self.counted += len(results)


class _Worker(threading.Thread):
    """A process, and the thread that sends it work and receives its results."""

    def __init__(self, task: bytes, work: _Work) -> None:
        super().__init__(daemon=True)
        self._task = task
        self._work = work
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START.format(path=sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | _ONE_THREAD,
        )
        self.start()

    def run(self) -> None:
        try:
            self._distribute()
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            status = self._process.wait()
            died = MachineError(
                "a process that reads files ended early",
                found=f"exit status {status}",
                hint="The memory may be too small: use --workers 1.",
            )
            died.__cause__ = error
            self._work.problem = self._work.problem or died

    def _distribute(self) -> None:
        """Send each span before the one before it is done, so that the process never waits."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(self._task)
        waiting: list[Span] = []
        while True:
            while len(waiting) < 2 and (span := self._work.next()) is not None:
                _send(self._process.stdin, span)
                waiting.append(span)
            if not waiting:
                return
            ok, answer = pickle.load(self._process.stdout)
            if not ok:
                self._work.problem = WorkerError(f"a reading process failed:\n{answer}")
                return
            self._work.done(waiting.pop(0), answer)

    def stop(self) -> None:
        """End the process at once."""
        self._process.kill()
        self.join()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                _close(stream)
        self._process.wait()


def _close(stream: IO[bytes]) -> None:
    with contextlib.suppress(OSError):  # data that was not sent yet to a process that has ended
        stream.close()


def _send(stream: IO[bytes], value: object) -> None:
    stream.write(pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL))
    stream.flush()


def serve() -> None:
    """The main function of a reading process: apply the function that it receives to spans of the items."""
    gc.disable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends this process
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # printed text must not get among the answers
    questions = sys.stdin.buffer
    function, items = pickle.load(questions)
    while True:
        try:
            start, stop = pickle.load(questions)
        except EOFError:
            return
        answer: tuple[bool, Any]
        try:
            answer = True, function(items[start:stop])
        except Exception:
            import traceback

            answer = False, traceback.format_exc()
        try:
            _send(answers, answer)
        except OSError:
            return

"""What reaches the terminal and the log file: guarded streams, and the handlers of log lines."""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO, cast

from d2tune.text import printable_lines

_GONE = (errno.EPIPE, errno.EBADF, errno.EIO)
"""Errors of a stream whose reader or terminal is gone."""

_CURSOR = frozenset("\n\r\x1b[A ")
"""Characters of the writes by which a progress bar moves the cursor."""


class _Guarded:
    """A stream of the terminal. Its reader may go away, which stops nothing: what follows is discarded.

    Control characters, direction marks and lone surrogates, which names of files and labels may have, are written as
    escapes; progress bars may begin a line anew.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_gone = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        return self.write_raw(_shown(text))

    def write_raw(self, text: str) -> int:
        """Write text whose control characters are meant for the terminal."""
        with self._tolerant():
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with self._tolerant():
            self._stream.flush()

    @contextmanager
    def _tolerant(self) -> Iterator[None]:
        if self._is_gone:
            return (yield)
        try:
            yield
        except OSError as error:
            if error.errno not in _GONE:
                raise
            self.discard()
        except ValueError:
            if not self._stream.closed:
                raise
            self._is_gone = True

    def discard(self) -> None:
        """Send what is in the buffers, and all that follows, nowhere."""
        self._is_gone = True
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            self._stream.flush()


def _shown(text: str) -> str:
    if text.isprintable() or _CURSOR.issuperset(text):
        return text
    start = "\r" if text.startswith("\r") else ""
    return start + printable_lines(text[len(start) :])


class _Unescaped:
    """A guarded stream to which control characters are written as they are."""

    def __init__(self, stream: _Guarded) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write_raw(text)

    def flush(self) -> None:
        self._stream.flush()


def unescaped(stream: TextIO) -> TextIO:
    """The stream for one who moves the cursor, and escapes all text from files."""
    return cast(TextIO, _Unescaped(stream) if isinstance(stream, _Guarded) else stream)


def guard_streams() -> None:
    """Guard the standard output and the standard error of this process; missing streams discard what they get.

    Characters that the encoding of the terminal lacks are written as escapes.
    """
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        _occupy(number)
        stream = getattr(sys, name)
        if number == 0:
            continue
        if stream is None:
            stream = io.TextIOWrapper(io.FileIO(os.devnull, "w"), encoding="utf-8", write_through=True)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        if not isinstance(stream, _Guarded):
            setattr(sys, name, cast(TextIO, _Guarded(stream)))


@contextmanager
def guarded_streams() -> Iterator[None]:
    """Guard the streams as `guard_streams` does until the context ends, which flushes them."""
    earlier = sys.stdout, sys.stderr
    guard_streams()
    guarded = sys.stdout, sys.stderr
    try:
        yield
    finally:
        for stream in guarded:
            try:
                stream.flush()
            except OSError:
                if isinstance(stream, _Guarded):
                    stream.discard()
        sys.stdout, sys.stderr = earlier


def _occupy(number: int) -> None:
    """Open a missing standard stream, whose number the next file would get, and with it what is printed."""
    try:
        os.fstat(number)
    except OSError:
        nowhere = os.open(os.devnull, os.O_RDWR)
        if nowhere != number:
            os.dup2(nowhere, number)
            os.close(nowhere)


class _LogFile(logging.FileHandler):
    """A log file. Where a line cannot be written, as on a full disk, it is dropped, and nothing stops."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # the name of the library
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


@contextmanager
def log_to(file: Path) -> Iterator[None]:
    """Append all log lines of d2tune, Detectron2 and fvcore to ``file`` until the context ends."""
    handler = _LogFile(file, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    loggers = [logging.getLogger(name) for name in ("d2tune", "detectron2", "fvcore")]
    earlier = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger, level in zip(loggers, earlier, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
        with suppress(OSError):
            handler.close()


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to what the standard error is when a line comes, which a live view may have replaced."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


def set_up_terminal(*, debug: bool = False) -> None:
    """Show warnings of d2tune (with ``debug``, all log lines) on the terminal; Detectron2's go to the log."""
    guard_streams()
    own = logging.getLogger("d2tune")
    for earlier in list(own.handlers):
        if isinstance(earlier, logging.StreamHandler) and not isinstance(earlier, logging.FileHandler):
            own.removeHandler(earlier)
    handler = _StandardError()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s" if debug else "%(message)s"))
    handler.setLevel(logging.DEBUG if debug else logging.WARNING)
    own.addHandler(handler)
    own.setLevel(logging.DEBUG if debug else logging.INFO)
    own.propagate = False
    for name in ("detectron2", "fvcore"):
        noisy = logging.getLogger(name)
        noisy.propagate = False
        noisy.addHandler(logging.NullHandler())

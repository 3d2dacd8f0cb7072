"""The handlers of log lines: d2tune's go to the terminal, those of a run to its log file as well."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def log_to(file: Path) -> Iterator[None]:
    """Append all log lines of d2tune, Detectron2 and fvcore to ``file`` until the context ends."""
    handler = logging.FileHandler(file, encoding="utf-8")
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
        handler.close()


def set_up_terminal(*, debug: bool = False) -> None:
    """Show warnings of d2tune (with ``debug``, all log lines) on the terminal; Detectron2's are only in the run's log.

    Characters that the encoding of the terminal lacks are written as escapes.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    own = logging.getLogger("d2tune")
    for earlier in list(own.handlers):
        if isinstance(earlier, logging.StreamHandler) and not isinstance(earlier, logging.FileHandler):
            own.removeHandler(earlier)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s" if debug else "%(message)s"))
    handler.setLevel(logging.DEBUG if debug else logging.WARNING)
    own.addHandler(handler)
    own.setLevel(logging.DEBUG if debug else logging.INFO)
    own.propagate = False
    for name in ("detectron2", "fvcore"):
        noisy = logging.getLogger(name)
        noisy.propagate = False
        noisy.addHandler(logging.NullHandler())

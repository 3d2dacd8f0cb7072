"""A run's scalars as one JSON object a line."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from d2tune import files
from d2tune.loggers.base import Logger, RunInfo


class JsonLines(Logger):
    """Writes ``metrics.jsonl`` of the run folder: the scalars of an iteration and ``iteration``; images are not kept.

    The metrics of the finished run are not in it: ``evaluation.json`` has them.

    A line is on the disk when ``log`` returns. Where a run is resumed, the lines of iterations that will be logged
    again are removed.
    """

    takes_evaluations = False
    _stream: IO[str]

    def start(self, run: RunInfo) -> None:
        file = run.folder.metrics
        _remove_lines(file, from_iteration=run.first_iteration)
        self._stream = file.open("a", encoding="utf-8", newline="\n")

    def log(self, scalars: Mapping[str, float], *, iteration: int) -> None:
        self._stream.write(json.dumps({**scalars, "iteration": iteration}, sort_keys=True) + "\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def log_images(self, images: Mapping[str, Any], *, iteration: int) -> None:
        """Does nothing: JSON lines hold scalars alone."""

    def finish(self) -> None:
        self._stream.close()


def _remove_lines(file: Path, *, from_iteration: int) -> None:
    """Remove the lines of later iterations, and one that a crash cut off."""
    if not file.is_file():
        return
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if _iteration(line) < from_iteration]
    if kept != lines:
        files.write_text(file, "".join(kept))


def _iteration(line: str) -> float:
    try:
        return float(json.loads(line)["iteration"])
    except (ValueError, KeyError, TypeError):
        return float("inf")

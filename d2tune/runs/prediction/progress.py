"""The progress of a prediction: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tqdm import tqdm

FIRST_LINE_S = 30.0
"""Seconds until the first line where there is no terminal."""
LINE_SHARE = 0.1
"""Later lines come when this share of the time since the beginning has passed: about 70 in a day."""


class Progress:
    """Shows how many images are finished, images per second, and the time left; to be used as a context manager.

    Args:
        total: Number of images.
        done: How many of them an interrupted call has finished.
    """

    def __init__(self, total: int, done: int) -> None:
        self._total, self._done = total, done
        self._before = done
        self._began = self._last = time.monotonic()
        self._bar = tqdm(total=total, initial=done, desc="predicting", unit=" images", leave=False, disable=None)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def update(self) -> None:
        """Count a finished image."""
        self._done += 1
        self._bar.update()
        if self._bar.disable:
            self._print(time.monotonic())

    def _print(self, now: float) -> None:
        passed_s = now - self._began
        if now - self._last < max(FIRST_LINE_S, LINE_SHARE * passed_s) or self._done == self._total:
            return
        self._last = now
        per_second = (self._done - self._before) / passed_s
        left = tqdm.format_interval((self._total - self._done) / per_second)
        line = f"predicted on {self._done} of {self._total} images, {per_second:.3g} images/s, {left} left"
        print(line, file=sys.stderr, flush=True)

"""Where the time of an evaluation goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass


@dataclass(slots=True)
class StageTimes:
    """Where the time of an evaluation went, in seconds.

    Stages overlap, so that their sum can exceed ``total_s``.

    Attributes:
        load_s: Reading, decoding and resizing images.
        forward_s: The network.
        postprocess_s: Pasting and encoding masks.
        score_s: Matching and metrics.
        total_s: Elapsed time, from the first image to the last metric.
    """

    load_s: float = 0.0
    forward_s: float = 0.0
    postprocess_s: float = 0.0
    score_s: float = 0.0
    total_s: float = 0.0

    @contextmanager
    def scoring(self) -> Iterator[None]:
        """What happens inside is scoring."""
        with self._into("score_s"):
            yield

    @contextmanager
    def running(self) -> Iterator[None]:
        """What happens inside is the network, with all that belongs to it."""
        with self._into("forward_s"):
            yield

    @contextmanager
    def _into(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        spent_s = time.perf_counter() - start
        setattr(self, stage, getattr(self, stage) + spent_s)
        self.total_s += spent_s

    def to_json(self) -> dict[str, float]:
        """The times rounded to milliseconds."""
        return {name: round(value, 3) for name, value in asdict(self).items()}

"""The table of tracks: when an object was there, how large it was, and how far it moved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

COLUMNS = (
    "track_id", "class", "frames", "first_frame", "last_frame", "first_s", "last_s", "duration_s", "mean_score",
    "mean_area_px2", "path_px", "displacement_px", "mean_speed_px_s",
)  # fmt: skip
MM_COLUMNS = ("mean_area_mm2", "path_mm", "displacement_mm", "mean_speed_mm_s")

REST_PX = 2.0
"""An object is at rest as long as its center stays within this distance, so that jitter of masks is not a path."""


@dataclass(slots=True)
class _Sums:
    """What is known of a track: a few hundred bytes, however long it is."""

    first_frame: int
    first_s: float
    first_px: NDArray[np.float64]
    rest_px: NDArray[np.float64]
    last_frame: int = 0
    last_s: float = 0.0
    last_px: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    frames: int = 0
    score: float = 0.0
    area_px2: float = 0.0
    path_px: float = 0.0
    classes: Counter[int] = field(default_factory=Counter)


class TrackTable:
    """Sums up tracks frame by frame.

    Args:
        class_names: All classes in the order of their ids.
        mm_per_px: Millimeters that a pixel stands for; None measures in pixels alone.
    """

    def __init__(self, class_names: Sequence[str], *, mm_per_px: float | None = None) -> None:
        self._class_names = class_names
        self._mm_per_px = mm_per_px
        self._sums: dict[int, _Sums] = {}

    def __len__(self) -> int:
        return len(self._sums)

    @property
    def columns(self) -> tuple[str, ...]:
        """The header."""
        return COLUMNS if self._mm_per_px is None else COLUMNS + MM_COLUMNS

    def add(
        self,
        track_id: int,
        class_id: int,
        *,
        frame: int,
        time_s: float,
        score: float | None,
        area_px2: float,
        center_px: NDArray[np.float64],
    ) -> None:
        """Add an object of the next frame."""
        sums = self._sums.get(track_id)
        if sums is None:
            sums = self._sums[track_id] = _Sums(frame, time_s, center_px, center_px)
        away_px = float(np.linalg.norm(center_px - sums.rest_px))
        if away_px > REST_PX:
            sums.path_px += away_px
            sums.rest_px = center_px
        sums.last_frame, sums.last_s, sums.last_px = frame, time_s, center_px
        sums.frames += 1
        sums.score += 1.0 if score is None else score
        sums.area_px2 += area_px2
        sums.classes[class_id] += 1

    def class_of(self, track_id: int) -> int:
        """The class that most detections of a track have."""
        return self._sums[track_id].classes.most_common(1)[0][0]

    def rows(self) -> Iterator[list[Any]]:
        """A row of `columns` for each track, in the order of their ids."""
        for track_id, sums in sorted(self._sums.items()):
            duration_s = sums.last_s - sums.first_s
            away_px = float(np.linalg.norm(sums.last_px - sums.first_px))
            area_px2 = sums.area_px2 / sums.frames
            speed = sums.path_px / duration_s if duration_s else 0.0
            row = [track_id, self._class_names[self.class_of(track_id)], sums.frames, sums.first_frame, sums.last_frame]
            row += [round(value, 6) for value in (sums.first_s, sums.last_s, duration_s, sums.score / sums.frames)]
            row += [round(value, 2) for value in (area_px2, sums.path_px, away_px, speed)]
            if self._mm_per_px is not None:
                lengths = [sums.path_px, away_px, speed]
                measured = [area_px2 * self._mm_per_px**2, *(length * self._mm_per_px for length in lengths)]
                row += [float(f"{value:.6g}") for value in measured]
            yield row

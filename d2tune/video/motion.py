"""Where a tracked object moves: a Kalman filter of its center with constant velocity (Kalman 1960).

The velocity changes at random. Its spread is proportional to the size of the object, as in ByteTrack and DeepSORT,
because near objects are larger and move over more pixels. It is stated per second, so that frames may come at any
times.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MEASURED_SHARE = 0.05
"""Standard deviation of a measured center, as a share of the object's size."""

_PARTIAL_SHARE = 0.15
"""The same for an object that is partly hidden, so that its center is that of what is visible."""

_CHANGE_SHARE = 0.8
"""Standard deviation by which the velocity changes within a second, in sizes per second."""

_FIRST_SHARE = 3.0
"""Standard deviation of the velocity of a new object, in sizes per second."""


class Motion:
    """The center and the velocity of an object; both axes are independent and have the same spread.

    Args:
        center_px: ``(2,)``, x and y of the center, in pixels.
        size_px: Square root of the area of the object.
    """

    def __init__(self, center_px: NDArray[np.float64], size_px: float) -> None:
        self._mean: NDArray[np.float64] = np.stack([center_px, np.zeros(2)])
        self._spread = np.diag([(_MEASURED_SHARE * size_px) ** 2, (_FIRST_SHARE * size_px) ** 2])
        self._size_px = size_px

    @property
    def center_px(self) -> NDArray[np.float64]:
        """``(2,)``, x and y of the center, in pixels."""
        center: NDArray[np.float64] = self._mean[0]
        return center

    @property
    def velocity_px_s(self) -> NDArray[np.float64]:
        """``(2,)``, in pixels per second."""
        velocity: NDArray[np.float64] = self._mean[1]
        return velocity

    def predict(self, seconds: float) -> None:
        """Move on by a time, with white noise as acceleration (Bar-Shalom et al. 2001, 6.2.2)."""
        step = np.array([[1.0, seconds], [0.0, 1.0]])
        power = (_CHANGE_SHARE * self._size_px) ** 2
        noise = power * np.array([[seconds**3 / 3, seconds**2 / 2], [seconds**2 / 2, seconds]])
        self._mean = step @ self._mean
        self._spread = step @ self._spread @ step.T + noise

    def stay_inside(self, width_px: int, height_px: int) -> None:
        """Let an object that left the image wait at its edge."""
        inside = np.clip(self._mean[0], 0, [width_px, height_px])
        self._mean[1][inside != self._mean[0]] = 0.0
        self._mean[0] = inside

    def correct(self, center_px: NDArray[np.float64], size_px: float, *, is_partial: bool) -> None:
        """Take a measured center into account.

        Args:
            center_px: ``(2,)``, x and y of the center, in pixels.
            size_px: Square root of the area of the object.
            is_partial: Whether the object may be partly hidden; its size then stays.
        """
        if not is_partial:
            self._size_px = size_px
        share = _PARTIAL_SHARE if is_partial else _MEASURED_SHARE
        gain = self._spread[:, 0] / (self._spread[0, 0] + (share * self._size_px) ** 2)
        self._mean = self._mean + np.outer(gain, center_px - self._mean[0])
        self._spread = self._spread - np.outer(gain, self._spread[0])

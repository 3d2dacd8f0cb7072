"""The part of a frame that the network sees: a window around the objects, resized."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.model.types import Mask
from d2tune.propagation.methods.network import STRIDE

INPUT_AREA_PX2 = 320 * 320
"""Area of the network's input, whatever the frames have."""

_MOST_ENLARGED = 2.0
_LEAST_INPUT_PX = 64
_MARGIN_SHARE, _MARGIN_FRAME_SHARE = 0.6, 0.05
"""Space around the objects: shares of their longer side and of the longer side of the frame."""


class Window(NamedTuple):
    """A rectangle of a frame, in whole pixels."""

    left: int
    top: int
    width: int
    height: int

    @property
    def input_size(self) -> tuple[int, int]:
        """Width and height that the window has as an input of the network."""
        scale = min(math.sqrt(INPUT_AREA_PX2 / (self.width * self.height)), _MOST_ENLARGED)
        width, height = (
            max(_LEAST_INPUT_PX, round(side * scale / STRIDE) * STRIDE) for side in (self.width, self.height)
        )
        return width, height

    def cut(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The window of an image, resized to `input_size`."""
        inside = image[self.top : self.top + self.height, self.left : self.left + self.width]
        size = self.input_size
        how = cv2.INTER_AREA if size[0] < self.width else cv2.INTER_LINEAR
        resized: NDArray[np.uint8] = cv2.resize(inside, size, interpolation=how)
        return resized

    def paste(self, values: NDArray[np.float32], canvas: NDArray[np.float32]) -> None:
        """Put values ``(h, w, K)`` of the network, resized, into an image ``(H, W, K)``."""
        resized = cv2.resize(values, (self.width, self.height), interpolation=cv2.INTER_LINEAR)
        area = canvas[self.top : self.top + self.height, self.left : self.left + self.width]
        area[...] = resized.reshape(area.shape)


def whole(shape: tuple[int, ...]) -> Window:
    """The whole of an image with this shape ``(H, W, ...)``."""
    return Window(0, 0, shape[1], shape[0])


def window_around(masks: Iterable[Mask], shape: tuple[int, ...]) -> Window:
    """The window around masks ``(H, W)``; the whole frame where they have no pixels."""
    boxes = [cv2.boundingRect(mask.view(np.uint8)) for mask in masks if mask.any()]
    if not boxes:
        return whole(shape)
    left, top = (min(box[axis] for box in boxes) for axis in range(2))
    right, bottom = (max(box[axis] + box[axis + 2] for box in boxes) for axis in range(2))
    margin = _MARGIN_SHARE * max(right - left, bottom - top) + _MARGIN_FRAME_SHARE * max(shape[:2])
    left, top = max(0, int(left - margin)), max(0, int(top - margin))
    right, bottom = min(shape[1], math.ceil(right + margin)), min(shape[0], math.ceil(bottom + margin))
    return Window(left, top, right - left, bottom - top)


def merged_windows(windows: Iterable[Window]) -> list[Window]:
    """Windows of which those that overlap are joined to one around them, so that the others are disjoint."""
    separate: list[Window] = []
    for window in windows:
        joined, changed = window, True
        while changed:
            changed = False
            for other in separate:
                if _overlap(joined, other):
                    separate.remove(other)
                    joined, changed = _around(joined, other), True
                    break
        separate.append(joined)
    return separate


def _overlap(a: Window, b: Window) -> bool:
    return (
        a.left < b.left + b.width
        and b.left < a.left + a.width
        and a.top < b.top + b.height
        and b.top < a.top + a.height
    )


def _around(a: Window, b: Window) -> Window:
    left, top = min(a.left, b.left), min(a.top, b.top)
    right, bottom = max(a.left + a.width, b.left + b.width), max(a.top + a.height, b.top + b.height)
    return Window(left, top, right - left, bottom - top)

"""The part of a frame that the network sees: a window around the objects, resized, and varied for training."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.formats.semantic import IGNORE_LABEL
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


def varied(
    image: NDArray[np.uint8], labels: NDArray[np.uint8], window: Window, chance: random.Random
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A random variant of a window to train on: moved, scaled, turned, mirrored, with other light and blur.

    Args:
        image: ``(H, W, 3)`` in RGB.
        labels: ``(H, W)``, 0 for the background and 1 to K for the objects.
        window: The window.
        chance: Source of the randomness.

    Returns:
        The image ``(h, w, 3)`` from 0 to 255 and its labels ``(h, w)``, ignored outside of the frame.
    """
    size = window.input_size
    matrix = _variation(size, chance) @ np.array(
        [
            [size[0] / window.width, 0, -window.left * size[0] / window.width],
            [0, size[1] / window.height, -window.top * size[1] / window.height],
            [0, 0, 1],
        ]
    )
    pixels = cv2.warpAffine(image, matrix[:2], size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    classes = cv2.warpAffine(
        labels, matrix[:2], size, flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=IGNORE_LABEL
    )
    return _relit(pixels.astype(np.float32), chance), classes.astype(np.uint8)


def _variation(size: tuple[int, int], chance: random.Random) -> NDArray[np.float64]:
    """An affine map ``(3, 3)`` of an input onto a variant of it."""
    scale, stretch = math.exp(chance.uniform(-0.4, 0.5)), math.exp(chance.uniform(-0.15, 0.15))
    angle = math.radians(chance.uniform(-15, 15))
    mirror = -1.0 if chance.random() < 0.5 else 1.0
    cosine, sine = math.cos(angle) * scale, math.sin(angle) * scale
    x, y = size[0] / 2, size[1] / 2
    to_center = np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1]])
    turn = np.array([[cosine * stretch * mirror, -sine, 0], [sine * stretch * mirror, cosine, 0], [0, 0, 1]])
    shift_x, shift_y = chance.uniform(-0.2, 0.2) * size[0], chance.uniform(-0.2, 0.2) * size[1]
    back = np.array([[1, 0, x + shift_x], [0, 1, y + shift_y], [0, 0, 1]])
    variation: NDArray[np.float64] = back @ turn @ to_center
    return variation


def _relit(pixels: NDArray[np.float32], chance: random.Random) -> NDArray[np.float32]:
    """An image with another contrast, brightness and color, and now and then with blur."""
    pixels = (pixels - 128) * math.exp(chance.uniform(-0.25, 0.25)) + 128 + chance.uniform(-20, 20)
    pixels *= np.exp(np.array([chance.uniform(-0.06, 0.06) for _ in range(3)], np.float32))
    if chance.random() < 0.4:
        width = chance.choice((3, 5, 7))
        kernel = chance.choice(((width, 1), (1, width), (width, width)))
        pixels = cv2.blur(pixels, kernel).astype(np.float32)
    return np.clip(pixels, 0, 255, out=pixels)

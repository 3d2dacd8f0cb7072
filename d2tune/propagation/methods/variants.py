"""Random variants of a labeled frame to train on, so that one frame stands for those that follow.

The frame is moved, scaled, turned and mirrored as a whole; in some variants each object is also moved by itself over a
ground from which the objects were removed, so that the network does not take the surroundings of an object for the
object (Khoreva et al. 2017, arXiv 1703.09554).
"""

from __future__ import annotations

import math
import random

import cv2
import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.formats.semantic import IGNORE_LABEL
from d2tune.propagation.methods.windows import Window

_INPAINTED_PX = 160
"""Longer side of the reduced frame in which the ground behind objects is filled in."""
_FILL_RADIUS_PX = 3
_SHOWN = 0.85
"""Share of variants with moved objects that show an object."""


def ground_of(image: NDArray[np.uint8], labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A frame whose objects are filled in from their surroundings (Telea 2004), coarsely.

    Args:
        image: ``(H, W, 3)`` in RGB.
        labels: ``(H, W)``, 0 for the ground.
    """
    height, width = labels.shape
    scale = min(1.0, _INPAINTED_PX / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    hole = cv2.dilate((labels > 0).astype(np.uint8), np.ones((5, 5), np.uint8))
    small_hole = (cv2.resize(hole * 255, size, interpolation=cv2.INTER_AREA) > 0).astype(np.uint8)
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    filled = cv2.inpaint(small, small_hole, _FILL_RADIUS_PX, cv2.INPAINT_TELEA)
    enlarged = cv2.resize(filled, (width, height), interpolation=cv2.INTER_LINEAR)
    ground: NDArray[np.uint8] = np.where(hole[..., None] > 0, enlarged, image).astype(np.uint8)
    return ground


def rearranged(
    image: NDArray[np.uint8],
    ground: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    window: Window,
    chance: random.Random,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A random variant of a window with the objects at other places, in any order, now and then without one.

    Args:
        image: ``(H, W, 3)`` in RGB.
        ground: `ground_of` it.
        labels: ``(H, W)``, 0 for the ground and 1 to K for the objects.
        window: The window.
        chance: Source of the randomness.

    Returns:
        See `varied`.
    """
    size = window.input_size
    onto = _onto(window, size)
    base = _variation(size, chance) @ onto
    pixels = cv2.warpAffine(ground, base[:2], size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    mixed = pixels.astype(np.float32)
    classes = np.zeros(size[::-1], np.uint8)
    numbers = [int(number) for number in np.unique(labels) if number not in (0, IGNORE_LABEL)]
    chance.shuffle(numbers)
    for number in numbers:
        if chance.random() > _SHOWN:
            continue
        mask = (labels == number).astype(np.float32)
        rows, columns = np.nonzero(mask)
        center = onto @ np.array([columns.mean(), rows.mean(), 1.0])
        target = chance.uniform(0.1, 0.9) * size[0], chance.uniform(0.1, 0.9) * size[1]
        matrix = _about((center[0], center[1]), target, chance) @ onto
        moved = cv2.warpAffine(image, matrix[:2], size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        alpha = cv2.warpAffine(mask, matrix[:2], size, flags=cv2.INTER_LINEAR)
        soft = cv2.blur(alpha, (3, 3))[..., None]
        mixed = mixed * (1 - soft) + moved.astype(np.float32) * soft
        classes[alpha >= 0.5] = number
    return _relit(mixed, chance), classes


def _about(center: tuple[float, float], target: tuple[float, float], chance: random.Random) -> NDArray[np.float64]:
    """An affine map that moves an object with this center to a target, scaled, turned and mirrored at random."""
    scale, angle = math.exp(chance.uniform(-0.3, 0.3)), math.radians(chance.uniform(-15, 15))
    mirror = -1.0 if chance.random() < 0.5 else 1.0
    cosine, sine = math.cos(angle) * scale, math.sin(angle) * scale
    to_center = np.array([[1, 0, -center[0]], [0, 1, -center[1]], [0, 0, 1]])
    turn = np.array([[cosine * mirror, -sine, 0], [sine * mirror, cosine, 0], [0, 0, 1]])
    moved: NDArray[np.float64] = np.array([[1, 0, target[0]], [0, 1, target[1]], [0, 0, 1]]) @ turn @ to_center
    return moved


def _onto(window: Window, size: tuple[int, int]) -> NDArray[np.float64]:
    """The affine map of a window onto an input of this size."""
    x, y = size[0] / window.width, size[1] / window.height
    return np.array([[x, 0, -window.left * x], [0, y, -window.top * y], [0, 0, 1]])


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
    matrix = _variation(size, chance) @ _onto(window, size)
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

"""The squares that a Siamese tracker sees: an object with a margin, and the place where it is searched."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

EXEMPLAR_PX, SEARCH_PX = 127, 255
"""Sides of both squares, as in SiamFC and all that followed it (Bertinetto et al. 2016)."""

_CONTEXT = 0.5
"""Margin around an object, as a share of the sum of its width and height."""


@dataclass(frozen=True, slots=True)
class ObjectBox:
    """The box of an object: its center and size, in pixels of an image."""

    x: float
    y: float
    width_px: float
    height_px: float

    @property
    def exemplar_side_px(self) -> float:
        """Side of the square of the image that becomes an exemplar."""
        margin = _CONTEXT * (self.width_px + self.height_px)
        return max(1.0, math.sqrt((self.width_px + margin) * (self.height_px + margin)))


def box_of(mask: NDArray[np.bool_]) -> ObjectBox | None:
    """The box of the pixels of a mask ``(H, W)``; None where it has none."""
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    return ObjectBox(left + width / 2, top + height / 2, width, height) if width and height else None


@dataclass(frozen=True, slots=True)
class Square:
    """A square of an image, resized.

    Attributes:
        x: Center in pixels of the image.
        y: Center in pixels of the image.
        scale: Pixels of the square for one of the image, across and down.
        side_px: Side of the result; its center is the middle of pixel ``side_px // 2``.
        turn: Angle by which the image is turned, in radians.
    """

    x: float
    y: float
    scale: tuple[float, float]
    side_px: int
    turn: float = 0.0

    @classmethod
    def around(cls, box: ObjectBox, *, side_px: int) -> Square:
        """The square in which an object has the size that it has in its exemplar."""
        scale = EXEMPLAR_PX / box.exemplar_side_px
        return cls(box.x, box.y, (scale, scale), side_px)

    def cut(self, image: NDArray[np.uint8], border: tuple[float, ...]) -> NDArray[np.uint8]:
        """The pixels of the square, ``(side_px, side_px, 3)``, with a color outside of the image.

        Args:
            image: ``(H, W, 3)``.
            border: The color.
        """
        reduction = max(1, int(1 / max(self.scale)))
        source, offset = image, np.zeros(2)
        if reduction > 1:
            source, offset = self._reduced(image, reduction)
        move = self._to_square(reduction, offset)
        side = (self.side_px, self.side_px)
        if source.size == 0:
            return np.full((*side, 3), np.round(border), np.uint8)
        warped: Any = cv2.warpAffine(source, move, side, borderMode=cv2.BORDER_CONSTANT, borderValue=border)
        return np.asarray(warped, np.uint8)

    def cut_mask(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The mask ``(H, W)`` in the square, ``(side_px, side_px)``."""
        move = self._to_square(1, np.zeros(2))
        values = cv2.warpAffine(mask.astype(np.uint8) * 255, move, (self.side_px, self.side_px))
        return np.asarray(values > 127)

    def back(self, values: NDArray[np.float32], size_hw: tuple[int, int], *, outside: float = 0.0) -> Any:
        """Values ``(side_px, side_px)`` of the square at the pixels of the image, ``(H, W)``."""
        move = self._to_square(1, np.zeros(2))
        size = (size_hw[1], size_hw[0])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(values, move, size, flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=outside)

    def point(self, x: float, y: float) -> tuple[float, float]:
        """Where a place of the square, in pixel indices, is in the image; for squares that are not turned."""
        middle = self.side_px // 2
        return self.x + (x - middle) / self.scale[0], self.y + (y - middle) / self.scale[1]

    def _to_square(self, reduction: int, offset: NDArray[np.float64]) -> NDArray[np.float64]:
        """The affine map from pixel indices of a reduced image that begins at ``offset`` to those of the square."""
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        linear = np.array([[self.scale[0] * cos, -self.scale[0] * sin], [self.scale[1] * sin, self.scale[1] * cos]])
        # index i of the reduced image is at offset + (i + 0.5) * reduction in the image
        start = offset + 0.5 * reduction - (self.x, self.y)
        return np.column_stack([linear * reduction, linear @ start + self.side_px // 2])

    def _reduced(self, image: NDArray[np.uint8], reduction: int) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """What of the image the square covers, with averaged pixels, and where it begins."""
        half = math.hypot(*(self.side_px / scale / 2 for scale in self.scale)) + 2 * reduction
        left, top = max(0, int(self.x - half)), max(0, int(self.y - half))
        right, bottom = min(image.shape[1], int(self.x + half) + 1), min(image.shape[0], int(self.y + half) + 1)
        columns, rows = max(0, right - left) // reduction, max(0, bottom - top) // reduction
        if not columns or not rows:
            return image[:0], np.array([left, top], float)
        window = image[top : top + rows * reduction, left : left + columns * reduction]
        return cv2.resize(window, (columns, rows), interpolation=cv2.INTER_AREA), np.array([left, top], float)


def mean_color(image: NDArray[np.uint8]) -> tuple[float, ...]:
    """The mean of each channel of an image ``(H, W, 3)``, which stands for what is outside of it."""
    return cv2.mean(image)[:3]

"""Overlapping windows over an image: where they begin, and how they are resized for the network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from threading import Lock
from typing import NamedTuple, Protocol

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import transforms as T

from d2tune.data.image_reader import Pixels
from d2tune.data.mapper import LEAST_SIDE_PX, to_tensor
from d2tune.errors import ProjectError
from d2tune.inference.loop import Sample

DEFAULT_OVERLAP = 0.2
_LARGEST_OVERLAP = 0.75
"""Share of a window that the next window covers as well."""


class Window(NamedTuple):
    """A rectangle of an image, in pixels."""

    top_px: int
    left_px: int
    bottom_px: int
    right_px: int

    def shared(self, other: Window) -> Window | None:
        """The rectangle that both windows cover; None if they do not overlap."""
        top, left = max(self.top_px, other.top_px), max(self.left_px, other.left_px)
        bottom, right = min(self.bottom_px, other.bottom_px), min(self.right_px, other.right_px)
        return Window(top, left, bottom, right) if top < bottom and left < right else None


class WindowedImage(Protocol):
    """An image that is read window by window, such as `d2tune.data.image_reader.OpenImage`."""

    @property
    def height_px(self) -> int: ...

    @property
    def width_px(self) -> int: ...

    def read(self, top_px: int, left_px: int, height_px: int, width_px: int) -> Pixels:
        """A window ``(h, w, C)``: uint8, or float32 with NaN for pixels without data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """The size of windows and of their overlap, in pixels of the image.

    Attributes:
        window_px: Height and width of a window.
        overlap_px: Width of the strip that neighboring windows share.
    """

    window_px: int
    overlap_px: int

    @classmethod
    def chosen(cls, window_px: int, *, overlap: float = DEFAULT_OVERLAP, object_px: int = 0) -> Windows:
        """The windows that a person asks for.

        Args:
            window_px: Height and width of a window.
            overlap: Share of a window that the next window covers as well, above 0 and at most 0.75.
            object_px: Size of the largest objects that are to be whole in a window; the overlap is at least as wide.

        Raises:
            ProjectError: A number is outside of its range.
        """
        least_px = 2 * LEAST_SIDE_PX
        if window_px < least_px:
            given, valid = f"{window_px} px", f"at least {least_px} px"
            raise ProjectError("the window is too small", place="--window-px", found=given, expected=valid)
        if not 0 < overlap <= _LARGEST_OVERLAP:
            given, valid = f"{overlap:g}", f"above 0 and at most {_LARGEST_OVERLAP}: a share of the window"
            message = "what two windows see cannot be joined without a strip that both see"
            if overlap > _LARGEST_OVERLAP:
                message = "windows that are so close cover each pixel too often"
            if not math.isfinite(overlap) or overlap < 0:
                message = "the overlap is not a share of a window"
            raise ProjectError(message, place="--overlap", found=given, expected=valid)
        if not 0 <= object_px < window_px:
            given, valid = f"{object_px} px", f"from 0 to below the window of {window_px} px"
            message = "objects that are to be whole in a window must be smaller than it"
            if object_px < 0:
                message = "the size of objects is below 0"
            raise ProjectError(message, place="--object-px", found=given, expected=valid)
        widest_px = window_px - 1
        return cls(window_px=window_px, overlap_px=min(max(1, round(overlap * window_px), object_px), widest_px))

    @classmethod
    def of_config(cls, cfg: CfgNode, *, overlap: float = DEFAULT_OVERLAP) -> Windows:
        """The windows of a config that sets ``TEST.WINDOW_PX``; ``overlap`` counts where it sets no overlap."""
        window_px = cfg.TEST.WINDOW_PX
        return cls(window_px=window_px, overlap_px=cfg.TEST.WINDOW_OVERLAP_PX or round(overlap * window_px))

    def scale(self, short_side_px: int) -> float:
        """The factor by which windows are resized, so that a square window gets the size of the network's input.

        Args:
            short_side_px: Short side of images in evaluation; 0 if they are not resized.
        """
        return short_side_px / self.window_px if short_side_px else 1.0


def starts(length_px: int, window_px: int, overlap_px: int) -> tuple[int, ...]:
    """Where the windows along a side begin: at regular steps, the last one moved back to end at the border."""
    last = length_px - min(window_px, length_px)
    return (*range(0, last, window_px - overlap_px), last)


def grid(height_px: int, width_px: int, windows: Windows) -> list[Window]:
    """The windows of an image, row by row; an image that is smaller than a window is one window."""
    rows, columns = (starts(side, windows.window_px, windows.overlap_px) for side in (height_px, width_px))
    high, wide = (min(side, windows.window_px) for side in (height_px, width_px))
    return [Window(top, left, top + high, left + wide) for top, left in product(rows, columns)]


def overlapping(windows: Sequence[Window]) -> Iterator[tuple[int, int, Window]]:
    """Yield the indices of all windows of a `grid` that overlap, with the rectangle that they share."""
    for first, window in enumerate(windows):
        for second in range(first + 1, len(windows)):
            other = windows[second]
            if other.top_px >= window.bottom_px:
                break
            shared = window.shared(other)
            if shared is not None:
                yield first, second, shared


class WindowSamples:
    """The windows of an open image as samples of a network; see `loop.Samples`.

    All windows are resized by the same factor, also those of images that are narrower than a window, so that objects
    have the same size in all of them. ``height`` and ``width`` of a sample are those of its window.

    Args:
        image: The open image.
        windows: Its windows.
        scale: The factor; 1 leaves the pixels as they are.
    """

    def __init__(self, image: WindowedImage, windows: Sequence[Window], *, scale: float) -> None:
        self._image = image
        self._windows = windows
        self._scale = scale
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._windows)

    def input_size(self, index: int) -> tuple[int, int]:
        """Height and width of the resized window, in pixels."""
        window = self._windows[index]
        return scaled_size(window.bottom_px - window.top_px, window.right_px - window.left_px, self._scale)

    def __getitem__(self, index: int) -> Sample:
        """``image`` ``(C, h, w)``, and ``height`` and ``width`` of the window.

        Raises:
            DataError: The window cannot be read.
        """
        top_px, left_px, bottom_px, right_px = self._windows[index]
        height_px, width_px = bottom_px - top_px, right_px - left_px
        with self._lock:  # samples are loaded in several threads, and the file has one position
            pixels = self._image.read(top_px, left_px, height_px, width_px)
        resize = T.ResizeTransform(height_px, width_px, *self.input_size(index))
        image = pixels if self._scale == 1 else resize.apply_image(np.ascontiguousarray(pixels))
        return {"image": to_tensor(image), "height": height_px, "width": width_px}


def scaled_size(height_px: int, width_px: int, scale: float) -> tuple[int, int]:
    """Height and width of a window after resizing by a factor."""
    if scale == 1:
        return height_px, width_px
    return max(LEAST_SIDE_PX, round(height_px * scale)), max(LEAST_SIDE_PX, round(width_px * scale))

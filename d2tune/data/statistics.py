"""Mean and standard deviation of channels, and pixels of classes, measured from the training part."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.formats.semantic import IGNORE_LABEL

logger = logging.getLogger(__name__)

BLOCK_VALUES = 1 << 22
"""How many values are in memory at once, as float64."""


class Windows(AbstractContextManager[Any], Protocol):
    """An open image that is read window by window, as a `Raster` is."""

    height_px: int
    width_px: int
    channels: int

    def read(self, top_px: int = 0, left_px: int = 0, height_px: int | None = None, width_px: int | None = None) -> Any:
        """A window ``(h, w, C)``, NaN where there is no data."""


@dataclass(frozen=True, slots=True)
class ChannelStatistics:
    """What the channels of some images look like.

    Attributes:
        mean: Of each channel, over the pixels that hold data; 0 where none does.
        std: Of each channel, dividing by the number of pixels; 1 where the channel is constant or holds no data.
        pixels: Pixels looked at, with those that hold no data.
        empty: Places of the images that hold no data anywhere.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    pixels: int
    empty: tuple[int, ...] = ()


def channel_statistics(rasters: Iterable[Windows], *, block_values: int = BLOCK_VALUES) -> ChannelStatistics:
    """Measure the channels of some images, a few rows at a time.

    Blocks are merged as in Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances" (1979), in float64, so that the result does not depend on how the images are cut. Channels that are
    constant or hold no data are named in a warning, by their places from 0, unless no image holds any.

    Args:
        rasters: Open images of one number of channels, closed when they are read; from a generator, one is open at
            a time.
        block_values: How many values are read at once.

    Raises:
        DataError: An image is broken.
        ValueError: There are no images, or they differ in their channels.
    """
    total: _Moments | None = None
    pixels = 0
    empty = []
    for number, raster in enumerate(rasters):
        with raster:
            total = _Moments(raster.channels) if total is None else total
            values = total.count.sum()
            rows = max(1, block_values // (raster.width_px * raster.channels))
            for top_px in range(0, raster.height_px, rows):
                block = raster.read(top_px, 0, min(rows, raster.height_px - top_px), None)
                total.add(block.reshape(-1, raster.channels))
            pixels += raster.height_px * raster.width_px
            empty += [number] if total.count.sum() == values else []
    if total is None:
        raise ValueError("there are no images to measure")
    return ChannelStatistics(tuple(total.mean.tolist()), tuple(total.deviation().tolist()), pixels, tuple(empty))


class _Moments:
    """Count, mean and sum of squared deviations of each channel."""

    def __init__(self, channels: int) -> None:
        self.count = np.zeros(channels)
        self.mean = np.zeros(channels)
        self.squares = np.zeros(channels)
        self.low = np.full(channels, np.inf)
        self.high = np.full(channels, -np.inf)

    def add(self, block: NDArray[Any]) -> None:
        """Merge a block ``(N, C)`` of values, of which NaN is left out."""
        if block.shape[1] != len(self.mean):
            raise ValueError(f"an image has {block.shape[1]} channels, those before it {len(self.mean)}")
        for channel in range(block.shape[1]):
            values = block[:, channel].astype(np.float64)
            values = values[~np.isnan(values)]
            if values.size:
                self._merge(channel, values)

    def _merge(self, channel: int, values: NDArray[np.float64]) -> None:
        mean = float(values.mean())
        apart = mean - self.mean[channel]
        before, both = self.count[channel], self.count[channel] + values.size
        self.mean[channel] += apart * values.size / both
        self.squares[channel] += float(np.square(values - mean).sum()) + apart**2 * before * values.size / both
        self.count[channel] = both
        self.low[channel] = min(self.low[channel], values.min())
        self.high[channel] = max(self.high[channel], values.max())

    def deviation(self) -> NDArray[np.float64]:
        """The standard deviation of each channel, 1 where there is none to divide by."""
        empty, constant = self.count == 0, self.low == self.high
        whats = (empty & ~empty.all(), "without data"), (constant, "with the same value everywhere")
        for chosen, what in whats:
            if chosen.any():
                places = ", ".join(map(str, np.flatnonzero(chosen).tolist()))
                logger.warning("channels %s in the training part, which teach nothing: %s", what, places)
        deviation: NDArray[np.float64] = np.sqrt(self.squares / np.maximum(self.count, 1))
        return np.where(empty | constant, 1.0, deviation)


def class_pixels(label_maps: Iterable[NDArray[np.uint8]], *, classes: int) -> tuple[int, ...]:
    """How many pixels each class has.

    Args:
        label_maps: Each ``(H, W)``: places of classes, 255 where pixels are left out.
        classes: How many there are.

    Raises:
        ValueError: A label map holds a value that is no class.
    """
    counts = np.zeros(256, dtype=np.int64)
    for labels in label_maps:
        rows = max(1, BLOCK_VALUES // labels.shape[1])
        for top in range(0, len(labels), rows):
            counts += np.bincount(labels[top : top + rows].reshape(-1), minlength=256)
    strangers = [value for value in np.flatnonzero(counts).tolist() if classes <= value != IGNORE_LABEL]
    if strangers:
        raise ValueError(f"label maps hold {strangers}, which are none of the {classes} classes")
    return tuple(counts[:classes].tolist())

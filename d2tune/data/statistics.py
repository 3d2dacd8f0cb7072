"""Mean and standard deviation of channels, and number of pixels of classes, measured on a split."""

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
"""Values that are in memory at once, as float64."""


class Windows(AbstractContextManager[Any], Protocol):
    """An open image that is read window by window, such as a `Raster`."""

    height_px: int
    width_px: int
    channels: int

    def read(self, top_px: int = 0, left_px: int = 0, height_px: int | None = None, width_px: int | None = None) -> Any:
        """A window ``(h, w, C)``, NaN for pixels without data."""


@dataclass(frozen=True, slots=True)
class ChannelStatistics:
    """Mean and standard deviation of the channels of some images.

    Attributes:
        mean: Mean of each channel over the pixels with data; 0 for a channel without data.
        std: Population standard deviation of each channel; 1 for a channel that is constant or without data.
        pixels: Number of pixels, including those without data.
        empty: Indices of the images without any data.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    pixels: int
    empty: tuple[int, ...] = ()


def channel_statistics(rasters: Iterable[Windows], *, block_values: int = BLOCK_VALUES) -> ChannelStatistics:
    """Measure the channels of some images, a few rows at a time.

    Blocks are merged as in Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances" (1979), in float64, so that the result does not depend on the size of the blocks. A warning lists the
    indices of channels that are constant or without data, unless no image has any data.

    Args:
        rasters: Open images with the same number of channels. Each is closed after it is read, so with a generator
            only one image is open at a time.
        block_values: Values that are read at once.

    Raises:
        DataError: An image is damaged.
        ValueError: There are no images, or their numbers of channels differ.
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
        """Merge a block ``(N, C)`` of values; NaN is ignored."""
        if block.shape[1] != len(self.mean):
            raise ValueError(f"an image has {block.shape[1]} channels, the images before it have {len(self.mean)}")
        for channel in range(block.shape[1]):
            values = block[:, channel].astype(np.float64)
            values = values[~np.isnan(values)]
            if values.size:
                self._merge(channel, values)

    def _merge(self, channel: int, values: NDArray[np.float64]) -> None:
        mean = float(values.mean())
        difference = mean - self.mean[channel]
        before, total = self.count[channel], self.count[channel] + values.size
        self.mean[channel] += difference * values.size / total
        self.squares[channel] += float(np.square(values - mean).sum()) + difference**2 * before * values.size / total
        self.count[channel] = total
        self.low[channel] = min(self.low[channel], values.min())
        self.high[channel] = max(self.high[channel], values.max())

    def deviation(self) -> NDArray[np.float64]:
        """The standard deviation of each channel; 1 for a channel that is constant or without data."""
        empty, constant = self.count == 0, self.low == self.high
        reasons = (empty & ~empty.all(), "without data"), (constant, "with the same value everywhere")
        for channels, reason in reasons:
            if channels.any():
                indices = ", ".join(map(str, np.flatnonzero(channels).tolist()))
                logger.warning("channels %s in the training split: %s", reason, indices)
        deviation: NDArray[np.float64] = np.sqrt(self.squares / np.maximum(self.count, 1))
        return np.where(empty | constant, 1.0, deviation)


def class_pixels(label_maps: Iterable[NDArray[np.uint8]], *, classes: int) -> tuple[int, ...]:
    """Number of pixels of each class.

    Args:
        label_maps: Each ``(H, W)``: class indices, 255 for ignored pixels.
        classes: Number of classes.

    Raises:
        ValueError: A label map has a value that is not a class index.
    """
    counts = np.zeros(256, dtype=np.int64)
    for labels in label_maps:
        rows = max(1, BLOCK_VALUES // labels.shape[1])
        for top in range(0, len(labels), rows):
            counts += np.bincount(labels[top : top + rows].reshape(-1), minlength=256)
    unknown = [value for value in np.flatnonzero(counts).tolist() if classes <= value != IGNORE_LABEL]
    if unknown:
        raise ValueError(f"label maps have the values {unknown}; class indices are 0 to {classes - 1}")
    return tuple(counts[:classes].tolist())

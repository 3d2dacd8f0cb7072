"""Reading the images of a project: photos, or rasters of any number of channels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from numpy.typing import NDArray

from d2tune.annotations.io.rasters import Georeference, Raster, open_raster
from d2tune.annotations.model.options import RasterOptions
from d2tune.data.mapper import read_image
from d2tune.data.sources import raster_options
from d2tune.errors import DataError
from d2tune.project import Project

Pixels = NDArray[Any]
"""``(H, W, C)``, uint8, or float32 with NaN where there is no data."""


class OpenImage:
    """An open raster, read window by window with the model's number of channels; see `Raster`.

    Args:
        raster: What is read.
        channels: 3 makes three channels of a gray photo; else those of the raster.
        order: ``RGB`` or ``BGR``, of photos.
    """

    def __init__(self, raster: Raster, channels: int, order: str) -> None:
        self._raster = raster
        self._is_turned = order == "BGR" and channels == 3 and raster.dtype == np.uint8
        self.channels = channels
        self.height_px = raster.height_px
        self.width_px = raster.width_px
        self.is_photo = raster.dtype == np.uint8

    @property
    def georeference(self) -> Georeference | None:
        """Where on earth it lies, if anywhere."""
        return self._raster.georeference

    def __enter__(self) -> OpenImage:
        return self

    def __exit__(self, *reason: object) -> None:
        self._raster.__exit__(*reason)

    def read(
        self, top_px: int = 0, left_px: int = 0, height_px: int | None = None, width_px: int | None = None
    ) -> Pixels:
        """A window ``(h, w, C)``, by default the whole image."""
        pixels = self._raster.read(top_px, left_px, height_px, width_px)
        if pixels.shape[2] != self.channels:
            return np.repeat(pixels, self.channels, axis=2)
        return np.ascontiguousarray(pixels[:, :, ::-1]) if self._is_turned else pixels


@dataclass(frozen=True, slots=True)
class ImageReader:
    """How images become arrays.

    Attributes:
        channels: Channels that the model takes; None takes those of the image.
        order: ``RGB`` or ``BGR``, of photos.
        raster: How rasters are read; None where all images are photos.
    """

    channels: int | None = 3
    order: str = "RGB"
    raster: RasterOptions | None = None

    def open(self, path: str | Path) -> OpenImage:
        """The image, to be read window by window.

        Raises:
            DataError: It cannot be read, or has other channels than the model takes.
        """
        raster = open_raster(Path(path), self.raster or RasterOptions())
        is_gray_photo = self.channels == 3 and raster.channels == 1 and raster.dtype == np.uint8
        if self.channels not in (None, raster.channels) and not is_gray_photo:
            raster.close()
            raise DataError(
                "the image has other channels than the model was made for",
                file=path,
                found=f"{raster.channels} channel{'' if raster.channels == 1 else 's'}",
                expected=str(self.channels),
                hint="data.label_images says which files are stacked, and which channels are used.",
            )
        return OpenImage(raster, self.channels or raster.channels, self.order)

    def read(self, path: str | Path) -> Pixels:
        """The whole image.

        Raises:
            DataError: It cannot be read, or has other channels than the model takes.
        """
        if self.raster is None:
            return read_image(str(path), self.order)
        with self.open(path) as image:
            return image.read()

    def shown(self, pixels: Pixels) -> Pixels:
        """What `read` gave, with photos as RGB."""
        is_turned = self.order == "BGR" and pixels.shape[2] == 3 and pixels.dtype == np.uint8
        return np.ascontiguousarray(pixels[:, :, ::-1]) if is_turned else pixels


def image_reader(project: Project, cfg: CfgNode) -> ImageReader:
    """The reader of a run's images."""
    return ImageReader(len(cfg.MODEL.PIXEL_MEAN), cfg.INPUT.FORMAT, raster_options(project))

"""Reader of a project's images: photos, or rasters with any number of channels."""

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
    """An open raster that is read window by window with the model's number of channels; see `Raster`.

    Args:
        raster: The open raster.
        channels: Channels of the result: 3 to repeat the channel of a gray photo, else those of the raster.
        order: Channel order of photos, ``RGB`` or ``BGR``.
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
        """Position of the raster on earth; None without georeference."""
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
        channels: Input channels of the model; None keeps those of the image.
        order: Channel order of photos, ``RGB`` or ``BGR``.
        raster: Options for reading rasters; None if all images are photos.
    """

    channels: int | None = 3
    order: str = "RGB"
    raster: RasterOptions | None = None

    def open(self, path: str | Path) -> OpenImage:
        """Open an image to read it window by window.

        Raises:
            DataError: The image cannot be read, or its number of channels is not that of the model.
        """
        raster = open_raster(Path(path), self.raster or RasterOptions())
        is_gray_photo = self.channels == 3 and raster.channels == 1 and raster.dtype == np.uint8
        if self.channels not in (None, raster.channels) and not is_gray_photo:
            raster.close()
            raise DataError(
                "the image does not have the number of channels of the model",
                file=path,
                found=f"{raster.channels} channel{'' if raster.channels == 1 else 's'}",
                expected=str(self.channels),
                hint="Set the stacked files and the channels in data.label_images.",
            )
        return OpenImage(raster, self.channels or raster.channels, self.order)

    def read(self, path: str | Path) -> Pixels:
        """Read a whole image.

        Returns:
            ``(H, W, C)``, uint8 or float32.

        Raises:
            DataError: The image cannot be read, or its number of channels is not that of the model.
        """
        if self.raster is None:
            return read_image(str(path), self.order)
        with self.open(path) as image:
            return image.read()

    def shown(self, pixels: Pixels) -> Pixels:
        """The pixels ``(H, W, C)`` that `read` returned, with photos in RGB order."""
        is_turned = self.order == "BGR" and pixels.shape[2] == 3 and pixels.dtype == np.uint8
        return np.ascontiguousarray(pixels[:, :, ::-1]) if is_turned else pixels


def image_reader(project: Project, cfg: CfgNode) -> ImageReader:
    """The reader of a run's images.

    Args:
        project: Its data section has the options for rasters.
        cfg: The run's config, with the channels of the model and their order.
    """
    return ImageReader(len(cfg.MODEL.PIXEL_MEAN), cfg.INPUT.FORMAT, raster_options(project))

"""Reader of a project's images: photos, or rasters with any number of channels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from numpy.typing import NDArray

from d2tune.annotations.io.images import ImageError, read_header
from d2tune.annotations.io.raster_files import TIFF_SUFFIXES
from d2tune.annotations.io.rasters import Georeference, Raster, georeference_of, open_raster
from d2tune.annotations.model.options import RasterOptions
from d2tune.data.mapper import read_image
from d2tune.data.sources import raster_options
from d2tune.errors import DataError
from d2tune.project import Project

_LARGE_PX = 50_000_000

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


class WholePhoto:
    """A decoded photo that is read window by window, as `OpenImage` is.

    Args:
        path: Its file.
        pixels: ``(H, W, 3)`` in the channel order of the model.
    """

    is_photo = True

    def __init__(self, path: Path, pixels: NDArray[np.uint8]) -> None:
        self._path = path
        self._pixels = pixels
        self.height_px, self.width_px, self.channels = pixels.shape

    @property
    def georeference(self) -> Georeference | None:
        """Position of the photo on earth; None without georeference."""
        return georeference_of(self._path)

    def __enter__(self) -> WholePhoto:
        return self

    def __exit__(self, *reason: object) -> None:
        pass

    def read(
        self, top_px: int = 0, left_px: int = 0, height_px: int | None = None, width_px: int | None = None
    ) -> Pixels:
        """A window ``(h, w, 3)``, by default the whole photo."""
        bottom_px = None if height_px is None else top_px + height_px
        right_px = None if width_px is None else left_px + width_px
        return np.ascontiguousarray(self._pixels[top_px:bottom_px, left_px:right_px])


@dataclass(frozen=True, slots=True)
class ImageReader:
    """How images become arrays.

    Attributes:
        channels: Input channels of the model; None keeps those of the image.
        order: Channel order of photos, ``RGB`` or ``BGR``.
        raster: Options for reading rasters; None if all images are photos.
        white: The value of 16-bit photos that becomes 255; None takes that of each file.
    """

    channels: int | None = 3
    order: str = "RGB"
    raster: RasterOptions | None = None
    white: float | None = None

    def open(self, path: str | Path) -> OpenImage | WholePhoto:
        """Open an image to read it window by window; photos are decoded whole, but for large TIFFs of 8 bits.

        Raises:
            DataError: The image cannot be read, or its number of channels is not that of the model.
        """
        if self.raster is None and not _is_large_tiff(Path(path)):
            return WholePhoto(Path(path), self.read(path))
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
            return read_image(str(path), self.order, white=self.white)
        with self.open(path) as image:
            return image.read()

    def shown(self, pixels: Pixels) -> Pixels:
        """The pixels ``(H, W, C)`` that `read` returned, with photos in RGB order."""
        is_turned = self.order == "BGR" and pixels.shape[2] == 3 and pixels.dtype == np.uint8
        return np.ascontiguousarray(pixels[:, :, ::-1]) if is_turned else pixels


def _is_large_tiff(path: Path) -> bool:
    """Whether a photo is a TIFF of 8 bits and too many pixels to be decoded whole without need."""
    if path.suffix.lower() not in TIFF_SUFFIXES:
        return False
    try:
        header = read_header(path)
    except ImageError:
        return False
    return header.pixel_format is None and header.width_px * header.height_px > _LARGE_PX


def image_reader(project: Project, cfg: CfgNode) -> ImageReader:
    """The reader of a run's images.

    Args:
        project: Its data section has the options for rasters.
        cfg: The run's config, with the channels of the model and their order.
    """
    return ImageReader(len(cfg.MODEL.PIXEL_MEAN), cfg.INPUT.FORMAT, raster_options(project), cfg.INPUT.WHITE or None)

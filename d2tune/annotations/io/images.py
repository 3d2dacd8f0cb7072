"""Images measured from their headers alone."""

# ruff: noqa: PTH113, PTH123

from __future__ import annotations

import io
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from d2tune.annotations.io.headers import quick_size
from d2tune.annotations.io.photos.pillow import (
    ImageError,
    RefusedImageError,
    open_pillow,
    orientation_of,
    pixel_format_of,
)
from d2tune.annotations.io.photos.tiff import tiff_header
from d2tune.annotations.io.suffixes import IMAGE_SUFFIXES, is_image_name, magic_suffix, unreadable_hint
from d2tune.annotations.model.pixel_format import PixelFormat

__all__ = ["IMAGE_SUFFIXES", "Header", "ImageError", "is_image_name", "magic_suffix", "read_header", "unreadable_hint"]


@dataclass(frozen=True, slots=True)
class Header:
    """The header of an image.

    Attributes:
        width_px: Width as displayed, after EXIF orientation.
        height_px: Height as displayed.
        orientation: The EXIF orientation, 1 to 8; 1 where there is none.
        pixel_format: How its pixels are stored; None for 8-bit gray, palette and RGB of one image.
    """

    width_px: int
    height_px: int
    orientation: int = 1
    pixel_format: PixelFormat | None = None

    @property
    def swapped(self) -> bool:
        """Whether the image is stored rotated by 90 degrees."""
        return self.orientation >= 5


def read_header(source: Path | bytes) -> Header:
    """Measure an image without decoding it.

    Args:
        source: The file, or its content.

    Raises:
        ImageError: The file is not an image that is read, or it is cut off or hostile; formats that are not read are
            named with what to do.
    """
    if isinstance(source, Path):
        if not os.path.isfile(source):
            raise ImageError("the file does not exist or is not a regular file")
        refused = unreadable_hint(source.name)
        if refused is not None:
            raise ImageError(refused)
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb", buffering=0) as stream:
            size = quick_size(stream)
        if size is None:
            with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as buffered:
                return _full_header(buffered)
    except OSError as error:
        raise ImageError(f"the file cannot be opened ({error.strerror or error})") from error
    width_px, height_px, orientation = size
    return Header(height_px, width_px, orientation) if orientation >= 5 else Header(*size)


def _full_header(stream: BinaryIO) -> Header:
    """The header as Pillow reads it; TIFFs that it does not know as tifffile reads them."""
    try:
        image = open_pillow(stream)
    except RefusedImageError:
        raise
    except ImageError:
        measured = tiff_header(stream)
        if measured is None:
            raise
        return Header(*measured)
    with image, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        width_px, height_px = image.size
        orientation = orientation_of(image)
        if orientation >= 5 and image.format != "TIFF":
            width_px, height_px = height_px, width_px
        return Header(width_px, height_px, orientation, pixel_format_of(image))

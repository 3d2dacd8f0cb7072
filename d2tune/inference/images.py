"""Image files, folders and arrays as samples of a network."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.io.images import ImageError, read_header
from d2tune.annotations.model.dataset import Image
from d2tune.data.image_reader import ImageReader, OpenImage, Pixels, WholePhoto
from d2tune.data.mapper import check_size, inference_sample
from d2tune.data.semantic_mapper import input_size, semantic_sample
from d2tune.errors import DataError
from d2tune.inference.listing import find_images as find_images
from d2tune.inference.listing import find_rasters as find_rasters
from d2tune.inference.listing import is_predicted_on as is_predicted_on
from d2tune.inference.loop import Sample

ImageLike = str | Path | Image | NDArray[Any]
"""A file, an image of a dataset, or an array: ``(H, W, 3)`` uint8 in RGB, ``(H, W)`` uint8 in gray, or for models of
rasters ``(H, W, C)`` uint8 or float32, NaN for pixels without data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSize:
    """The size of images after resizing for the network.

    Attributes:
        short_side_px: Short side; 0 disables resizing.
        max_side_px: Largest long side.
    """

    short_side_px: int
    max_side_px: int


class PredictionSamples:
    """Images in order, read and resized for a model; see `loop.Samples`.

    Args:
        images: The images.
        reader: Reader of files, with the channel order of the model.
        size: The size of images after resizing.
        is_semantic: Whether images are resized as for semantic models, which take any number of channels.
        keep_pixels: Whether samples also have ``pixels``: the image before resizing, photos as RGB ``(H, W, 3)``.
    """

    def __init__(
        self,
        images: Sequence[ImageLike],
        *,
        reader: ImageReader,
        size: InputSize,
        is_semantic: bool = False,
        keep_pixels: bool = False,
    ) -> None:
        self._images = images
        self._reader = reader
        self._size = size
        self._is_semantic = is_semantic
        self._keep_pixels = keep_pixels

    def __len__(self) -> int:
        return len(self._images)

    def input_size(self, index: int) -> tuple[int, int]:
        """Height and width of the resized image, in pixels; ``(0, 0)`` if the file cannot be read."""
        size_hw = size_of(self._images[index], self._reader)
        if size_hw is None:
            return 0, 0
        return input_size(size_hw, short_side_px=self._size.short_side_px, max_side_px=self._size.max_side_px)

    def __getitem__(self, index: int) -> Sample:
        """``image`` ``(C, h, w)``, ``height`` and ``width`` of the original image, and with ``keep_pixels`` ``pixels``.

        Raises:
            DataError: The file cannot be read, the array is not a valid input of the model, or the size of an image of
                a dataset has changed.
        """
        image = self._images[index]
        pixels = read_pixels(image, self._reader)
        make = semantic_sample if self._is_semantic else inference_sample
        sample = make(pixels, short_side_px=self._size.short_side_px, max_side_px=self._size.max_side_px)
        return sample | ({"pixels": self._reader.shown(pixels)} if self._keep_pixels else {})


def size_of(image: ImageLike, reader: ImageReader) -> tuple[int, int] | None:
    """Height and width of an image in its EXIF orientation, in pixels; None if the file cannot be read."""
    if isinstance(image, Image):
        return image.height_px, image.width_px
    if isinstance(image, np.ndarray):
        return (int(image.shape[0]), int(image.shape[1])) if image.ndim >= 2 and image.size else None
    try:
        if reader.raster is not None:
            with reader.open(image) as opened:
                return opened.height_px, opened.width_px
        header = read_header(Path(image))
        return header.height_px, header.width_px
    except (ImageError, DataError, OSError):
        return None


def read_pixels(image: ImageLike, reader: ImageReader) -> Pixels:
    """The pixels ``(H, W, C)`` of an image in the channel order of the model.

    Raises:
        DataError: The file cannot be read, the array is not a valid input of the model, or the size of an image of a
            dataset has changed.
    """
    if isinstance(image, np.ndarray):
        return _array_pixels(image, reader)
    path = image_path(image)
    pixels = reader.read(path)
    if isinstance(image, Image):
        check_size(pixels.shape[:2], (image.height_px, image.width_px), path)
    return pixels


def image_path(image: str | Path | Image) -> Path:
    """The file of an image.

    Raises:
        DataError: It is an image of a dataset without a file.
    """
    if not isinstance(image, Image):
        return Path(image)
    if image.path is None:
        raise DataError("the image has no file", file=image.file_name)
    return image.path


class ArrayImage:
    """An array that is read window by window; see `OpenImage`.

    Args:
        pixels: ``(H, W, C)`` in the channel order of the model.
    """

    georeference = None

    def __init__(self, pixels: Pixels) -> None:
        self._pixels = pixels
        self.height_px, self.width_px = pixels.shape[:2]

    def __enter__(self) -> ArrayImage:
        return self

    def __exit__(self, *reason: object) -> None:
        pass

    def read(
        self, top_px: int = 0, left_px: int = 0, height_px: int | None = None, width_px: int | None = None
    ) -> Pixels:
        """A window ``(h, w, C)``, by default the whole image."""
        bottom_px = None if height_px is None else top_px + height_px
        right_px = None if width_px is None else left_px + width_px
        return self._pixels[top_px:bottom_px, left_px:right_px]


def open_image(image: ImageLike, reader: ImageReader) -> OpenImage | WholePhoto | ArrayImage:
    """Open an image to read it window by window in the channel order of the model; to be used as a context manager.

    Raises:
        DataError: The file cannot be read, the array is not a valid input of the model, or the size of an image of a
            dataset has changed.
    """
    if isinstance(image, np.ndarray):
        return ArrayImage(_array_pixels(image, reader))
    path = image_path(image)
    with ExitStack() as stack:
        opened: OpenImage | WholePhoto = reader.open(path)
        stack.push(opened)
        if isinstance(image, Image):
            check_size((opened.height_px, opened.width_px), (image.height_px, image.width_px), path)
        stack.pop_all()
    return opened


def _array_pixels(array: NDArray[Any], reader: ImageReader) -> Pixels:
    channels = 3 if reader.channels is None else reader.channels
    pixels = array[:, :, None] if array.ndim == 2 else array
    if pixels.ndim == 3 and pixels.shape[2] == 1 and channels == 3:
        pixels = np.repeat(pixels, 3, axis=2)
    is_photo = pixels.dtype == np.uint8
    takes_floats = reader.raster is not None and pixels.dtype == np.float32
    if pixels.ndim != 3 or pixels.shape[2] != channels or not (is_photo or takes_floats) or not pixels.size:
        expected = f"(H, W, {channels}) uint8" + (" or float32" if reader.raster is not None else "")
        given = f"{array.shape} {array.dtype}"
        raise DataError("the array is not a valid input of the model", found=given, expected=expected)
    is_turned = reader.order == "BGR" and channels == 3 and is_photo
    # torch takes no array that is read-only, as those of Pillow are
    return np.require(pixels[:, :, ::-1] if is_turned else pixels, requirements=["C", "W"])

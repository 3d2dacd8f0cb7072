"""What is predicted on: image files and folders of them, and arrays, as samples of the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.io.images import ImageError, read_header
from d2tune.annotations.io.rasters import is_raster_name
from d2tune.annotations.model.dataset import Image
from d2tune.data.image_reader import ImageReader, Pixels
from d2tune.data.mapper import inference_sample
from d2tune.data.semantic_mapper import input_size, semantic_sample
from d2tune.errors import DataError
from d2tune.inference.loop import Sample

ImageLike = str | Path | Image | NDArray[Any]
"""A file, an image of a dataset, or an array: ``(H, W, 3)`` uint8 in RGB, ``(H, W)`` uint8 in gray, or of a model for
rasters ``(H, W, C)`` uint8 or float32, NaN where there is no data."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSize:
    """The size that images have when the network sees them.

    Attributes:
        short_side_px: Short side; 0 leaves images as they are.
        max_side_px: Longest side.
    """

    short_side_px: int
    max_side_px: int


class PredictionSamples:
    """Images in order, read and resized for a model; see `loop.Samples`.

    Args:
        images: The images.
        reader: Reads files, and says the channel order of the model.
        size: The size that the network sees.
        is_semantic: Whether images are resized as semantic models are trained, any number of channels at a time.
        keep_pixels: Whether samples have ``pixels`` too, the image as it is shown: photos ``(H, W, 3)`` in RGB.
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
        """Height and width of the resized image; 0 by 0 of a file that cannot be read."""
        size_hw = size_of(self._images[index], self._reader)
        if size_hw is None:
            return 0, 0
        return input_size(size_hw, short_side_px=self._size.short_side_px, max_side_px=self._size.max_side_px)

    def __getitem__(self, index: int) -> Sample:
        """``image`` ``(C, h, w)``, the image's own ``height`` and ``width``, and ``pixels`` where they are kept.

        Raises:
            DataError: The file cannot be read, or the array is not an image that the model takes.
        """
        image = self._images[index]
        pixels = read_pixels(image, self._reader)
        if isinstance(image, Image):
            _check_size(image, pixels)
        make = semantic_sample if self._is_semantic else inference_sample
        sample = make(pixels, short_side_px=self._size.short_side_px, max_side_px=self._size.max_side_px)
        return sample | ({"pixels": self._reader.shown(pixels)} if self._keep_pixels else {})


def size_of(image: ImageLike, reader: ImageReader) -> tuple[int, int] | None:
    """Height and width of an image as it is shown; None where the file cannot be read."""
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
        DataError: The file cannot be read, or the array is not an image that the model takes.
    """
    if isinstance(image, np.ndarray):
        return _of_array(image, reader)
    if isinstance(image, Image):
        if image.path is None:
            raise DataError("the image has no file", file=image.file_name)
        return reader.read(image.path)
    return reader.read(image)


def _of_array(array: NDArray[Any], reader: ImageReader) -> Pixels:
    channels = 3 if reader.channels is None else reader.channels
    pixels = array[:, :, None] if array.ndim == 2 else array
    if pixels.ndim == 3 and pixels.shape[2] == 1 and channels == 3:
        pixels = np.repeat(pixels, 3, axis=2)
    is_photo = pixels.dtype == np.uint8
    takes_floats = reader.raster is not None and pixels.dtype == np.float32
    if pixels.ndim != 3 or pixels.shape[2] != channels or not (is_photo or takes_floats) or not pixels.size:
        expected = f"(H, W, {channels}) uint8" + (" or float32" if reader.raster is not None else "")
        raise DataError("the array is not an image", found=f"{array.shape} {array.dtype}", expected=expected)
    is_turned = reader.order == "BGR" and channels == 3 and is_photo
    return np.ascontiguousarray(pixels[:, :, ::-1] if is_turned else pixels)


def _check_size(image: Image, pixels: Pixels) -> None:
    if pixels.shape[:2] != (image.height_px, image.width_px):
        raise DataError(
            "the image has changed its size since its annotations were read",
            file=image.path or image.file_name,
            found=f"{pixels.shape[1]} x {pixels.shape[0]} px",
            expected=f"{image.width_px} x {image.height_px} px",
        )


def find_images(source: Path) -> tuple[Path, list[Path]]:
    """The photos of a folder in order, or the one that is named.

    Args:
        source: A file or a folder.

    Returns:
        The folder that names are relative to, and the photos.

    Raises:
        DataError: There are none.
    """
    if source.is_file():
        return source.parent, [source]
    if not source.is_dir():
        raise DataError("no such image or folder", file=source)
    images = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not images:
        raise DataError("no images", file=source, expected=f"files ending in {', '.join(SUFFIXES)}")
    return source, images


def find_rasters(source: Path, *, stacked: bool) -> tuple[Path, list[Path]]:
    """The images of a folder in order: files, or folders of files to stack.

    Args:
        source: A file or a folder.
        stacked: Whether the channels of an image are the files of a folder.

    Returns:
        The folder that names are relative to, and the images.

    Raises:
        DataError: There are none.
    """
    if source.is_file():
        return source.parent, [source]
    if not source.is_dir():
        raise DataError("no such image or folder", file=source)
    images = sorted(path for path in source.rglob("*") if path.is_file() and is_raster_name(path.name))
    if not images:
        raise DataError("no images", file=source, expected="photos, TIFFs, .npy or .npz files")
    if not stacked:
        return source, images
    folders = sorted({path.parent for path in images})
    return (source.parent, folders) if folders == [source] else (source, folders)

"""Image files, folders and arrays as samples of a network."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.io.images import ImageError, read_header
from d2tune.annotations.io.output_record import ANNOTATIONS, DRAWING, EVALUATION, PREDICTIONS, OwnFiles, is_drawing_name
from d2tune.annotations.io.places import walk_files
from d2tune.annotations.io.rasters import is_raster_name
from d2tune.annotations.io.suffixes import IMAGE_SUFFIXES, is_image_name, unreadable_hint_of
from d2tune.annotations.model.dataset import Image
from d2tune.data.image_reader import ImageReader, OpenImage, Pixels, WholePhoto
from d2tune.data.mapper import check_size, inference_sample
from d2tune.data.semantic_mapper import input_size, semantic_sample
from d2tune.errors import DataError
from d2tune.inference.loop import Sample

logger = logging.getLogger(__name__)

_NOT_PREDICTED_ON = {ANNOTATIONS, PREDICTIONS, DRAWING, EVALUATION}
"""Kinds of files in a folder of images that d2tune wrote and that are not images to predict on."""

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


def find_images(source: Path, *, skip: Path | None = None) -> tuple[Path, list[Path]]:
    """The image files of a folder and its subfolders, in the order of their paths; a file stands for itself.

    Hidden files and folders, label images that d2tune wrote, and predictions are skipped.

    Args:
        source: A file or a folder.
        skip: An output folder, which is skipped where it is inside ``source``.

    Returns:
        The folder that names are relative to, and the image files.

    Raises:
        DataError: The source does not exist, or the folder has no image files.
    """
    if source.is_file():
        return source.parent, [source]
    if not source.is_dir():
        raise DataError("the image or folder does not exist", file=source)
    files = _files_below(source, skip)
    images = [path for path in files if is_image_name(path.name)]
    unreadable = unreadable_hint_of(path.name for path in files)
    if not images:
        expected = f"files ending in {', '.join(sorted(IMAGE_SUFFIXES))}"
        raise DataError("the folder has no images", file=source, found=unreadable, expected=expected)
    if unreadable is not None:
        logger.warning("%s: %s", source, unreadable)
    return source, images


def find_rasters(source: Path, *, stacked: bool, skip: Path | None = None) -> tuple[Path, list[Path]]:
    """The rasters of a folder and its subfolders, in the order of their paths: files, or folders of stacked files.

    Hidden files and folders, and what `d2tune predict` wrote, are skipped.

    Args:
        source: A file or a folder.
        stacked: Whether the channels of an image are the files of a folder.
        skip: See `find_images`.

    Returns:
        The folder that names are relative to, and the rasters.

    Raises:
        DataError: The source does not exist, or the folder has no rasters.
    """
    if source.is_file():
        return source.parent, [source]
    if not source.is_dir():
        raise DataError("the image or folder does not exist", file=source)
    images = [path for path in _files_below(source, skip) if is_raster_name(path.name)]
    if not images:
        raise DataError("the folder has no images", file=source, expected="photos, TIFFs, .npy or .npz files")
    if not stacked:
        return source, images
    folders = sorted({path.parent for path in images})
    return (source.parent, folders) if folders == [source] else (source, folders)


def is_predicted_on() -> Callable[[Path], bool]:
    """A function that says whether a path is that of an image or a raster that d2tune did not write."""
    own = OwnFiles()

    def is_wanted(path: Path) -> bool:
        is_image = is_raster_name(path.name) and not is_drawing_name(path.name)
        return is_image and not own.kinds(path) & _NOT_PREDICTED_ON

    return is_wanted


def _files_below(source: Path, skip: Path | None) -> list[Path]:
    """The files below a folder that are not hidden, and that d2tune did not write as something else than images."""
    own = OwnFiles()
    paths = [source / name for name in walk_files(source, skip=skip)]
    return sorted(path for path in paths if not own.kinds(path) & _NOT_PREDICTED_ON)

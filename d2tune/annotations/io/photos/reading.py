"""The pixels of photos: the one function that training, evaluation, prediction and every view of an image read with.

8-bit photos give the bytes that Detectron2's own reader gives. Values of more bits are divided by a white value, floats
are multiplied by 255; no value is clipped silently, and a damaged file never gives pixels that it does not hold.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.io.photos.pillow import (
    ImageError,
    RefusedImageError,
    open_pillow,
    orientation_of,
    pixel_format_of,
)
from d2tune.annotations.io.photos.tiff import read_tiff, tiff_header, turned
from d2tune.annotations.io.photos.whole import refuse_missing_pixels
from d2tune.annotations.io.suffixes import unreadable_hint
from d2tune.annotations.model.dataset import Image
from d2tune.annotations.model.pixel_format import FULL_RANGE, PixelFormat
from d2tune.errors import DataError

LARGEST_DECODED_PX = 400_000_000
"""Most pixels of a photo that is decoded whole; larger images go in tiles, or as rasters that are read by windows."""


class ValuesError(ImageError):
    """Values outside the range that is read.

    Args:
        message: The condition.
        values: The range of the values.
        expected: The valid range.
    """

    hint = "Save it as 8 or 16 bits by the range of the whole data set, or use data.format: label_images."

    def __init__(self, message: str, *, values: str, expected: str) -> None:
        super().__init__(message)
        self.values = values
        self.expected = expected


_PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}


def read_photo(path: Path, *, white: float | None = None) -> NDArray[np.uint8]:
    """Read a photo as displayed, after its EXIF orientation, without alpha.

    Args:
        path: The file.
        white: The stored value of 16-bit images that becomes 255, the same for all images of a project; None takes
            that of the file, see `PixelFormat`.

    Returns:
        RGB ``(H, W, 3)``.

    Raises:
        DataError: The file is missing, damaged, not an image that is read, or too large, or its values are outside the
            range that is read.
    """
    with reading_photo(path), path.open("rb") as stream:
        return _rgb_of(stream, white)


def read_photo_content(content: bytes, *, name: str = "image", white: float | None = None) -> NDArray[np.uint8]:
    """`read_photo` of the content of a file.

    Args:
        content: The bytes of the file.
        name: Stands for the file in errors; its suffix may name a format that is not read.
        white: See `read_photo`.

    Raises:
        DataError: See `read_photo`.
    """
    with reading_photo(Path(name)), io.BytesIO(content) as stream:
        return _rgb_of(stream, white)


def _rgb_of(stream: BinaryIO, white: float | None) -> NDArray[np.uint8]:
    with _opened(stream) as (image, form):
        _refuse_large(image.size)
        if isinstance(image, _TiffOnly):
            values = read_tiff(stream, white=form.white if form is not None else 255)
        elif form is None or form.kind == "8-bit":
            return np.asarray(_eight_bits(image, stream))
        else:
            values = _stored(image, stream, form)
    return _gray_as_rgb(scaled(values, form or PixelFormat(), white=white))


def read_photo_of(image: Image) -> NDArray[np.uint8]:
    """`read_photo` of an image of a dataset, with the white value of its 16-bit images.

    Raises:
        DataError: The image has no file, or see `read_photo`.
    """
    if image.path is None:
        raise DataError("the image has no file", file=image.file_name)
    form = image.pixel_format
    return read_photo(image.path, white=form.white if form is not None and form.is_deep else None)


def read_values(path: Path) -> tuple[NDArray[Any], PixelFormat] | None:
    """The stored values ``(H, W)`` or ``(H, W, 3)`` of a photo of more than 8 bits; None for one of 8 bits.

    Raises:
        DataError: The file is missing, damaged or not an image that is read.
    """
    with reading_photo(path), path.open("rb") as stream, _opened(stream) as (image, form):
        _refuse_large(image.size)
        if form is None or form.kind == "8-bit":
            return None
        return _stored(image, stream, form), form


@contextlib.contextmanager
def reading_photo(path: Path) -> Iterator[None]:
    """Turn any error of a decoder into a `DataError` with the file."""
    hint: str | None = "Replace it, or remove it with its annotations."
    try:
        refused = unreadable_hint(path.name)
        if refused is not None:
            raise RefusedImageError(refused)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # errors in a file are in the messages of this package
            yield
    except DataError:
        raise
    except ValuesError as error:
        raise DataError(
            error.args[0], file=path, found=error.values, expected=error.expected, hint=error.hint
        ) from error
    except ImageError as error:
        hint = None if isinstance(error, RefusedImageError) else hint
        raise DataError(f"the image cannot be read: {error}", file=path, hint=hint) from error
    except OSError as error:
        raise DataError(f"the image cannot be read: {error.strerror or error}", file=path, hint=hint) from error
    except MemoryError:
        raise DataError("the image does not fit into memory", file=path, hint="Divide it into tiles.") from None
    except Exception as error:  # decoders raise many kinds of errors for broken files
        raise DataError(f"the image cannot be read: {error or type(error).__name__}", file=path, hint=hint) from error


class _TiffOnly:
    """Stands for a Pillow image of a TIFF that only tifffile reads."""

    format, mode = "TIFF", ""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size


@contextlib.contextmanager
def _opened(stream: BinaryIO) -> Iterator[tuple[Any, PixelFormat | None]]:
    """The image before it is decoded, and its pixel format."""
    try:
        image = open_pillow(stream)
    except RefusedImageError:
        raise
    except ImageError:
        measured = tiff_header(stream)
        if measured is None:
            raise
        yield _TiffOnly(measured[:2]), measured[3]
        return
    with image:
        yield image, pixel_format_of(image)


def _refuse_large(size_px: tuple[int, int]) -> None:
    width_px, height_px = size_px
    if width_px * height_px > LARGEST_DECODED_PX:
        raise RefusedImageError(too_large(width_px, height_px))


def too_large(width_px: int, height_px: int) -> str:
    """The message for a photo of more pixels than are decoded whole."""
    return (
        f"the image has {width_px} x {height_px} px, more than {LARGEST_DECODED_PX // 1_000_000} megapixels; divide it "
        "and its annotations into tiles, or use label images (data.format: label_images), which are read by windows"
    )


def _eight_bits(image: Any, stream: BinaryIO) -> Any:
    """A decoded image as RGB, by the same steps as Detectron2's reader."""
    orientation = orientation_of(image)
    image.load()
    refuse_missing_pixels(image, stream)
    rgb = to_rgb(image)
    # Pillow turns TIFFs itself while it decodes them
    return rgb if image.format == "TIFF" else upright(rgb, orientation)


def upright(image: Any, orientation: int) -> Any:
    """An image turned by its EXIF orientation."""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image


def to_rgb(image: Any) -> Any:
    """An 8-bit image of any color model as RGB; alpha is dropped, and palettes and CMYK, LAB, YCbCr are resolved."""
    if image.mode in _PREMULTIPLIED:
        image = image.convert(_PREMULTIPLIED[image.mode])
    return image.convert("RGB")


def _stored(image: Any, stream: BinaryIO, form: PixelFormat) -> NDArray[Any]:
    """The values of an image of more than 8 bits as displayed: ``(H, W)`` or ``(H, W, 3)``."""
    if image.format == "TIFF":
        return read_tiff(stream, white=form.white)
    orientation = orientation_of(image)
    if image.format == "PNG" and not image.mode.startswith("I"):
        image.load()  # Pillow reduces colors to 8 bits, but raises errors for damaged files
        refuse_missing_pixels(image, stream)
        return turned(_deep_png(stream), orientation)
    image.load()
    refuse_missing_pixels(image, stream)
    values = np.asarray(image)
    if image.format == "PPM" and image.mode == "F":
        values = values / np.float32(image.info.get("scale", 1))
    elif image.format == "PPM":
        # Pillow has spread the values to the full range of its mode
        full = FULL_RANGE if image.mode == "I" else 255
        values = np.rint(values * (form.white / full)).astype(np.uint16)
    elif form.kind == "16-bit":
        values = values.astype(np.uint16)
    return turned(values, orientation)


def _deep_png(stream: BinaryIO) -> NDArray[Any]:
    """The gray or color values of a PNG of 16 bits; alpha is dropped."""
    import cv2

    stream.seek(0)
    pixels = cv2.imdecode(np.frombuffer(stream.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        raise ImageError("the PNG is cut off or damaged")
    if pixels.ndim == 2:
        return np.asarray(pixels)
    values: NDArray[Any] = pixels[..., 2::-1]
    return values if pixels.shape[2] >= 3 else pixels[..., 0]


def scaled(values: NDArray[Any], form: PixelFormat, *, white: float | None = None) -> NDArray[np.uint8]:
    """Stored values as 8 bits, rounded to the nearest.

    Args:
        values: Values of any shape.
        form: How they are stored.
        white: See `read_photo`.

    Raises:
        ImageError: They are of 8 bits and no such values.
        ValuesError: Floats are not within 0 to 1, or whole numbers not within 16 bits.
    """
    if form.kind == "8-bit":
        if values.dtype not in (np.uint8, np.bool_):
            raise ImageError(f"its values are {values.dtype}, expected 8 bits")
        return values * np.uint8(255) if values.dtype == np.bool_ else values
    if form.kind == "float":
        _refuse_range(values, 1.0, "float")
        return np.rint(values.astype(np.float64) * 255).astype(np.uint8)
    if form.kind == "integer":
        _refuse_range(values, FULL_RANGE, f"{values.dtype.itemsize * 8}-bit")
    if white is None:
        white = form.white
        if form.is_stated and values.size and values.max() > white:
            white = FULL_RANGE
    eight_bits: NDArray[np.uint8] = _table(round(white))[values.astype(np.uint16)]
    return eight_bits


def _refuse_range(values: NDArray[Any], highest: float, kind: str) -> None:
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if low >= 0 and high <= highest:
        return
    shown = "NaN" if np.isnan(low) or np.isnan(high) else f"{low:g} to {high:g}"
    raise ValuesError(
        f"the {kind} values of the image are outside the range that is read", values=shown, expected=f"0 to {highest:g}"
    )


@lru_cache(maxsize=8)
def _table(white: int) -> NDArray[np.uint8]:
    """The 8-bit value of each 16-bit value, rounded to the nearest."""
    values = np.arange(FULL_RANGE + 1, dtype=np.int64)
    return np.minimum((values * 510 + white) // (2 * white), 255).astype(np.uint8)


def _gray_as_rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else np.ascontiguousarray(pixels)

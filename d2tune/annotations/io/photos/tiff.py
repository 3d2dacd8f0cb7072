"""TIFF photos of more than 8 bits, of which Pillow reads a part only: their headers, and their values in full depth."""

from __future__ import annotations

import logging
import math
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.io.photos.pillow import LARGEST_PX, ImageError, tiff_format
from d2tune.annotations.model.pixel_format import PixelFormat

_WHITE_IS_ZERO, _GRAY, _RGB = 0, 1, 2
_ORIENTATION, _MAXIMUM = 274, 281
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def tiff_header(stream: BinaryIO) -> tuple[int, int, int, PixelFormat] | None:
    """Measure a TIFF that Pillow does not know, such as one of floats and three channels.

    Returns:
        Width and height as displayed, orientation and pixel format; None where it is not a TIFF or is broken.

    Raises:
        ImageError: It is not a photo: it has another number of channels than 1 or 3 and alpha, or is too large.
    """
    stream.seek(0)
    if stream.read(4) not in _TIFF_STARTS:
        return None
    stream.seek(0)
    tifffile = _library()
    try:
        with tifffile.TiffFile(stream) as tiff:
            page = tiff.pages[0]
            size = int(page.imagewidth), int(page.imagelength)
            form = _format(page)
            orientation = _orientation(page)
            has_frames = len(tiff.pages) > 1
            problem = _problem(page)
    except Exception:  # tifffile raises many kinds of errors for broken files
        return None
    if problem is not None:
        raise ImageError(problem)
    if not 0 < size[0] * size[1] <= LARGEST_PX:
        raise ImageError(f"the size of the image is invalid ({size[0]} x {size[1]} px)")
    kind, white, is_stated = form
    width_px, height_px = size if orientation < 5 else size[::-1]
    return width_px, height_px, orientation, PixelFormat(kind, white, is_stated, has_frames=has_frames)


def read_tiff(stream: BinaryIO, *, white: float) -> NDArray[Any]:
    """The values of the first page as displayed, without alpha.

    Args:
        stream: The file.
        white: The largest value, by which values are reversed where the file says that 0 is white.

    Returns:
        ``(H, W)`` or ``(H, W, 3)``.

    Raises:
        ImageError: It is cut off or damaged, or not a photo.
    """
    tifffile = _library()
    stream.seek(0)
    try:
        with tifffile.TiffFile(stream) as tiff:
            page = tiff.pages[0]
            problem = _problem(page)
            if problem is not None:
                raise ImageError(problem)
            if len(page.dataoffsets) < math.prod(page.chunked):
                raise ImageError("the TIFF is cut off or damaged: it has fewer strips or tiles than its size needs")
            orientation = _orientation(page)
            is_reversed = page.photometric == _WHITE_IS_ZERO
            try:
                values = _first_channels(page, page.asarray())
            # tifffile raises one of these, depending on the codec, where the library imagecodecs is not installed
            except (ValueError, ImportError, NotImplementedError) as error:
                if "imagecodecs" not in str(error):
                    raise
                return _reversed(_with_opencv(stream, page), white, is_reversed=is_reversed)
    except ImageError:
        raise
    except Exception as error:  # as above
        raise ImageError(f"the TIFF is cut off or damaged ({error})") from error
    return _reversed(turned(values, orientation), white, is_reversed=is_reversed)


def _reversed(values: NDArray[Any], white: float, *, is_reversed: bool) -> NDArray[Any]:
    if not is_reversed:
        return values
    largest = values.dtype.type(white)
    return np.asarray(largest - np.minimum(values, largest), dtype=values.dtype)


def turned(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Values ``(H, W, ...)`` as displayed, by their EXIF orientation."""
    if orientation >= 5:
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return np.ascontiguousarray(values)


def _first_channels(page: Any, values: NDArray[Any]) -> NDArray[Any]:
    """Gray ``(H, W)`` or the three colors ``(H, W, 3)`` of a page."""
    shape = tuple(page.shape)
    if values.shape != shape or not {"Y", "X"} <= set(page.axes):
        raise ImageError(f"the TIFF has the axes {page.axes}, expected rows, columns and channels")
    if "S" in page.axes:
        values = np.moveaxis(values, page.axes.index("S"), -1)
        return values[..., :3] if values.shape[-1] >= 3 else values[..., 0]
    return values


def _with_opencv(stream: BinaryIO, page: Any) -> NDArray[Any]:
    """The values of a page as displayed, for which tifffile needs a further library."""
    import cv2

    stream.seek(0)
    with _QuietOpencv():
        pixels = cv2.imdecode(np.frombuffer(stream.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ImageError("the TIFF is cut off or damaged, or its compression is not read at this depth")
    bits = pixels.dtype.itemsize * 8
    if bits != page.bitspersample:
        if not 8 < page.bitspersample < bits == 16:
            raise ImageError("its compression is not read at this depth; save it with Deflate or without compression")
        pixels = pixels >> (16 - page.bitspersample)  # OpenCV moves 10, 12 and 14 bits to the upper end
    return np.ascontiguousarray(pixels[..., 2::-1]) if pixels.ndim == 3 else np.asarray(pixels)


class _QuietOpencv:
    """Keeps OpenCV from printing what its decoders say about broken files."""

    def __enter__(self) -> None:
        import cv2

        self._level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

    def __exit__(self, *reason: object) -> None:
        import cv2

        cv2.utils.logging.setLogLevel(self._level)


def _library() -> Any:
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # errors in a file are in the messages of this package
    return tifffile


def _problem(page: Any) -> str | None:
    """Why a page is not a photo; None where it is one."""
    channels = page.samplesperpixel - len(page.extrasamples)
    if channels == 1 and len(page.extrasamples) > 1:
        channels = page.samplesperpixel  # bands of a sensor, which most writers store as gray with extra samples
    if page.photometric not in (_WHITE_IS_ZERO, _GRAY, _RGB):
        return f"the TIFF has the color model {getattr(page.photometric, 'name', page.photometric)} at this depth"
    if channels not in (1, 3):
        return (
            f"the TIFF has {page.samplesperpixel} channels, expected 1 or 3 and alpha; "
            "images of more channels go with data.format: label_images"
        )
    return None


def _format(page: Any) -> tuple[Any, float, bool]:
    tag = page.tags.get(_MAXIMUM)
    maxima = () if tag is None else tag.value if isinstance(tag.value, tuple) else (tag.value,)
    return tiff_format([page.bitspersample], [page.sampleformat], [int(value) for value in maxima])


def _orientation(page: Any) -> int:
    tag = page.tags.get(_ORIENTATION)
    return int(tag.value) if tag is not None and tag.value in range(1, 9) else 1

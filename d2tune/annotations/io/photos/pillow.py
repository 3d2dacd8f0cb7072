"""Images opened with Pillow, up to a size of this package's own, and what their headers say about their pixels."""

from __future__ import annotations

import io
import warnings
from typing import Any, BinaryIO

from d2tune.annotations.io.suffixes import unreadable_content
from d2tune.annotations.model.pixel_format import FULL_RANGE, PixelFormat

LARGEST_PX = 1 << 30
"""Most pixels of an image whose header is read; files that claim more are refused."""

_CONVERTED = frozenset({"CMYK", "HSV", "LAB", "YCbCr"})
_FOREIGN = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "PSD", "WMF"})
_ORIENTATION, _BITS, _PHOTOMETRIC, _SUBFILE, _MAKE = 274, 258, 262, 254, 271
_MAXIMUM, _SUB_IFDS, _SAMPLE_FORMAT, _DNG_VERSION = 281, 330, 339, 50706


class ImageError(ValueError):
    """A file that is not an image, is cut off or damaged, or states an invalid size."""


class RefusedImageError(ImageError):
    """An image of a format or size that is not read."""


def open_pillow(stream: BinaryIO) -> Any:
    """Open an image without decoding it.

    Args:
        stream: The file, at its beginning; it must stay open.

    Raises:
        ImageError: It is not an image, or is cut off in its header.
        RefusedImageError: Its format is not read, or it has more than `LARGEST_PX` pixels.
    """
    from PIL import Image as PilImage
    from PIL import UnidentifiedImageError

    start = stream.read(64)
    refused = unreadable_content(start)
    if refused is not None:
        raise RefusedImageError(refused)
    stream.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                image = PilImage.open(stream)
            except PilImage.DecompressionBombError:
                image = _open_large(stream)
    except UnidentifiedImageError as error:
        if start[4:12] in (b"ftypavif", b"ftypavis"):
            message = "the AVIF file is cut off, or this Pillow is older than 11.3 and cannot read it"
            raise ImageError(message) from error
        raise ImageError("the file is empty, cut off or not an image") from error
    except ImageError:
        raise
    except Exception as error:  # plugins raise many kinds of errors for broken headers
        raise ImageError(f"the image's header cannot be read ({error})") from error
    _refuse(image)
    return image


def _open_large(stream: BinaryIO) -> Any:
    """An image with more pixels than Pillow opens by itself: the plugin is called without Pillow's limit."""
    from PIL import Image as PilImage

    stream.seek(0)
    start = stream.read(16)
    for name in PilImage.ID:
        factory, accept = PilImage.OPEN[name]
        if accept is not None and accept(start) is True:
            stream.seek(0)
            return factory(stream, "")
    raise ImageError("the file is not an image of a known format")


def _refuse(image: Any) -> None:
    """Refuse formats that Pillow opens for other purposes, previews of camera raw files, and invalid sizes."""
    width_px, height_px = image.size
    if image.format in _FOREIGN:
        raise RefusedImageError(f"{image.format} files are not read; convert it to JPEG or PNG")
    if image.format == "TIFF":
        tags = image.tag_v2
        is_preview = tags.get(_SUBFILE, 0) == 1 and _SUB_IFDS in tags and _MAKE in tags
        if _DNG_VERSION in tags or is_preview:
            raise RefusedImageError("camera raw images are not read; convert it to JPEG or PNG")
    if width_px < 1 or height_px < 1:
        raise ImageError(f"the size of the image is invalid ({width_px} x {height_px} px)")
    if width_px * height_px > LARGEST_PX:
        raise RefusedImageError(
            f"the size of the image is invalid ({width_px} x {height_px} px, more than {LARGEST_PX:,} pixels); divide "
            "an image that is so large into tiles"
        )


def orientation_of(image: Any) -> int:
    """The EXIF orientation, 1 to 8, also at the end of a PNG, without decoding the image as Pillow does."""
    from PIL import Image as PilImage

    try:
        exif = PilImage.Image.getexif(image)
        if image.format == "PNG" and not exif:
            exif.load(_late_exif(image.fp))
        value = exif.get(_ORIENTATION, 1)
    except Exception:  # viewers show an image with a broken EXIF block unrotated
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _late_exif(stream: Any) -> bytes:
    """The EXIF block after the pixels of a PNG, empty without one; the chunks are read one after the other."""
    before = stream.tell()
    stream.seek(8)
    try:
        while len(head := stream.read(8)) == 8:
            length = int.from_bytes(head[:4], "big")
            if head[4:] == b"eXIf":
                return bytes(stream.read(length))
            stream.seek(length + 4, io.SEEK_CUR)
        return b""
    finally:
        stream.seek(before)


def pixel_format_of(image: Any) -> PixelFormat | None:
    """How an image that was not decoded yet stores its pixels; None for 8-bit gray, palette and RGB."""
    mode = image.mode
    color = mode if mode in _CONVERTED else ""
    has_frames = image.format != "MPO" and bool(getattr(image, "is_animated", False))
    if image.format == "TIFF":
        tags = image.tag_v2
        form = tiff_format(_numbers(tags.get(_BITS)), _numbers(tags.get(_SAMPLE_FORMAT)), _numbers(tags.get(_MAXIMUM)))
    elif image.format == "PNG":
        form = _png_format(image.fp)
    elif image.format == "PPM":
        form = _pnm_format(image)
    else:
        form = _mode_format(mode)
    if form == _EIGHT_BITS and not color and not has_frames:
        return None
    kind, white, is_stated = form
    return PixelFormat(kind, white, is_stated, color, has_frames)


_Form = tuple[Any, float, bool]
_EIGHT_BITS: _Form = ("8-bit", 255, False)


def _mode_format(mode: str) -> _Form:
    if mode == "F":
        return "float", 1, False
    if mode.startswith("I;16"):
        return "16-bit", FULL_RANGE, False
    return ("integer", FULL_RANGE, False) if mode.startswith("I") else _EIGHT_BITS


def tiff_format(bits: list[int], sample_formats: list[int], maxima: list[int]) -> _Form:
    """The kind of values, the value that becomes 255, and whether the file states it (TIFF 6.0, sections 8 and 19).

    Args:
        bits: Bits of each sample.
        sample_formats: 1 for whole numbers without a sign, 2 with a sign, 3 for floats; empty where it is not stated.
        maxima: Largest value of each sample that the file states; empty without.
    """
    depth, sample_format = max(bits, default=1), max(sample_formats, default=1)
    if sample_format == 3:
        return "float", 1, False
    if depth <= 8:
        return _EIGHT_BITS
    if depth > 16 or sample_format == 2:
        return "integer", FULL_RANGE, False
    largest = (1 << depth) - 1
    stated = max(maxima, default=0)
    white = stated if 0 < stated < largest else largest
    return "16-bit", white, white < FULL_RANGE


def _png_format(stream: Any) -> _Form:
    """The bits of a PNG, and the significant bits that its chunk sBIT states (PNG, sections 11.2.2 and 11.3.3.4)."""
    before = stream.tell()
    try:
        stream.seek(24)
        if stream.read(1) != b"\x10":
            return _EIGHT_BITS
        stream.seek(33)
        while len(head := stream.read(8)) == 8 and head[4:] != b"IDAT":
            length = int.from_bytes(head[:4], "big")
            content = stream.read(min(length, 4))
            if head[4:] == b"sBIT" and content:
                significant = max(content[: 1 if length <= 2 else 3])
                if 8 < significant < 16:
                    return "16-bit", (1 << significant) - 1, True
            stream.seek(length - len(content) + 4, io.SEEK_CUR)
        return "16-bit", FULL_RANGE, False
    finally:
        stream.seek(before)


def _pnm_format(image: Any) -> _Form:
    """The largest value of a PGM or PPM, from the arguments of Pillow's decoder."""
    arguments = image.tile[0].args
    largest = arguments[1] if isinstance(arguments, tuple) and image.mode != "F" else 255
    if image.mode == "I":
        largest = largest if largest > 255 else FULL_RANGE
    if image.mode not in ("I", "RGB") or largest <= 255:
        return _mode_format(image.mode)
    return "16-bit", largest, largest < FULL_RANGE


def _numbers(value: Any) -> list[int]:
    """A tag's value as a list, empty where it has none or others than whole numbers."""
    values = value if isinstance(value, (tuple, list)) else () if value is None else (value,)
    return [int(entry) for entry in values if isinstance(entry, (int, float))]

"""Images measured from their headers alone."""

# ruff: noqa: PTH113, PTH122, PTH123

from __future__ import annotations

import io
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2tune.annotations.io.headers import quick_size

IMAGE_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("bmp", "dib", "gif", "jfif", "jp2", "jpe", "jpeg", "jpg"),
        *("pbm", "pgm", "png", "pnm", "ppm", "tif", "tiff", "webp"),
    )
)
_ORIENTATION_TAG = 0x0112
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", ".png"),
    (b"\xff\xd8\xff", ".jpg"),
    (b"GIF8", ".gif"),
    (b"BM", ".bmp"),
    (b"II*\x00", ".tif"),
    (b"MM\x00*", ".tif"),
)


class ImageError(ValueError):
    """A file that is not an image, is cut off in its header, or states an invalid size."""


@dataclass(frozen=True, slots=True)
class Header:
    """The header of an image.

    Attributes:
        width_px: Width as displayed, after EXIF orientation.
        height_px: Height as displayed.
        orientation: The EXIF orientation, 1 to 8; 1 where there is none.
    """

    width_px: int
    height_px: int
    orientation: int = 1

    @property
    def swapped(self) -> bool:
        """Whether the image is stored rotated by 90 degrees."""
        return self.orientation >= 5


def read_header(source: Path | bytes) -> Header:
    """Measure an image without decoding it.

    Args:
        source: The file, or its content.

    Raises:
        ImageError: The file is not an image that Pillow reads, or it is cut off or hostile.
    """
    if isinstance(source, Path) and not os.path.isfile(source):
        raise ImageError("the file does not exist or is not a regular file")
    return _quick_header(source) or _full_header(source)


def _quick_header(source: Path | bytes) -> Header | None:
    """The header where it is plain, see `headers`; else None."""
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb", buffering=0) as stream:
            size = quick_size(stream)
    except OSError:
        return None
    if size is None:
        return None
    width_px, height_px, orientation = size
    return Header(height_px, width_px, orientation) if orientation >= 5 else Header(*size)


def _full_header(source: Path | bytes) -> Header:
    """The header as Pillow reads it."""
    from PIL import Image as PilImage
    from PIL import UnidentifiedImageError

    stream: Any = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with PilImage.open(stream) as image:
                width_px, height_px = image.size
                orientation = _orientation(image)
                is_turned = image.format == "TIFF"
    except PilImage.DecompressionBombError as error:
        raise ImageError(f"the size of the image is invalid ({error})") from error
    except UnidentifiedImageError as error:
        raise ImageError("the file is empty, cut off or not an image") from error
    except (OSError, ValueError, SyntaxError, KeyError, IndexError, EOFError, TypeError, OverflowError) as error:
        raise ImageError(f"the image's header cannot be read ({error})") from error
    if width_px < 1 or height_px < 1:
        raise ImageError(f"the size of the image is invalid ({width_px} x {height_px} px)")
    if orientation >= 5 and not is_turned:
        width_px, height_px = height_px, width_px
    return Header(width_px, height_px, orientation)


def _orientation(image: Any) -> int:
    """The EXIF orientation, also at the end of a PNG, without decoding the image as Pillow does."""
    from PIL import Image as PilImage

    try:
        exif = PilImage.Image.getexif(image)
        if image.format == "PNG" and not exif:
            exif.load(_late_exif(image.fp))
        value = exif.get(_ORIENTATION_TAG, 1)
    except Exception:  # viewers show an image with a broken EXIF block unrotated
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _late_exif(stream: Any) -> bytes:
    """The EXIF block after the pixels of a PNG, empty without one; the chunks are read one after the other."""
    stream.seek(8)
    while len(head := stream.read(8)) == 8:
        length = int.from_bytes(head[:4], "big")
        if head[4:] == b"eXIf":
            return bytes(stream.read(length))
        stream.seek(length + 4, io.SEEK_CUR)
    return b""


def magic_suffix(content: bytes) -> str | None:
    """The file suffix that matches the first bytes, or None where they are not those of an image."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return ".webp"
    return next((suffix for start, suffix in _MAGIC if content.startswith(start)), None)


def is_image_name(name: str) -> bool:
    """Whether a file has the suffix of an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES

"""Files that are small and of few pixels by their header, but that take a decoder minutes or gigabytes.

A progressive JPEG may repeat scans over all of its pixels, a PNG may be a list of a million chunks, a TIFF of 64 pixels
may be a tile of a gigapixel or a strip that inflates to gigabytes. None of that is in files that programs write.
"""

from __future__ import annotations

import io
import logging
import math
import warnings
import zlib
from typing import Any

from d2tune.annotations.io.images import ImageError
from d2tune.annotations.io.suffixes import PILLOW_FORMATS
from d2tune.serving.problems import ApiError

MOST_SCANS = 64
"""Most scans of a JPEG: progressive ones of usual encoders have 10, and those that search for the best script 30."""
MOST_CHUNKS = 50_000
"""Most chunks of a PNG: 32 MiB in chunks of 1 KiB are 32,768."""

_PNG_START, _JPEG_START, _SCAN = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\xff\xda"
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_UNCOMPRESSED, _LZW, _DEFLATE = (1,), (5,), (8, 32946)
_BLOCK_BYTES = 1 << 20


def refuse_costly_structure(content: bytes) -> None:
    """Refuse JPEGs of very many scans and PNGs of very many chunks, before anything reads them.

    Raises:
        ApiError: It is one.
    """
    if content.startswith(_JPEG_START) and (scans := content.count(_SCAN)) > MOST_SCANS:
        raise _too_costly(f"the JPEG has {scans:,} scans, and at most {MOST_SCANS} are read")
    if content.startswith(_PNG_START) and _has_more_chunks(content, MOST_CHUNKS):
        raise _too_costly(f"the PNG has more than {MOST_CHUNKS:,} chunks")


def _has_more_chunks(content: bytes, most: int) -> bool:
    at, count = len(_PNG_START), 0
    while at + 12 <= len(content) and count <= most:
        at += 12 + int.from_bytes(content[at : at + 4], "big")
        count += 1
    return count > most


def refuse_costly_tiff(content: bytes, *, most_pixels: int) -> None:
    """Refuse TIFFs whose tiles are larger than an image may be, and deep ones whose data inflate to more than pixels.

    Args:
        content: The content of an image file; nothing happens where it is not a TIFF.
        most_pixels: Most pixels of a tile.

    Raises:
        ApiError: It is one.
    """
    if not content.startswith(_TIFF_STARTS):
        return
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # errors in a file are in the answer
    try:
        with tifffile.TiffFile(io.BytesIO(content)) as tiff:
            page: Any = tiff.pages[0]
            width_px, height_px = (_first(page, tag) for tag in (_TILE_WIDTH, _TILE_HEIGHT))
            pieces = list(zip(page.dataoffsets, page.databytecounts, strict=False))
            facts = int(page.compression), int(page.bitspersample), page.dtype, tuple(page.chunks)
    except Exception:  # it raises many kinds of errors; where Pillow reads the file, its tags were checked
        return
    refuse_large_tile(width_px, height_px, most_pixels=most_pixels)
    compression, bits, dtype, chunks = facts
    if bits <= 8 or dtype is None or compression in (*_UNCOMPRESSED, *_LZW):
        return  # Pillow and OpenCV decode these, and no further than their pixels
    if compression not in _DEFLATE:
        raise ApiError(
            422, "bad_image", "the compression of the TIFF is not read at this depth; save it with Deflate or without"
        )
    most_bytes = math.prod(chunks) * dtype.itemsize
    for start, length in pieces:
        if _inflates_to_more(content[start : start + length], most_bytes):
            raise _too_costly("the data of the TIFF inflate to more than its pixels")


def _first(page: Any, tag: int) -> int:
    entry = page.tags.get(tag)
    return 0 if entry is None else int(entry.value)


def refuse_large_tile(width_px: int, height_px: int, *, most_pixels: int) -> None:
    """Refuse tiles of more pixels than an image may have.

    Raises:
        ApiError: It has.
    """
    if width_px * height_px > most_pixels:
        raise _too_costly(f"the TIFF has tiles of {width_px} x {height_px} px, and at most {most_pixels:,} are read")


def tile_size(image: Any) -> tuple[int, int]:
    """Width and height of the tiles of an open Pillow image; 0 where it has none."""
    tags = getattr(image, "tag_v2", {})
    width_px, height_px = (tags.get(tag, 0) for tag in (_TILE_WIDTH, _TILE_HEIGHT))
    return (width_px, height_px) if isinstance(width_px, int) and isinstance(height_px, int) else (0, 0)


def _inflates_to_more(data: bytes, most_bytes: int) -> bool:
    """Whether compressed data are of more bytes than a limit, without holding more than a block of them."""
    inflate, size = zlib.decompressobj(), 0
    try:
        while data and not inflate.eof and size <= most_bytes:
            size += len(inflate.decompress(data, _BLOCK_BYTES))
            data = inflate.unconsumed_tail
    except zlib.error:  # the decoder names what is wrong
        return False
    return size > most_bytes


def opened(content: bytes) -> Any | None:
    """An image file as Pillow opens it, of the formats that a server reads; None where only tifffile can.

    Raises:
        ImageError: Its format is another one.
    """
    from PIL import Image as PilImage

    PilImage.init()
    formats = [name for name in PILLOW_FORMATS if name in PilImage.OPEN]  # AVIF is not in every build
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return PilImage.open(io.BytesIO(content), formats=formats)
        except PilImage.DecompressionBombError:
            return None
        except Exception:  # plugins raise many kinds of errors for broken headers
            if content.startswith(_TIFF_STARTS):
                return None
            raise ImageError("the file is not an image of a format that is read") from None


def _too_costly(message: str) -> ApiError:
    return ApiError(413, "too_costly", f"{message}; save it again as a usual JPEG, PNG or TIFF")

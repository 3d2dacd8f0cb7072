"""The headers of plain JPEG and PNG files, read without Pillow.

Pillow takes twice the time for a file, after an import of 80 ms (docs/decisions/010-libraries-in-annotations.md). Only
headers that both read in the same way are read here; broken and unusual files, such as those of 16 bits or of four
color layers, are left to Pillow.
"""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

Size = tuple[int, int, int]
"""Width and height as stored, and the EXIF orientation (1 to 8; 1 where there is none)."""
_FIRST_BYTES, _START_BYTES = 1 << 12, 1 << 16
_LARGEST_PX = 80_000_000
_JPEG_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
_JPEG_SKIPPED = frozenset({0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)})
_PNG_KNOWN = frozenset(
    {b"IHDR", b"IDAT", b"PLTE", b"sRGB", b"gAMA", b"cHRM", b"pHYs", b"tIME", b"bKGD", b"sBIT", b"tEXt"}
)
_PNG_BITS = {0: (1, 2, 4, 8), 2: (8,), 3: (1, 2, 4, 8), 4: (8,), 6: (8,)}
_ORIENTATION_TAG = 0x0112
_SHORT = 3
_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}


def quick_size(stream: BinaryIO) -> Size | None:
    """Measure an image from the start of a file, or from the chunk headers of a PNG.

    Args:
        stream: The file, at its beginning.

    Returns:
        The size and orientation, or None where Pillow is needed.
    """
    for length in (_FIRST_BYTES, _START_BYTES):
        stream.seek(0)
        size = _size_in(stream.read(length), stream)
        if size is not None:
            return size
    return None


def _size_in(start: bytes, stream: BinaryIO) -> Size | None:
    """The size where the start of a file has the whole header and Pillow reads the same; else None."""
    try:
        if start.startswith(b"\xff\xd8\xff"):
            size = _jpeg_size(start)
        elif start.startswith(b"\x89PNG\r\n\x1a\n"):
            size = _png_size(start, stream)
        else:
            return None
    except (struct.error, IndexError):
        return None
    if size is None or not 0 < size[0] * size[1] <= _LARGEST_PX:
        return None
    return size


def _jpeg_size(content: bytes) -> Size | None:
    """Read the markers up to the scan (ITU T.81, annex B)."""
    size: tuple[int, int] | None = None
    orientation = None
    has_xmp = False
    at = 2
    while True:
        lead, marker, length = struct.unpack_from(">BBH", content, at)
        if lead != 0xFF or length < 2:
            return None
        segment = content[at + 4 : at + 2 + length]
        if len(segment) != length - 2:
            return None
        if marker == 0xDA:
            break
        at += 2 + length
        if marker in _JPEG_FRAMES:
            bits, height_px, width_px, layers = struct.unpack_from(">BHHB", segment)
            if size is not None or bits != 8 or layers not in (1, 3) or len(segment) != 6 + 3 * layers:
                return None
            size = width_px, height_px
        elif marker not in _JPEG_SKIPPED or not _is_plain(marker, segment):
            return None
        elif marker == 0xE1 and segment.startswith(b"Exif\0\0"):
            if orientation is not None:
                return None
            orientation = _exif_orientation(segment[6:])
            if orientation is None:
                return None
        elif marker == 0xE1:
            has_xmp = True
    if size is None or (has_xmp and orientation is None):
        return None
    return *size, orientation or 1


def _is_plain(marker: int, segment: bytes) -> bool:
    """Whether Pillow reads a segment without errors and without taking the file for another format."""
    if marker == 0xDB:
        return len(segment) % 65 == 0 and not any(value > 15 for value in segment[::65])
    if marker in (0xE0, 0xEE):
        return len(segment) >= 12
    if marker == 0xE2:
        return len(segment) > 14 and not segment.startswith((b"MPF\0", b"FPXR"))
    return marker != 0xED


def _exif_orientation(block: bytes) -> int | None:
    """The orientation in an EXIF block (TIFF 6.0, section 2); None where the block is unusual or has none."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None:
        return None
    (offset,) = struct.unpack_from(order + "I", block, 4)
    (count,) = struct.unpack_from(order + "H", block, offset)
    orientation = None
    end = offset + 2 + 12 * count
    for entry in range(offset + 2, end, 12):
        tag, kind, values, place = struct.unpack_from(order + "HHII", block, entry)
        size = _TIFF_SIZES.get(kind, 0) * values
        if not size or (size > 4 and place + size > len(block)):
            return None
        if tag == _ORIENTATION_TAG:
            (value,) = struct.unpack_from(order + "H", block, entry + 8)
            if orientation is not None or kind != _SHORT or values != 1 or not 1 <= value <= 8:
                return None
            orientation = value
    return orientation if end + 4 <= len(block) else None


def _png_size(content: bytes, stream: BinaryIO) -> Size | None:
    """Check the chunks before the pixels, and that no chunk after them has an orientation (PNG, section 5)."""
    width_px, height_px, bits, color = struct.unpack_from(">IIBB", content, 16)
    if content[8:16] != b"\0\0\0\rIHDR" or bits not in _PNG_BITS.get(color, ()) or content[26:29] != b"\0\0\0":
        return None
    at, name = 8, b""
    while name != b"IDAT":
        length, name = struct.unpack_from(">I4s", content, at)
        end = at + 12 + length
        if name not in _PNG_KNOWN or (name == b"IHDR" and at > 8) or content[at + 8 : at + 19] == b"Raw profile":
            return None
        if name != b"IDAT":
            (checksum,) = struct.unpack_from(">I", content, end - 4)
            if zlib.crc32(content[at + 4 : end - 4]) != checksum:
                return None
        at = end
    while name != b"IEND":
        stream.seek(at)
        length, name = struct.unpack(">I4s", stream.read(8))
        if name == b"eXIf":
            return None
        at += 12 + length
    return width_px, height_px, 1

"""Whether the file of an image holds all of its pixels: by its structure, and after it was decoded.

Decoders fill what a file does not hold: libjpeg with gray where the end mark comes early, Pillow with black where the
compressed rows of a PNG end early. Neither says so.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from d2tune.annotations.io.photos.pillow import ImageError

_TAIL_BYTES, _BLOCK_BYTES = 1024, 1 << 20
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2), (0, 1, 1, 2))
"""First column, step of columns, first row and step of rows of each pass (PNG, section 8.1)."""
_GRAY_OF_LIBJPEG = (127, 128)
_PROBE = bytes((71 * number) % 251 + 1 for number in range(256))
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_OFFSETS, _COUNTS = (273, 324), (279, 325)


def has_whole_structure(stream: BinaryIO, size_bytes: int) -> bool | None:
    """Whether a file ends where its own structure says.

    Args:
        stream: The file.
        size_bytes: Its size.

    Returns:
        None where only decoding can tell: the formats other than JPEG, PNG, TIFF and WebP, PNGs without an end, and
        JPEGs whose end mark is not near the end.
    """
    stream.seek(0)
    start = stream.read(16)
    if start.startswith(b"\xff\xd8\xff"):
        stream.seek(max(0, size_bytes - _TAIL_BYTES))
        return True if b"\xff\xd9" in stream.read() else None
    if start.startswith(_PNG_START):
        return True if any(name == b"IEND" for name, _, _ in _png_chunks(stream, size_bytes)) else None
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return size_bytes >= 8 + int.from_bytes(start[4:8], "little")
    if start[:4] in (b"II*\0", b"MM\0*"):
        return _tiff_has_data(stream, size_bytes)
    return None


def _png_chunks(stream: BinaryIO, size_bytes: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, place of the content and its length of each chunk that lies in the file as a whole."""
    at = len(_PNG_START)
    while at + 12 <= size_bytes:
        stream.seek(at)
        length, name = struct.unpack(">I4s", stream.read(8))
        if at + 12 + length > size_bytes:
            return
        yield name, at + 8, length
        if name == b"IEND":
            return
        at += 12 + length


def _tiff_has_data(stream: BinaryIO, size_bytes: int) -> bool | None:
    """Whether all strips or tiles of the first page lie in the file."""
    from PIL import Image as PilImage

    stream.seek(0)
    try:
        with PilImage.open(stream) as image:
            tags: Any = image.tag_v2 if image.format == "TIFF" else {}  # type: ignore[attr-defined]  # TIFFs have tags
            for offsets_tag, counts_tag in zip(_OFFSETS, _COUNTS, strict=True):
                offsets, counts = (_tuple(tags.get(tag)) for tag in (offsets_tag, counts_tag))
                if offsets and len(offsets) == len(counts):
                    return all(offset + count <= size_bytes for offset, count in zip(offsets, counts, strict=True))
    except Exception:  # Pillow raises many kinds of errors; the decoder that is asked next names the reason
        return None
    return None


def _tuple(value: Any) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else () if value is None else (value,)


def refuse_missing_pixels(image: Any, stream: BinaryIO) -> None:
    """Refuse a decoded image whose last pixels the decoder filled; quick unless its last pixel is such a filling.

    Args:
        image: A decoded Pillow image, also one of reduced size.
        stream: Its file.

    Raises:
        ImageError: The file holds fewer pixels than its header says.
    """
    if image.format in ("JPEG", "MPO"):
        _refuse_cut_jpeg(image, stream)
    elif image.format == "PNG" and (image.info.get("interlace") or not any(_last_pixel(image))):
        refuse_cut_png(stream)


def _last_pixel(image: Any) -> tuple[int, ...]:
    pixel = image.getpixel((image.width - 1, image.height - 1))
    return pixel if isinstance(pixel, tuple) else (pixel,)


def _refuse_cut_jpeg(image: Any, stream: BinaryIO) -> None:
    """Refuse a JPEG whose end mark comes before its last block, or whose progressive scans are not all there."""
    is_filled = all(value in _GRAY_OF_LIBJPEG for value in _last_pixel(image))
    if not is_filled and not image.info.get("progressive"):
        return
    stream.seek(0)
    content = stream.read()
    end, scans = _jpeg_scans(content)
    if image.info.get("progressive") and any(bits > 0 for bits in _missing_bits(scans)):
        raise ImageError("the JPEG is cut off: scans of it are missing")
    if is_filled and end is not None and _changes(content, end):
        raise ImageError("the JPEG is cut off: its end mark comes before its last pixels")


def _changes(content: bytes, end: int) -> bool:
    """Whether bytes before the end mark at ``end`` change the image: only if the blocks before it are not complete."""
    from PIL import Image as PilImage

    def pixels(data: bytes) -> bytes:
        with PilImage.open(io.BytesIO(data)) as image:
            return image.tobytes()

    return pixels(content) != pixels(content[:end] + _PROBE + content[end:])


def _jpeg_scans(content: bytes) -> tuple[int | None, list[bytes]]:
    """The place of the end mark after the scans, None without one, and the header of each scan (ITU T.81, annex B)."""
    scans: list[bytes] = []
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == 0xD9:
            return at, scans
        if marker == 0xFF:
            at += 1
            continue
        (length,) = struct.unpack_from(">H", content, at + 2)
        if marker == 0xDA:
            scans.append(content[at + 4 : at + 2 + length])
            following = _END_OF_SCAN.search(content, at + 2 + length)
            if following is None:
                break
            at = following.start()
        else:
            at += 2 + length
    return (at, scans) if content[at : at + 2] == b"\xff\xd9" else (None, scans)


def _missing_bits(scans: list[bytes]) -> Iterator[int]:
    """For each component and coefficient of a progressive JPEG that was begun, how many of its low bits are missing.

    A coefficient that no scan has is not counted: encoders omit those that are zero in the whole image.
    """
    left: dict[tuple[int, int], int] = {}
    for scan in scans:
        components = scan[0]
        first, last, bits = scan[1 + 2 * components : 4 + 2 * components]
        for number in range(components):
            for coefficient in range(first, min(last, 63) + 1):
                left[scan[1 + 2 * number], coefficient] = bits & 15
    yield from left.values()
    if left and not any(coefficient for _, coefficient in left):
        yield 1


def refuse_cut_png(stream: BinaryIO) -> None:
    """Inflate the pixels of a PNG, which also compares their checksum.

    Raises:
        ImageError: The data are damaged, or have fewer rows than the header says.
    """
    stream.seek(0, io.SEEK_END)
    size_bytes = stream.tell()
    expected, inflated = 0, 0
    inflate = zlib.decompressobj()
    try:
        for name, start, length in _png_chunks(stream, size_bytes):
            stream.seek(start)
            if name == b"IHDR":
                expected = _png_bytes(*struct.unpack(">IIBBxxB", stream.read(13)))
            elif name == b"IDAT":
                data = stream.read(length)
                while data and not inflate.eof and inflated <= expected:  # more is not shown
                    inflated += len(inflate.decompress(data, _BLOCK_BYTES))
                    data = inflate.unconsumed_tail
    except zlib.error as error:
        raise ImageError(f"the PNG is damaged ({error})") from error
    if inflated < expected:
        raise ImageError("the PNG is cut off: its data have fewer rows than its header says")


def _png_bytes(width_px: int, height_px: int, bits: int, color: int, interlace: int) -> int:
    """The size of the rows of a PNG with their filter bytes, before compression."""
    passes = _ADAM7 if interlace else ((0, 1, 0, 1),)
    total = 0
    for left, across, top, down in passes:
        columns, rows = -(-(width_px - left) // across), -(-(height_px - top) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + -(-columns * bits * _PNG_SAMPLES.get(color, 1) // 8))
    return total

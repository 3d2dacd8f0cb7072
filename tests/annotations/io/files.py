"""Image files made byte by byte."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path


def png_of(*chunks: bytes) -> bytes:
    """A PNG of chunks, each a name and its content."""
    rows = (struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(rows)


def add_tiff_tag(path: Path, tag: int, value: int) -> None:
    """Add a short to the tags of a little-endian TIFF, in a new directory at its end."""
    data = path.read_bytes()
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    entries = [data[start : start + 12] for start in range(at + 2, at + 2 + 12 * count, 12)]
    entries = sorted([*entries, struct.pack("<HHIHH", tag, 3, 1, value, 0)], key=lambda entry: entry[:2][::-1])
    directory = struct.pack("<H", count + 1) + b"".join(entries) + struct.pack("<I", 0)
    path.write_bytes(data[:4] + struct.pack("<I", len(data)) + data[8:] + directory)

"""Small files that would take a decoder minutes or gigabytes are refused; usual files of the same kinds are read."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
import tifffile
from PIL import Image

from d2tune.serving.decoding_costs import MOST_CHUNKS
from tests.serving.conftest import Running
from tests.serving.stand_in import encoded, lamp
from tests.serving.test_limits import chunk, png

BOX = (10, 20, 40, 50)
PLAIN_BOX = [10, 20, 30, 30]


def tiff(entries: dict[int, int], data: bytes) -> bytes:
    """A TIFF of one page with whole numbers as tags, whose data begin at byte 300."""
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items()))
    return (b"II*\0" + struct.pack("<IH", 8, len(entries)) + tags + bytes(4)).ljust(300, b"\0") + data


def strip_that_inflates(size_bytes: int, *, bits: int) -> bytes:
    data = zlib.compress(bytes(size_bytes), 9)
    strip = {256: 64, 257: 64, 258: bits, 259: 8, 262: 1, 277: 1, 273: 300, 278: 64, 279: len(data)}
    return tiff(strip, data)


def large_tile(side_px: int, *, bits: int) -> bytes:
    data = zlib.compress(bytes(1000))
    tile = {256: 64, 257: 64, 258: bits, 259: 8, 262: 1, 277: 1, 322: side_px, 323: side_px, 324: 300, 325: len(data)}
    return tiff(tile, data)


def two_headers() -> bytes:
    second = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 9_000, 8, 2, 0, 0, 0))
    return png(64, 64, second, data=zlib.compress(bytes(1000)))


def many_scans(count: int) -> bytes:
    content = encoded(lamp(BOX), "JPEG", progressive=True)
    last = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + last * count + b"\xff\xd9"


def many_chunks(count: int) -> bytes:
    rows = b"".join(b"\0" + row.tobytes() for row in lamp(BOX))
    return png(64, 64, *[chunk(b"teXt", b"")] * count, data=zlib.compress(rows))


HOSTILE: dict[str, tuple[Callable[[], bytes], int, str]] = {
    "PNG that states its size twice": (two_headers, 413, "too_many_pixels"),
    "PNG of very many chunks": (lambda: many_chunks(MOST_CHUNKS), 413, "too_costly"),
    "JPEG of very many scans": (lambda: many_scans(100), 413, "too_costly"),
    "TIFF of one tile of 400 megapixels": (lambda: large_tile(20_000, bits=8), 413, "too_costly"),
    "TIFF of one deep tile of 400 megapixels": (lambda: large_tile(20_000, bits=16), 413, "too_costly"),
    "deep TIFF that inflates to 64 MB": (lambda: strip_that_inflates(64_000_000, bits=16), 413, "too_costly"),
    "deep TIFF in another compression": (
        lambda: tiff({256: 4, 257: 4, 258: 16, 259: 32773, 262: 1, 277: 1, 273: 300, 278: 4, 279: 9}, b"\x81\0" * 9),
        422,
        "bad_image",
    ),
    "ICO": (lambda: encoded(lamp(BOX), "ICO"), 422, "bad_image"),
    "PCX": (lambda: encoded(lamp(BOX), "PCX"), 422, "bad_image"),
    "DDS": (lambda: encoded(lamp(BOX), "DDS"), 422, "bad_image"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_costly_files_are_refused(lamps: Running, name: str) -> None:
    make, status, code = HOSTILE[name]
    answer = lamps.predict(make())
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    assert lamps.predict(encoded(lamp(BOX))).status_code == 200


def deep_tiff(**options: object) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, lamp(BOX)[..., 0].astype(np.uint16) * 257, compression="zlib", **options)  # type: ignore[arg-type]
    return stream.getvalue()


USUAL: dict[str, Callable[[], bytes]] = {
    "BMP": lambda: encoded(lamp(BOX), "BMP"),
    "PPM": lambda: encoded(lamp(BOX), "PPM"),
    "JPEG 2000": lambda: encoded(lamp(BOX), "JPEG2000"),
    "progressive JPEG": lambda: encoded(lamp(BOX), "JPEG", progressive=True, quality=100, subsampling=0),
    "PNG of many chunks": lambda: many_chunks(1000),
    "PNG with a palette that has transparency": lambda: encoded(
        np.asarray(Image.fromarray(lamp(BOX)).convert("L")), "PNG", transparency=0
    ),
    "1-bit TIFF in groups": lambda: encoded(lamp(BOX)[..., 0] > 0, "TIFF", compression="group4"),
    "tiled TIFF": lambda: deep_tiff(tile=(16, 16)),
    "TIFF of strips": lambda: deep_tiff(rowsperstrip=7),
    "BigTIFF": lambda: deep_tiff(bigtiff=True),
}


@pytest.mark.parametrize("name", USUAL)
def test_usual_files_of_these_kinds_are_read(lamps: Running, name: str) -> None:
    answer = lamps.predict(USUAL[name]())
    assert answer.status_code == 200, answer.text
    box = answer.json()["objects"][0]["box_xywh"]
    assert np.abs(np.subtract(box, PLAIN_BOX)).max() <= 1  # JPEG moves an edge by a pixel

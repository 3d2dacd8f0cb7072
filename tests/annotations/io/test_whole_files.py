"""Files that are cut off or damaged are refused, in training and in checks, and never give gray or black pixels."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage

from d2tune.annotations.io.photos.checks import check_photo
from d2tune.annotations.io.photos.reading import read_photo, read_photo_content
from d2tune.errors import DataError
from tests.annotations.io import files
from tests.shared_files import SHARED

NOISE = np.random.default_rng(3).integers(0, 256, (200, 300, 3), dtype=np.uint8)
DAMAGE = SHARED / "strangers" / "45_jpeg_damage"


def encoded(kind: str, pixels: np.ndarray = NOISE, **options: Any) -> bytes:
    stream = io.BytesIO()
    PilImage.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def png_of(rows: bytes, *, interlace: int = 0) -> bytes:
    """A PNG of 300 x 200 px in RGB with these rows, whose checksums are right."""
    header = struct.pack(">IIBBBBB", 300, 200, 8, 2, 0, 0, interlace)
    return files.png_of(b"IHDR" + header, b"IDAT" + zlib.compress(rows), b"IEND")


ROWS = b"".join(b"\0" + row.tobytes() for row in NOISE)
ADAM7 = ((0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2), (0, 1, 1, 2))
INTERLACED = b"".join(
    b"\0" + NOISE[row, left::across].tobytes() for left, across, top, down in ADAM7 for row in range(top, 200, down)
)
WHOLE = {
    "jpeg": encoded("JPEG"),
    "progressive": encoded("JPEG", progressive=True),
    "gray-jpeg": encoded("JPEG", NOISE[..., 0]),
    "gray-corner": encoded("JPEG", np.full((64, 64, 3), 128, np.uint8)),
    "gray-gray-corner": encoded("JPEG", np.full((64, 64), 128, np.uint8)),
    "jpeg-and-more": encoded("JPEG") + bytes(5000),
    "progressive-gray": encoded("JPEG", np.full((64, 64), 128, np.uint8), progressive=True),
    "restart-marks": encoded("JPEG", restart_marker_blocks=4),
    "png": encoded("PNG"),
    "black-png": encoded("PNG", np.zeros((50, 60, 3), np.uint8)),
    "one-bit": encoded("PNG", np.zeros((50, 61), bool)),
    "interlaced": png_of(INTERLACED, interlace=1),
    "webp": encoded("WEBP"),
    "tiff": encoded("TIFF"),
    "lzw": encoded("TIFF", compression="tiff_lzw"),
    "deep-tiff": encoded("TIFF", NOISE[..., 0].astype(np.uint16) * 257),
    "bmp": encoded("BMP"),
    "ppm": encoded("PPM"),
    "jp2": encoded("JPEG2000"),
    "avif": encoded("AVIF"),
    "gif": encoded("GIF", NOISE[..., 0]),
}


TINY = ("gray-corner", "gray-gray-corner", "one-bit", "black-png")
"""Files that end with more bytes than their pixels have."""


@pytest.mark.parametrize("kind", WHOLE)
def test_whole_files_are_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.img"
    path.write_bytes(WHOLE[kind])
    read_photo(path)
    check_photo(path, deep=False)
    check_photo(path, deep=True)


def test_the_interlaced_file_of_these_tests_is_right(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(WHOLE["interlaced"])
    np.testing.assert_array_equal(read_photo(tmp_path / "a.png"), NOISE)


def refused(path: Path, *, by: str = "reading structure decoding") -> None:
    """Check that a file is refused in a line with its name."""
    for way, action in (
        ("reading", read_photo),
        ("structure", lambda path: check_photo(path, deep=False)),
        ("decoding", lambda path: check_photo(path, deep=True)),
    ):
        if way not in by:
            action(path)
            continue
        with pytest.raises(DataError) as raised:
            action(path)
        assert raised.value.file == str(path)
        assert "\n" not in raised.value.one_line()


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("kind", [kind for kind in WHOLE if kind not in TINY])
def test_cut_files_are_refused(tmp_path: Path, kind: str, share: float) -> None:
    content = WHOLE[kind].removesuffix(bytes(5000))
    (tmp_path / "a.img").write_bytes(content[: round(len(content) * share)])
    refused(tmp_path / "a.img")


@pytest.mark.parametrize("kind", ["jpeg", "gray-jpeg", "restart-marks", "progressive"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_jpegs_whose_end_mark_comes_early_are_refused(tmp_path: Path, kind: str, share: float) -> None:
    """libjpeg fills what is missing with gray and says nothing; the last scan of a progressive file refines it."""
    content = WHOLE[kind]
    if kind == "progressive" and share > 0.5:
        share = 0.5
    (tmp_path / "a.jpg").write_bytes(content[: round(len(content) * share)] + b"\xff\xd9")
    refused(tmp_path / "a.jpg", by="reading decoding")


def test_the_gray_half_of_a_public_report_is_refused() -> None:
    refused(DAMAGE / "middle_cut.jpg", by="reading decoding")
    refused(DAMAGE / "cut.jpg")
    for name in ("ok.jpg", "tail.jpg"):
        check_photo(DAMAGE / name, deep=True)
        assert read_photo(DAMAGE / name).shape == (192, 256, 3)


@pytest.mark.parametrize("rows", [ROWS[: len(ROWS) // 2], ROWS[:-900], b""])
def test_a_png_whose_data_end_early_is_refused(tmp_path: Path, rows: bytes) -> None:
    """All checksums are right; Pillow fills the missing rows with black."""
    (tmp_path / "a.png").write_bytes(png_of(rows))
    refused(tmp_path / "a.png", by="reading decoding")


def test_an_interlaced_png_whose_data_end_early_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_of(INTERLACED[: len(INTERLACED) // 2], interlace=1))
    refused(tmp_path / "a.png", by="reading decoding")


def damaged(content: bytes) -> Iterator[bytes]:
    """A PNG with bytes of its pixels changed, set to zero, or a whole chunk removed."""
    middle = len(content) // 2
    yield content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]
    yield content[:middle] + bytes(200) + content[middle + 200 :]
    yield content[:middle] + bytes(len(content) - middle - 30) + content[-30:]
    at = content.index(b"IDAT", 20_000) - 4
    (length,) = struct.unpack_from(">I", content, at)
    yield content[:at] + content[at + 12 + length :]


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("kind", ["8-bit", "16-bit", "16-bit-color"])
def test_a_png_with_damaged_data_is_refused(tmp_path: Path, kind: str, number: int) -> None:
    import cv2

    deep = np.random.default_rng(0).integers(0, 65536, (200, 300, 3), dtype=np.uint16)
    pixels = {"8-bit": NOISE, "16-bit": deep[..., 0], "16-bit-color": deep}[kind]
    content = bytes(cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1])
    (tmp_path / "a.png").write_bytes(list(damaged(content))[number])
    with pytest.raises(DataError):
        read_photo(tmp_path / "a.png")
    with pytest.raises(DataError):
        check_photo(tmp_path / "a.png", deep=True)


def test_png_is_inflated_no_further_than_its_pixels() -> None:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    surplus = zlib.compress(bytes(8_000_000))
    for damaged in (surplus, surplus[:-1000] + b"\xff" * 1000):  # the end is not looked at, as decoders do not
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0))
        content = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", damaged) + chunk(b"IEND", b"")
        assert read_photo_content(content).shape == (4, 4, 3)

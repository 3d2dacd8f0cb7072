"""The quick reading of headers says what Pillow says, or nothing."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

from d2tune.annotations.io.headers import quick_size
from d2tune.annotations.io.images import Header, ImageError, read_header
from tests.shared_files import SHARED

PHOTOS = sorted(path for path in (SHARED / "data").rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))


def encoded(kind: str, size: tuple[int, int] = (40, 30), mode: str = "RGB", **more: object) -> bytes:
    stream = io.BytesIO()
    PilImage.new(mode, size, 1 if mode in ("1", "L", "P") else None).save(stream, format=kind, **more)
    return stream.getvalue()


def with_orientation(value: int, **more: object) -> bytes:
    exif = PilImage.Exif()
    exif[0x010F] = "a maker"
    exif[0x0112] = value
    return encoded("JPEG", exif=exif, **more)


def quick(content: bytes) -> tuple[int, int, int] | None:
    return quick_size(io.BytesIO(content))


def by_pillow(content: bytes) -> tuple[int, int, int] | None:
    """The size as stored and the orientation, None for what is no image."""
    try:
        with PilImage.open(io.BytesIO(content)) as photo:
            return *photo.size, PilImage.Image.getexif(photo).get(0x0112, 1)
    except Exception:
        return None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpeg_with_orientation(orientation: int) -> None:
    content = with_orientation(orientation, progressive=orientation % 2 == 0)
    assert quick(content) == (40, 30, orientation)
    assert read_header(content) == Header(*((30, 40) if orientation >= 5 else (40, 30)), orientation)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA"])
def test_png(mode: str) -> None:
    assert quick(encoded("PNG", mode=mode)) == (40, 30, 1)


def test_what_is_left_to_pillow() -> None:
    exif = PilImage.Exif()
    exif[0x0112] = 6
    turned = encoded("PNG", exif=exif)
    end = turned.index(b"IEND") - 4
    start = turned.index(b"eXIf") - 4
    late = turned[:start] + turned[(stop := start + 12 + struct.unpack_from(">I", turned, start)[0]) : end]
    late += turned[start:stop] + turned[end:]
    for content in (turned, late):
        assert quick(content) is None
        assert read_header(content) == Header(30, 40, 6)
    xmp = b'<x tiff:Orientation="6"/>'
    assert quick(encoded("JPEG", xmp=xmp)) is None
    assert quick(encoded("JPEG", mode="L")[:-4]) == (40, 30, 1)  # cut off in its pixels alone
    for content in (b"", b"\xff\xd8\xff", encoded("GIF", mode="P"), encoded("PNG")[:40], encoded("JPEG")[:60]):
        assert quick(content) is None


def test_a_png_that_claims_too_much_is_refused() -> None:
    content = bytearray(encoded("PNG"))
    content[16:24] = struct.pack(">II", 100_000, 100_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    with pytest.raises(ImageError):
        read_header(bytes(content))


def test_real_photos() -> None:
    chosen = PHOTOS[::7]
    assert len(chosen) > 20
    answers = [(quick(path.read_bytes()), by_pillow(path.read_bytes())) for path in chosen]
    assert all(ours in (None, theirs) for ours, theirs in answers)
    assert sum(ours is not None for ours, _ in answers) > 0.8 * len(answers)


def test_damaged_headers_are_never_read_differently() -> None:
    draw = random.Random(0)
    noise = PilImage.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8))
    stream = io.BytesIO()
    noise.save(stream, format="PNG")
    sources = [with_orientation(6), encoded("JPEG", progressive=True), stream.getvalue(), PHOTOS[0].read_bytes()[:9000]]
    understood = 0
    for _ in range(4000):
        content = bytearray(draw.choice(sources))
        for _ in range(draw.randint(1, 3)):
            content[draw.randrange(min(len(content), 700))] = draw.choice([0, 1, 255, draw.randrange(256)])
        content = content[: draw.randrange(len(content))] if draw.random() < 0.2 else content
        ours = quick(bytes(content))
        if ours is not None:
            understood += 1
            assert ours == by_pillow(bytes(content))
    assert understood > 1000


def test_files_are_measured_from_disk(tmp_path: Path) -> None:
    for name, content in (("a.jpg", with_orientation(8)), ("b.png", encoded("PNG"))):
        (tmp_path / name).write_bytes(content)
        assert read_header(tmp_path / name) == read_header(content)


def test_png_that_states_its_size_twice_is_left_to_pillow() -> None:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    first, second = (struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0) for side in (4, 9))
    end = chunk(b"IDAT", zlib.compress(bytes(90))) + chunk(b"IEND", b"")
    assert quick_size(io.BytesIO(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", first) + end)) == (4, 4, 1)
    twice = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", first) + chunk(b"IHDR", second) + end
    assert quick_size(io.BytesIO(twice)) is None

"""Photos of every depth and color model as the 8 bits that training, evaluation and prediction see."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from detectron2.data import detection_utils
from PIL import Image as PilImage

from d2tune.annotations.io.images import Header, read_header
from d2tune.annotations.io.photos.reading import LARGEST_DECODED_PX, read_photo, to_rgb
from d2tune.annotations.model.pixel_format import PixelFormat
from d2tune.errors import DataError
from tests.annotations.io.files import add_tiff_tag, png_of
from tests.shared_files import SHARED

RAMP = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
COLORS = np.stack([RAMP, RAMP[::-1], 65535 - RAMP], axis=2)
ALPHA = np.full_like(RAMP, 30000)


def eight_bits(values: np.ndarray, white: float = 65535) -> np.ndarray:
    """The nearest 8-bit value, by numpy's doubles."""
    return np.floor(values.astype(np.float64) * 255 / white + 0.5).clip(0, 255).astype(np.uint8)


def as_rgb(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[..., None], 3, axis=2)


def png_with_chunk(path: Path, name: bytes, content: bytes) -> None:
    """Put a chunk behind the header of a PNG."""
    data = path.read_bytes()
    chunk = struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    path.write_bytes(data[:33] + chunk + data[33:])


DEEP: dict[str, tuple[Callable[[Path], object], str, np.ndarray]] = {
    "gray-png": (lambda path: cv2.imwrite(str(path), RAMP), "png", as_rgb(RAMP)),
    "rgb-png": (lambda path: cv2.imwrite(str(path), COLORS[..., ::-1]), "png", COLORS),
    "rgba-png": (lambda path: cv2.imwrite(str(path), np.dstack([COLORS[..., ::-1], ALPHA])), "png", COLORS),
    "little-endian-tiff": (lambda path: tifffile.imwrite(path, RAMP), "tif", as_rgb(RAMP)),
    "big-endian-tiff": (lambda path: tifffile.imwrite(path, RAMP, byteorder=">"), "tif", as_rgb(RAMP)),
    "deflate-tiles": (
        lambda path: tifffile.imwrite(path, RAMP, compression="zlib", predictor=True, tile=(16, 32)),
        "tif",
        as_rgb(RAMP),
    ),
    "lzw": (lambda path: cv2.imwrite(str(path), RAMP, [cv2.IMWRITE_TIFF_COMPRESSION, 5]), "tif", as_rgb(RAMP)),
    "lzw-rgb": (
        lambda path: cv2.imwrite(str(path), COLORS[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, 5]),
        "tif",
        COLORS,
    ),
    "rgb-tiff": (lambda path: tifffile.imwrite(path, COLORS, photometric="rgb"), "tif", COLORS),
    "planes": (
        lambda path: tifffile.imwrite(path, COLORS.transpose(2, 0, 1), photometric="rgb", planarconfig="separate"),
        "tif",
        COLORS,
    ),
    "gray-alpha-tiff": (
        lambda path: tifffile.imwrite(
            path, np.dstack([RAMP, ALPHA]), photometric="minisblack", extrasamples=["unassalpha"], planarconfig="contig"
        ),
        "tif",
        as_rgb(RAMP),
    ),
    "white-is-zero": (lambda path: tifffile.imwrite(path, 65535 - RAMP, photometric="miniswhite"), "tif", as_rgb(RAMP)),
    "int32": (lambda path: tifffile.imwrite(path, RAMP.astype(np.int32)), "tif", as_rgb(RAMP)),
    "uint32": (lambda path: tifffile.imwrite(path, RAMP.astype(np.uint32)), "tif", as_rgb(RAMP)),
    "jpeg-2000": (lambda path: PilImage.fromarray(RAMP).save(path), "jp2", as_rgb(RAMP)),
    "pgm": (
        lambda path: path.write_bytes(b"P5 64 48 65535\n" + RAMP.astype(">u2").tobytes()),
        "pgm",
        as_rgb(RAMP),
    ),
}


@pytest.mark.parametrize("kind", DEEP)
def test_16_bits_are_divided_by_257(tmp_path: Path, kind: str) -> None:
    write, suffix, values = DEEP[kind]
    path = tmp_path / f"a.{suffix}"
    write(path)
    pixels = read_photo(path)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, eight_bits(values))
    form = read_header(path).pixel_format
    assert form is not None
    assert form.white == 65535
    assert not form.is_stated


def test_gray_and_alpha_of_16_bits_in_a_png(tmp_path: Path) -> None:
    rows = b"".join(b"\0" + np.dstack([RAMP, ALPHA]).astype(">u2")[row].tobytes() for row in range(48))
    header = struct.pack(">IIBBBBB", 64, 48, 16, 4, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(png_of(b"IHDR" + header, b"IDAT" + zlib.compress(rows), b"IEND"))
    np.testing.assert_array_equal(read_photo(tmp_path / "a.png"), eight_bits(as_rgb(RAMP)))


TWELVE = RAMP >> 4
MAXIMUM, MAXIMA = (281, "H", 1, 4095, True), (281, "H", 3, (4095, 4095, 4095), True)
STATED: dict[str, tuple[Callable[[Path], object], str, np.ndarray, float]] = {
    "tiff-tag": (lambda path: tifffile.imwrite(path, TWELVE, extratags=[MAXIMUM]), "tif", TWELVE, 4095),
    "rgb-tiff-tag": (
        lambda path: tifffile.imwrite(path, COLORS >> 4, photometric="rgb", extratags=[MAXIMA]),
        "tif",
        COLORS >> 4,
        4095,
    ),
    "pgm": (
        lambda path: path.write_bytes(b"P5\n# a comment\n64 48\n1000\n" + (RAMP // 66).astype(">u2").tobytes()),
        "pgm",
        RAMP // 66,
        1000,
    ),
    "plain-pgm": (
        lambda path: path.write_text("P2 64 48 1000\n" + " ".join(str(value) for value in (RAMP // 66).flat)),
        "pgm",
        RAMP // 66,
        1000,
    ),
    "ppm": (
        lambda path: path.write_bytes(b"P6 64 48 4095\n" + (COLORS >> 4).astype(">u2").tobytes()),
        "ppm",
        COLORS >> 4,
        4095,
    ),
}


@pytest.mark.parametrize("kind", STATED)
def test_a_smaller_range_in_the_header_is_the_divisor(tmp_path: Path, kind: str) -> None:
    write, suffix, values, white = STATED[kind]
    path = tmp_path / f"a.{suffix}"
    write(path)
    assert read_header(path).pixel_format == PixelFormat("16-bit", white, True)
    expected = eight_bits(values, white)
    np.testing.assert_array_equal(read_photo(path), expected if expected.ndim == 3 else as_rgb(expected))


@pytest.mark.parametrize("white", [2000, 4095, 65535])
@pytest.mark.parametrize("kind", ["tiff-tag", "pgm", "ppm"])
def test_the_white_of_a_project_goes_before_that_of_a_file(tmp_path: Path, kind: str, white: float) -> None:
    write, suffix, values, _ = STATED[kind]
    path = tmp_path / f"a.{suffix}"
    write(path)
    expected = eight_bits(values, white).astype(int)
    # Pillow reads colors of a PPM with 8 bits
    tolerance = 2 if kind == "ppm" else 0
    difference = read_photo(path, white=white).astype(int) - (expected if expected.ndim == 3 else as_rgb(expected))
    assert np.abs(difference).max() <= tolerance


@pytest.mark.parametrize("bits", [10, 12])
def test_packed_bits_of_a_tiff(tmp_path: Path, bits: int) -> None:
    values = np.linspace(0, (1 << bits) - 1, 16).astype(int).reshape(2, 8)
    packed = b"".join(int("".join(f"{value:0{bits}b}" for value in row), 2).to_bytes(bits, "big") for row in values)
    tags = [(256, 8), (257, 2), (258, bits), (259, 1), (262, 1), (273, 8 + 2 + 12 * 9 + 4), (277, 1), (278, 2)]
    tags.append((279, len(packed)))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + packed)
    assert read_header(path).pixel_format == PixelFormat("16-bit", (1 << bits) - 1, True)
    np.testing.assert_array_equal(read_photo(path), as_rgb(eight_bits(values, (1 << bits) - 1)))


def test_significant_bits_of_a_png(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), TWELVE)
    png_with_chunk(path, b"sBIT", b"\x0c")
    assert read_header(path).pixel_format == PixelFormat("16-bit", 4095, True)
    np.testing.assert_array_equal(read_photo(path), as_rgb(eight_bits(TWELVE, 4095)))
    # as the specification of PNG has it, the values are scaled to all 16 bits
    cv2.imwrite(str(path), TWELVE * 16 + (TWELVE >> 8))
    png_with_chunk(path, b"sBIT", b"\x0c")
    np.testing.assert_array_equal(read_photo(path), as_rgb(eight_bits(TWELVE * 16 + (TWELVE >> 8))))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 3])
def test_floats_from_0_to_1_are_multiplied_by_255(tmp_path: Path, dtype: type, channels: int) -> None:
    values = np.linspace(0, 1, 48 * 64 * channels, dtype=dtype).reshape(48, 64, channels)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values.squeeze(), photometric="rgb" if channels == 3 else "minisblack")
    expected = np.rint(values.astype(np.float64) * 255).astype(np.uint8)
    np.testing.assert_array_equal(read_photo(path), np.broadcast_to(expected, (48, 64, 3)))
    form = read_header(path).pixel_format
    assert form is not None
    assert (form.kind, form.white) == ("float", 1)


@pytest.mark.parametrize(
    ("values", "stated"),
    [
        (np.array([[0, 1.5]], np.float32), "0 to 1.5"),
        (np.array([[-0.25, 1]], np.float32), "-0.25 to 1"),
        (np.array([[0, np.nan]], np.float32), "NaN"),
        (np.array([[-1024, 3071]], np.int16), "-1024 to 3071"),
        (np.array([[0, 70000]], np.int32), "0 to 70000"),
    ],
)
def test_values_without_a_known_white_are_an_error_with_their_range(
    tmp_path: Path, values: np.ndarray, stated: str
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.repeat(values, 4, axis=0), photometric="minisblack")
    with pytest.raises(DataError) as raised:
        read_photo(tmp_path / "a.tif")
    assert raised.value.found == stated
    assert raised.value.file == str(tmp_path / "a.tif")


def turned_back(upright: np.ndarray, orientation: int) -> np.ndarray:
    """The stored pixels that an orientation shows as ``upright`` (EXIF 2.32, table 6)."""
    inverse = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: a[:, ::-1].swapaxes(0, 1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: a[::-1].swapaxes(0, 1),
    }
    return np.ascontiguousarray(inverse[orientation](upright))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["gray", "color"])
@pytest.mark.parametrize("suffix", ["png", "tif", "lzw.tif"])
@pytest.mark.parametrize("depth", [8, 16])
def test_orientation_is_the_same_for_every_depth(
    tmp_path: Path, orientation: int, kind: str, suffix: str, depth: int
) -> None:
    upright = COLORS if kind == "color" else RAMP
    if depth == 8:
        upright = eight_bits(upright)
    stored = turned_back(upright, orientation)
    path = tmp_path / f"a.{suffix}"
    exif = PilImage.Exif()
    exif[0x0112] = orientation
    if suffix == "png":
        content = io.BytesIO()
        PilImage.new("L", (1, 1)).save(content, "PNG", exif=exif)
        cv2.imwrite(str(path), stored[..., ::-1] if kind == "color" else stored)
        block = content.getvalue()
        at = block.index(b"eXIf")
        (length,) = struct.unpack_from(">I", block, at - 4)
        png_with_chunk(path, b"eXIf", block[at + 4 : at + 4 + length])
    elif suffix == "tif":
        photometric = "rgb" if kind == "color" else "minisblack"
        tifffile.imwrite(path, stored, photometric=photometric, extratags=[(274, "H", 1, orientation, True)])
    else:
        cv2.imwrite(str(path), stored[..., ::-1] if kind == "color" else stored, [cv2.IMWRITE_TIFF_COMPRESSION, 5])
        add_tiff_tag(path, 274, orientation)
    pixels = read_photo(path)
    expected = upright if depth == 8 else eight_bits(upright)
    np.testing.assert_array_equal(pixels, expected if kind == "color" else as_rgb(expected))
    header = read_header(path)
    assert (header.height_px, header.width_px, header.orientation) == (48, 64, orientation)


def test_8_bit_photos_have_the_bytes_of_detectron2() -> None:
    photos = sorted(path for path in (SHARED / "data").rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    chosen = photos[::37]
    assert len(chosen) > 10
    for path in chosen:
        np.testing.assert_array_equal(read_photo(path), detection_utils.read_image(str(path), "RGB"))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_8_bit_modes_have_the_bytes_of_detectron2(tmp_path: Path, mode: str) -> None:
    photo = PilImage.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)).convert(mode)
    suffix = {"CMYK": "tif", "YCbCr": "tif", "PA": "tif"}.get(mode, "png")
    if mode == "PA":
        photo = photo.convert("LA")
    photo.save(tmp_path / f"a.{suffix}")
    expected = detection_utils.read_image(str(tmp_path / f"a.{suffix}"), "RGB")
    np.testing.assert_array_equal(read_photo(tmp_path / f"a.{suffix}"), expected)


@pytest.mark.parametrize("mode", ["La", "RGBa", "PA", "HSV"])
def test_modes_that_files_rarely_have_are_converted(mode: str) -> None:
    color = {"La": (150,) * 3, "PA": (200, 40, 30)}.get(mode, (200, 40, 30))
    opaque = PilImage.new("RGBA", (4, 4), (*color, 255))
    made = {
        "La": lambda: opaque.convert("LA").convert("La"),
        "RGBa": lambda: opaque.convert("RGBa"),
        "PA": lambda: opaque.convert("RGB").convert("P", palette=PilImage.Palette.ADAPTIVE).convert("PA"),
        "HSV": lambda: opaque.convert("RGB").convert("HSV"),
    }[mode]()
    assert made.mode == mode
    assert np.abs(np.asarray(to_rgb(made)).astype(int) - color).max() <= 2


def test_lab_becomes_rgb(tmp_path: Path) -> None:
    """The sRGB color (200, 30, 30) is L 43.6, a 63.9, b 47.4 for the white of TIFF, D50."""
    lab = np.tile(np.array([round(43.6 * 255 / 100), 64, 47], np.uint8), (8, 8, 1))
    tifffile.imwrite(tmp_path / "a.tif", lab, photometric="cielab")
    assert np.abs(read_photo(tmp_path / "a.tif").astype(int) - (200, 30, 30)).max() <= 4
    assert read_header(tmp_path / "a.tif").pixel_format == PixelFormat(color="LAB")


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_the_first_of_several_frames_is_read(tmp_path: Path, suffix: str) -> None:
    frames = [PilImage.new("RGB", (16, 8), color) for color in ((200, 0, 0), (0, 200, 0), (0, 0, 200))]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
    form = read_header(tmp_path / f"a.{suffix}").pixel_format
    assert form is not None
    assert form.has_frames
    np.testing.assert_array_equal(read_photo(tmp_path / f"a.{suffix}"), np.full((8, 16, 3), (200, 0, 0)))


def test_avif_is_read(tmp_path: Path) -> None:
    PilImage.new("RGB", (16, 8), (200, 100, 50)).save(tmp_path / "a.AVIF", "AVIF", quality=95)
    assert read_header(tmp_path / "a.AVIF") == Header(16, 8)
    assert np.abs(read_photo(tmp_path / "a.AVIF").astype(int) - (200, 100, 50)).max() <= 4


def png_header(width_px: int, height_px: int) -> bytes:
    header = struct.pack(">IIBBBBB", width_px, height_px, 8, 0, 0, 0, 0)
    return png_of(b"IHDR" + header, b"IDAT" + zlib.compress(b"\0" * 100), b"IEND")


def test_large_images_are_measured_and_bombs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_header(20_000, 20_001))
    assert read_header(tmp_path / "a.png") == Header(20_000, 20_001)
    with pytest.raises(DataError, match=f"more than {LARGEST_DECODED_PX // 10**6} megapixels; divide it"):
        read_photo(tmp_path / "a.png")
    for size in ((100_000, 100_000), (0, 10), (10, 0)):
        (tmp_path / "b.png").write_bytes(png_header(*size))
        with pytest.raises(DataError) as raised:
            read_photo(tmp_path / "b.png")
        assert "\n" not in raised.value.one_line()


@pytest.mark.parametrize("name", [b"caf\xe9.jpg", b"line\nfeed.png", b"\xff\xfe.tif"])
def test_names_that_are_not_text_are_files_as_others(tmp_path: Path, name: bytes) -> None:
    import os

    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    gray = np.full((20, 30), 90, np.uint8)
    with path.open("wb") as stream:
        PilImage.fromarray(gray).save(stream, {".jpg": "JPEG", ".png": "PNG", ".tif": "TIFF"}[path.suffix])
    assert read_header(path) == Header(30, 20)
    np.testing.assert_array_equal(read_photo(path), as_rgb(gray))
    path.write_bytes(b"no image")
    with pytest.raises(DataError) as raised:
        read_photo(path)
    assert "\n" not in raised.value.one_line()
    raised.value.one_line().encode("utf-8")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_bands_of_a_sensor_are_not_read_as_a_gray_photo(tmp_path: Path, dtype: type) -> None:
    """GDAL and most others store five bands as gray with four extra samples."""
    path = tmp_path / "five.tif"
    tifffile.imwrite(path, np.ones((48, 64, 5), dtype), photometric="minisblack", planarconfig="contig")
    with pytest.raises(DataError, match=r"five\.tif: .* has 5 channels, expected 1 or 3 and alpha; .* label_images"):
        read_photo(path)

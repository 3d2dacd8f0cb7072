from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PilImage
from rasterio.transform import from_origin

from d2tune.annotations.io.raster_files import SEGMENT_CACHE_BYTES, Layout, layout_of
from d2tune.annotations.io.rasters import is_raster_name, natural_order, open_raster
from d2tune.annotations.model.options import RasterOptions
from d2tune.errors import DataError
from tests.shared_files import SHARED

RANDOM = np.random.default_rng(0)
LANDCOVER = SHARED / "data" / "landcover_timeseries"


def whole(path: Path, **options: Any) -> Any:
    with open_raster(path, RasterOptions(**options)) as raster:
        pixels = raster.read()
        assert pixels.shape == (raster.height_px, raster.width_px, raster.channels)
        assert pixels.dtype == raster.dtype
        return pixels


def numbers(*shape: int, dtype: Any = np.float32) -> Any:
    if np.dtype(dtype).kind == "f":
        return RANDOM.normal(size=shape).astype(dtype)
    return RANDOM.integers(0, 200, size=shape).astype(dtype)


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((20, 30), Layout(0, 1)),
        ((20, 30, 4), Layout(0, 1, (2,))),
        ((4, 20, 30), Layout(1, 2, (0,))),
        ((68, 101, 100), Layout(1, 2, (0,))),
        ((4, 30, 4), Layout(0, 1, (2,))),
        ((20, 3, 20), Layout(0, 1, (2,))),
        ((6, 20, 30, 5), Layout(1, 2, (0, 3))),
        ((6, 5, 20, 30), Layout(2, 3, (0, 1))),
        ((68, 101, 100, 1), Layout(1, 2, (0, 3))),
    ],
)
def test_channels_are_distinguished_by_the_shape(shape: tuple[int, ...], layout: Layout) -> None:
    assert layout_of(shape) == layout


@pytest.mark.parametrize("shape", [(5,), (), (1, 2, 3, 4, 5), (0, 3), (4, 0, 3)])
def test_shapes_that_are_not_an_image(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="array"):
        layout_of(shape)


@pytest.mark.parametrize(
    ("shape", "channels_last"),
    [
        ((20, 30), lambda a: a[..., None]),
        ((20, 30, 4), lambda a: a),
        ((4, 20, 30), lambda a: np.moveaxis(a, 0, 2)),
        ((6, 20, 30, 5), lambda a: np.concatenate(list(a), axis=2)),
        ((6, 5, 20, 30), lambda a: np.moveaxis(a.reshape(30, 20, 30), 0, 2)),
        ((6, 20, 30, 1), lambda a: np.stack([image[..., 0] for image in a], axis=2)),
    ],
)
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".tif", "deflate.tif"])
def test_every_layout_from_every_file(
    tmp_path: Path, shape: tuple[int, ...], channels_last: Callable[[Any], Any], suffix: str
) -> None:
    pixels = numbers(*shape)
    path = tmp_path / f"a{suffix}"
    if suffix == ".npy":
        np.save(path, np.asfortranarray(pixels))
    elif suffix == ".npz":
        np.savez_compressed(path, pixels)
    else:
        tifffile.imwrite(
            path, pixels, compression="zlib" if "deflate" in suffix else None, photometric="minisblack", tile=None
        )
    wanted = channels_last(pixels)
    np.testing.assert_array_equal(whole(path), wanted)
    with open_raster(path) as raster:
        np.testing.assert_array_equal(raster.read(3, 7, 11, 13), wanted[3:14, 7:20])
    np.testing.assert_array_equal(whole(path, channels=(wanted.shape[2] - 1, 0)), wanted[..., [-1, 0]])


def test_the_land_cover_series() -> None:
    stored = np.load(LANDCOVER / "data" / "NDVI.npy")
    pixels = whole(LANDCOVER / "data" / "NDVI.npy")
    assert pixels.shape == (101, 100, 68)
    for date in (0, 33, 67):
        np.testing.assert_array_equal(pixels[..., date], stored[date, :, :, 0])
    with open_raster(LANDCOVER / "mask_timeless" / "LULC.npy") as raster:
        assert (raster.height_px, raster.width_px, raster.channels, raster.stored_dtype) == (101, 100, 1, np.uint16)
        np.testing.assert_array_equal(
            raster.read_stored(), np.load(LANDCOVER / "mask_timeless" / "LULC.npy").reshape(101, 100, 1)
        )


TIFFS: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "big-endian": {"byteorder": ">"},
    "bigtiff": {"bigtiff": True},
    "strips": {"compression": "zlib", "rowsperstrip": 7},
    "tiles": {"tile": (16, 32)},
    "deflate-tiles": {"compression": "zlib", "tile": (32, 16)},
    "predictor": {"compression": "zlib", "tile": (16, 16), "predictor": 2},
}


@pytest.mark.parametrize("how", TIFFS)
@pytest.mark.parametrize("bands", ["interleaved", "planes", "pages"])
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_windows_of_tiffs_are_slices(
    tmp_path_factory: pytest.TempPathFactory, how: str, bands: str, data: st.DataObject
) -> None:
    height, width, channels = (data.draw(st.integers(1, most)) for most in (70, 70, 5))
    dtype = data.draw(st.sampled_from([np.uint8, np.uint16, np.int16, np.float32]))
    if how == "predictor" and dtype == np.float32:
        dtype = np.uint16
    pixels = numbers(height, width, channels, dtype=dtype)
    path = tmp_path_factory.mktemp("tiffs") / "a.tif"
    options: dict[str, Any] = {"photometric": "minisblack", "metadata": None} | TIFFS[how]
    if bands == "interleaved" and channels > 1:
        tifffile.imwrite(path, pixels, planarconfig="contig", **options)
    elif bands == "planes" and channels > 1:
        tifffile.imwrite(path, np.moveaxis(pixels, 2, 0), planarconfig="separate", **options)
    else:
        byteorder = {key: options.pop(key) for key in ("byteorder", "bigtiff") if key in options}
        with tifffile.TiffWriter(path, **byteorder) as writer:
            for channel in range(channels):
                writer.write(pixels[..., channel], **options)
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    rows, columns = data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left))
    chosen = tuple(data.draw(st.lists(st.integers(0, channels - 1), max_size=4)))
    with open_raster(path, RasterOptions(channels=chosen)) as raster:
        window = raster.read(top, left, rows, columns)
        stored = raster.read_stored(top, left, rows, columns)
    wanted = pixels[top : top + rows, left : left + columns][..., list(chosen) or slice(None)]
    np.testing.assert_array_equal(window, wanted.astype(np.uint8 if dtype == np.uint8 else np.float32))
    np.testing.assert_array_equal(stored, wanted)


@settings(max_examples=40, deadline=None)
@given(
    data=st.data(),
    dtype=st.sampled_from([np.bool_, np.int8, np.uint8, np.uint16, np.int32, np.uint64, np.float16, np.float64, ">f4"]),
)
def test_windows_of_arrays_are_slices(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, dtype: Any
) -> None:
    height, width, channels = data.draw(st.integers(6, 40)), data.draw(st.integers(6, 40)), data.draw(st.integers(1, 5))
    pixels = numbers(height, width, channels, dtype=dtype)
    path = tmp_path_factory.mktemp("arrays") / "a.npy"
    np.save(path, pixels)
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    with open_raster(path) as raster:
        window = raster.read(top, left)
    wanted = pixels[top:, left:].astype(np.uint8 if dtype in (np.bool_, np.uint8) else np.float32)
    np.testing.assert_array_equal(window, wanted)
    assert window.dtype == wanted.dtype


@pytest.mark.parametrize("compress", ["none", "deflate", "lzw", "packbits", "zstd"])
@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_geotiffs_of_rasterio(tmp_path: Path, compress: str, interleave: str) -> None:
    pixels = numbers(90, 70, 4, dtype=np.uint16)
    path = geotiff(tmp_path / "a.tif", pixels, compress=compress, interleave=interleave, tiled=True, overviews=True)
    with open_raster(path) as raster:
        np.testing.assert_array_equal(raster.read(20, 30, 33, 40), pixels[20:53, 30:70].astype(np.float32))
        assert raster.channels == 4
        place = raster.georeference
    assert place is not None and place.transform == (10.0, 0.0, 500000.0, 0.0, -10.0, 4600000.0)
    assert place.crs is not None and rasterio.crs.CRS.from_wkt(place.crs) == rasterio.crs.CRS.from_epsg(32633)


def geotiff(path: Path, pixels: Any, *, tiled: bool = False, overviews: bool = False, **profile: Any) -> Path:
    height, width, count = pixels.shape
    profile |= {"blockxsize": 16, "blockysize": 32} if tiled else {}
    where = {"crs": "EPSG:32633", "transform": from_origin(500000, 4600000, 10, 10)}
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=count, dtype=pixels.dtype, tiled=tiled,
        **(where | profile),
    ) as dataset:  # fmt: skip
        dataset.write(np.moveaxis(pixels, 2, 0))
        if overviews:
            dataset.build_overviews([2, 4])
    return path


def test_images_without_a_georeference(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", numbers(9, 9))
    np.save(tmp_path / "b.npy", numbers(9, 9))
    PilImage.new("RGB", (4, 4)).save(tmp_path / "c.png")
    for name in ("a.tif", "b.npy", "c.png"):
        with open_raster(tmp_path / name) as raster:
            assert raster.georeference is None


def test_without_rasterio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gray, deep = numbers(40, 30, 1, dtype=np.uint8), numbers(40, 30, 4, dtype=np.uint16)
    geotiff(tmp_path / "gray.tif", gray, compress="lzw")
    geotiff(tmp_path / "deep.tif", deep, compress="lzw")
    geotiff(tmp_path / "plain.tif", deep)
    monkeypatch.setitem(sys.modules, "rasterio", None)
    np.testing.assert_array_equal(whole(tmp_path / "gray.tif"), gray)
    np.testing.assert_array_equal(whole(tmp_path / "plain.tif"), deep)
    with open_raster(tmp_path / "plain.tif") as raster:
        assert raster.georeference is None
    with pytest.raises(DataError, match=r"deep\.tif: the image cannot be read \(its compression LZW needs `pip inst"):
        whole(tmp_path / "deep.tif")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_tiles_that_a_file_does_not_contain(tmp_path: Path) -> None:
    profile: dict[str, Any] = {"driver": "GTiff", "height": 64, "width": 64, "count": 1, "dtype": "int16"}
    path = tmp_path / "a.tif"
    with rasterio.open(
        path, "w", tiled=True, blockxsize=16, blockysize=16, sparse_ok=True, nodata=-1, **profile
    ) as out:
        out.write(np.full((1, 16, 16), 7, np.int16), window=((16, 32), (32, 48)))
    wanted = np.full((64, 64), np.nan, np.float32)
    wanted[16:32, 32:48] = 7
    np.testing.assert_array_equal(whole(path)[..., 0], wanted)


def test_tiles_are_decoded_once_and_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from d2tune.annotations.io import raster_files

    pixels = numbers(96, 96, 2, dtype=np.int16)
    how: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "contig", "compression": "zlib"}
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(16, 16), **how)
    monkeypatch.setattr(raster_files, "SEGMENT_CACHE_BYTES", 3 * 16 * 16 * 2 * 2)
    with open_raster(tmp_path / "a.tif") as raster:
        np.testing.assert_array_equal(raster.read(), pixels)
        np.testing.assert_array_equal(raster.read(5, 5, 80, 80), pixels[5:85, 5:85])
        segments: Any = raster._members[0].array.pixels
        assert len(segments._cache) == 3 and segments._cached_bytes <= 3 * 16 * 16 * 2 * 2
    assert SEGMENT_CACHE_BYTES == 128 << 20


@pytest.mark.slow
def test_a_raster_larger_than_memory_may_be(tmp_path: Path) -> None:
    """20,000 x 20,000 x 4, tiled, in a process that may not take a third of it."""
    import subprocess

    def tiles() -> Any:
        tile = np.arange(1024 * 1024 * 4, dtype=np.uint32).reshape(1024, 1024, 4).astype(np.uint8)
        for number in range(400):
            yield tile + np.uint8(number % 251)

    path = tmp_path / "large.tif"
    tifffile.imwrite(
        path, tiles(), shape=(20000, 20000, 4), dtype=np.uint8, tile=(1024, 1024), compression="zlib",
        compressionargs={"level": 1}, photometric="minisblack", planarconfig="contig",
    )  # fmt: skip
    program = f"""
import resource
import numpy as np
from d2tune.annotations.io.rasters import open_raster
from pathlib import Path
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open_raster(Path({str(path)!r})) as raster:
    assert (raster.height_px, raster.width_px, raster.channels) == (20000, 20000, 4)
    for top in range(0, 19000, 2500):
        for left in range(0, 19000, 2500):
            window = raster.read(top, left, 512, 512)
            number = (top // 1024) * 20 + left // 1024
            wanted = ((top % 1024) * 1024 + left % 1024) * 4 % 256 + number % 251
            assert window[0, 0, 0] == wanted % 256, (top, left, window[0, 0, 0], wanted)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) >> 10)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 400


def test_photos(tmp_path: Path) -> None:
    color, gray = numbers(20, 30, 3, dtype=np.uint8), numbers(20, 30, dtype=np.uint8)
    alpha = np.dstack([color, np.full((20, 30), 9, np.uint8)])
    deep = RANDOM.integers(0, 65536, (20, 30)).astype(np.uint16)
    palette = PilImage.fromarray(gray % 4).convert("P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 1, 2, 3])
    files: dict[str, tuple[PilImage.Image, Any]] = {
        "color.png": (PilImage.fromarray(color), color),
        "gray.png": (PilImage.fromarray(gray), gray[..., None]),
        "alpha.png": (PilImage.fromarray(alpha), color),
        "gray_alpha.png": (PilImage.fromarray(np.dstack([gray, gray])), gray[..., None]),
        "deep.png": (PilImage.fromarray(deep), deep[..., None].astype(np.float32)),
        "bits.png": (PilImage.fromarray(gray > 99), np.where(gray > 99, 255, 0)[..., None].astype(np.uint8)),
        "palette.png": (palette, np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90], [1, 2, 3]], np.uint8)[gray % 4]),
        "palette.tif": (palette, np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90], [1, 2, 3]], np.uint8)[gray % 4]),
        "color.bmp": (PilImage.fromarray(color), color),
        "color.tif": (PilImage.fromarray(color), color),
    }
    for name, (photo, wanted) in files.items():
        photo.save(tmp_path / name)
        pixels = whole(tmp_path / name)
        np.testing.assert_array_equal(pixels, wanted, err_msg=name)
        assert pixels.dtype == wanted.dtype
    with open_raster(tmp_path / "palette.png", indices=True) as raster:
        np.testing.assert_array_equal(raster.read_stored()[..., 0], gray % 4)
    with open_raster(tmp_path / "palette.tif", indices=True) as raster:
        np.testing.assert_array_equal(raster.read_stored()[..., 0], gray % 4)


def test_16_bit_color_keeps_its_16_bits(tmp_path: Path) -> None:
    import cv2

    rgba = RANDOM.integers(0, 65536, (9, 8, 4)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "rgb.png"), rgba[..., 2::-1])
    cv2.imwrite(str(tmp_path / "rgba.png"), rgba[..., [2, 1, 0, 3]])
    for name in ("rgb.png", "rgba.png"):
        np.testing.assert_array_equal(whole(tmp_path / name), rgba[..., :3].astype(np.float32))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_photos_are_read_as_they_are_shown(tmp_path: Path, orientation: int, suffix: str) -> None:
    from PIL import ImageOps

    stored = np.kron(numbers(3, 4, 3, dtype=np.uint8), np.ones((16, 16, 1), np.uint8))
    exif = PilImage.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{suffix}"
    PilImage.fromarray(stored).save(path, exif=exif)
    with PilImage.open(path) as photo:
        shown = np.asarray(ImageOps.exif_transpose(photo))
    assert shown.shape[:2] == ((48, 64) if orientation < 5 else (64, 48))
    np.testing.assert_array_equal(whole(path), shown)


def test_no_data(tmp_path: Path) -> None:
    values = np.array([[1, np.nan, np.inf, -9999], [3.5, -9999, 4e38, -np.inf]])
    np.save(tmp_path / "a.npy", values)
    nan = np.nan
    np.testing.assert_array_equal(
        whole(tmp_path / "a.npy", nodata=-9999)[..., 0],
        np.array([[1, nan, nan, nan], [3.5, nan, nan, nan]], np.float32),
    )
    np.save(tmp_path / "b.npy", np.array([[0, 7], [255, 3]], np.uint8))
    assert whole(tmp_path / "b.npy", nodata=-9999).dtype == np.uint8
    assert whole(tmp_path / "b.npy", nodata=0.5).dtype == np.uint8
    np.testing.assert_array_equal(whole(tmp_path / "b.npy", nodata=255)[..., 0], np.float32([[0, 7], [nan, 3]]))


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("int16", -32768), ("uint8", 0), ("float32", -3.4028234663852886e38), ("float32", np.nan)]
)
def test_no_data_that_a_tiff_declares(tmp_path: Path, dtype: str, nodata: float) -> None:
    pixels = np.array([[1, 2], [nodata, 4]]).astype(dtype)[..., None]
    path = geotiff(tmp_path / "a.tif", pixels, nodata=nodata)
    np.testing.assert_array_equal(whole(path)[..., 0], np.float32([[1, 2], [np.nan, 4]]))
    with open_raster(path) as raster:
        assert raster.nodata == pytest.approx(nodata, nan_ok=True)
        np.testing.assert_array_equal(raster.read_stored(), pixels)


def test_numbers_beyond_float32_are_rounded(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[16_777_216, 16_777_217]], np.int64))
    assert whole(tmp_path / "a.npy")[0, :, 0].tolist() == [16_777_216, 16_777_216]


def test_folders_are_stacked_in_natural_order(tmp_path: Path) -> None:
    months = {number: numbers(12, 10, 5) for number in range(1, 13)}
    for number, pixels in months.items():
        tifffile.imwrite(tmp_path / f"{number}.tif", pixels, photometric="minisblack", planarconfig="contig")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".hidden.tif").write_text("x")
    year = whole(tmp_path)
    np.testing.assert_array_equal(year, np.concatenate(list(months.values()), axis=2))
    assert year.shape == (12, 10, 60)
    some = whole(tmp_path, stack=("12.*", "2.*"), channels=(0, 5, 1))
    np.testing.assert_array_equal(some, np.stack([months[12][..., 0], months[2][..., 0], months[12][..., 1]], axis=2))
    assert sorted(["10.tif", "2.tif", "1.tif", "b2", "B10"], key=natural_order) == [
        *("1.tif", "2.tif", "10.tif", "b2", "B10")
    ]


def test_a_folder_of_different_kinds(tmp_path: Path) -> None:
    first, second = numbers(8, 9, dtype=np.uint8), numbers(8, 9, 2)
    PilImage.fromarray(first).save(tmp_path / "1.png")
    np.save(tmp_path / "2.npy", second)
    pixels = whole(tmp_path)
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels, np.dstack([first, second]))


def test_windows_beyond_the_image(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", numbers(8, 9))
    with open_raster(tmp_path / "a.npy") as raster:
        for window in ((-1, 0, 2, 2), (0, 0, 9, 2), (0, 8, 2, 2), (0, 0, 0, 2), (8, 0)):
            with pytest.raises(ValueError, match="not a window"):
                raster.read(*window)


def test_names() -> None:
    names = ["a.NPY", "b.npz", "c.tif", "d.tiff", "e.png", "f.JPG", "g.xml", "h.tif.aux.xml", "i", "j.hdr"]
    assert [name for name in names if is_raster_name(name)] == names[:6]


def saved(save: Callable[..., Any], *arrays: Any, **named: Any) -> bytes:
    stream = io.BytesIO()
    save(stream, *arrays, **named)
    return stream.getvalue()


def tiff_bytes(pixels: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, **options)
    return stream.getvalue()


def png_bytes() -> bytes:
    stream = io.BytesIO()
    PilImage.fromarray(numbers(60, 60, 3, dtype=np.uint8)).save(stream, format="PNG")
    return stream.getvalue()


def zip_bytes(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("arr_0.npy", content)
    return stream.getvalue()


NOISE = numbers(60, 50, 2, dtype=np.int16)
BROKEN: dict[str, tuple[str, bytes]] = {
    "npy empty": ("a.npy", b""),
    "npy text": ("a.npy", b"hello, this is no array"),
    "npy cut off": ("a.npy", saved(np.save, NOISE)[:-10]),
    "npy cut off in its header": ("a.npy", saved(np.save, NOISE)[:30]),
    "npy of objects": ("a.npy", saved(np.save, np.array([[None, {}]], dtype=object))),
    "npy of complex numbers": ("a.npy", saved(np.save, np.zeros((4, 4), complex))),
    "npy of text": ("a.npy", saved(np.save, np.array([["a", "b"]]))),
    "npy of dates": ("a.npy", saved(np.save, np.zeros((4, 4), "M8[s]"))),
    "npy of records": ("a.npy", saved(np.save, np.zeros((4, 4), [("a", "f4")]))),
    "npy without values": ("a.npy", saved(np.save, np.zeros((0, 4)))),
    "npy of 5 axes": ("a.npy", saved(np.save, np.zeros((2, 2, 2, 2, 2)))),
    "npy of 1 axis": ("a.npy", saved(np.save, np.zeros(5))),
    "npy of a number": ("a.npy", saved(np.save, np.float32(5))),
    "npy that claims too much": ("a.npy", saved(np.save, NOISE).replace(b"(60, 50, 2), ", b"(10**9, 9, 2)")),
    "npz empty": ("a.npz", b""),
    "npz cut off": ("a.npz", saved(np.savez, NOISE)[:-40]),
    "npz damaged": ("a.npz", zip_bytes(b"\x93NUMPY nothing")),
    "npz of nothing": ("a.npz", saved(np.savez)),
    "npz of objects": ("a.npz", saved(np.savez, np.array([[None]], dtype=object))),
    "npz of several": ("a.npz", saved(np.savez, red=NOISE, blue=NOISE)),
    "tif empty": ("a.tif", b""),
    "tif text": ("a.tif", b"hello, this is no image"),
    "tif cut off": ("a.tif", tiff_bytes(NOISE[..., 0], photometric="minisblack")[:-1000]),
    "tif without its last pages": ("a.tif", tiff_bytes(NOISE, photometric="minisblack", metadata=None)[:-1000]),
    "tif tiles cut off": ("a.tif", tiff_bytes(numbers(64, 64), tile=(16, 16), compression="zlib")[:-2000]),
    "tif of complex numbers": ("a.tif", tiff_bytes(np.zeros((4, 4), np.complex64))),
    "tif header alone": ("a.tif", b"II*\0\x08\0\0\0"),
    "png cut off": ("a.png", png_bytes()[:-500]),
    "png text": ("a.png", b"hello"),
    "jpg empty": ("a.jpg", b""),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_reported_in_one_line(tmp_path: Path, case: str) -> None:
    name, content = BROKEN[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        whole(tmp_path / name)
    line = caught.value.one_line()
    assert line.startswith(str(tmp_path / name)) and "\n" not in line
    assert "; expected " in line and caught.value.hint
    if case == "npz of several":
        assert "found red, blue" in line


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_files_are_read_or_reported(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    whole_files = {
        ".npy": saved(np.save, NOISE),
        ".npz": saved(np.savez_compressed, NOISE),
        ".tif": tiff_bytes(NOISE, photometric="minisblack", tile=(16, 16), compression="zlib"),
        ".tiff": tiff_bytes(NOISE, photometric="minisblack"),
        ".png": png_bytes(),
    }
    suffix = data.draw(st.sampled_from(sorted(whole_files)))
    content = bytearray(whole_files[suffix])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, min(len(content), 600) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / f"a{suffix}"
    path.write_bytes(content)
    try:
        with open_raster(path) as raster:
            raster.read(0, 0, min(8, raster.height_px), min(8, raster.width_px))
    except DataError as error:
        assert str(path) in error.one_line()


def test_options_that_do_not_fit_the_image_are_refused(tmp_path: Path) -> None:
    for name, shape in (("1.npy", (8, 9)), ("2.npy", (8, 9)), ("3.npy", (8, 10))):
        np.save(tmp_path / name, numbers(*shape))
    (tmp_path / "empty").mkdir()
    cases: list[tuple[Path, dict[str, Any], str]] = [
        (tmp_path / "gone.npy", {}, "the image does not exist"),
        (tmp_path, {}, r"differ in size: 1\.npy and 3\.npy; found 9 x 8 and 10 x 8 px"),
        (tmp_path, {"stack": ("1.*", "B*.npy")}, r"'B\*\.npy' matches no file; found 1\.npy, 2\.npy, 3\.npy"),
        (tmp_path, {"stack": ("*.npy",)}, r"matches several files; found 1\.npy, 2\.npy, 3\.npy"),
        (tmp_path, {"stack": ("1.*", "2.*"), "channels": (0, 2)}, "found 2; expected 0 to 1"),
        (tmp_path, {"stack": ("1.*",), "channels": (-1,)}, "found -1; expected 0 to 0"),
        (tmp_path / "1.npy", {"stack": ("1.*",)}, "the image is one file"),
        (tmp_path / "empty", {}, "contains no image file"),
    ]
    for path, options, message in cases:
        with pytest.raises(DataError, match=message) as caught:
            open_raster(path, RasterOptions(**options))
        assert str(path) in str(caught.value)


def test_pages_of_different_sizes(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(numbers(8, 9))
        writer.write(numbers(9, 9))
    with pytest.raises(DataError, match=r"differ in size"):
        open_raster(tmp_path / "a.tif")


def test_a_rotated_tiff_that_is_not_a_photo_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", numbers(8, 9), extratags=[(274, "H", 1, 6, True)], metadata=None)
    with pytest.raises(DataError, match="its orientation is 6, expected 1"):
        open_raster(tmp_path / "a.tif")

"""Reading a project's images, photos and rasters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image as PilImage

from d2tune.annotations.model.options import RasterOptions
from d2tune.data.image_reader import ImageReader
from d2tune.data.sources import raster_options
from d2tune.errors import DataError
from d2tune.project import load_project

COLORED = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
RASTERS = RasterOptions()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    PilImage.fromarray(COLORED).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.mark.parametrize("raster", [None, RASTERS])
def test_photos_have_the_wanted_channel_order_whole_and_by_windows(photo: Path, raster: RasterOptions | None) -> None:
    for order, expected in (("RGB", COLORED), ("BGR", COLORED[:, :, ::-1])):
        reader = ImageReader(3, order, raster)
        pixels = reader.read(photo)
        assert pixels.dtype == np.uint8 and np.array_equal(pixels, expected)
        assert np.array_equal(reader.shown(pixels), COLORED)
        with reader.open(photo) as image:
            assert (image.height_px, image.width_px, image.channels, image.is_photo) == (5, 7, 3, True)
            assert np.array_equal(image.read(1, 2, 3, 4), expected[1:4, 2:6])


def test_channels_of_rasters_keep_their_order(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).normal(size=(4, 6, 3)).astype(np.float32)
    np.save(tmp_path / "a.npy", stored)
    reader = ImageReader(3, "BGR", RASTERS)
    pixels = reader.read(tmp_path / "a.npy")
    assert np.array_equal(pixels, stored) and np.array_equal(reader.shown(pixels), stored)


@pytest.mark.parametrize("raster", [None, RASTERS])
@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_gray_photos_beside_colored_ones_get_three_channels(
    tmp_path: Path, raster: RasterOptions | None, order: str
) -> None:
    PilImage.fromarray(COLORED[:, :, 0]).save(tmp_path / "gray.png")
    reader = ImageReader(3, order, raster)
    expected = np.repeat(COLORED[:, :, :1], 3, axis=2)
    assert np.array_equal(reader.read(tmp_path / "gray.png"), expected)
    with reader.open(tmp_path / "gray.png") as image:
        assert np.array_equal(image.read(2, 3, 2, 2), expected[2:4, 3:5])


def test_gray_photos_alone_have_one_channel(tmp_path: Path) -> None:
    PilImage.fromarray(COLORED[:, :, 0]).save(tmp_path / "gray.png")
    for channels in (1, None):
        assert np.array_equal(ImageReader(channels, "RGB", RASTERS).read(tmp_path / "gray.png"), COLORED[:, :, :1])


@pytest.mark.parametrize(
    ("dtype", "shape", "expected"),
    [(np.uint16, (4, 5), np.float32), (np.uint16, (60, 64, 70), np.float32), (np.uint8, (4, 4, 5), np.uint8)],
)
def test_tiffs_of_any_depth(tmp_path: Path, dtype: type, shape: tuple[int, ...], expected: type) -> None:
    stored = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack")
    planes = stored if stored.ndim == 3 else stored[None]
    pixels = ImageReader(len(planes), "BGR", RASTERS).read(tmp_path / "a.tif")
    assert pixels.dtype == expected and np.array_equal(pixels, planes.transpose(1, 2, 0))


@pytest.mark.parametrize(
    ("channels", "stored", "counts"),
    [(5, 4, "4 channels; expected 5"), (3, 1, "1 channel; expected 3"), (1, 3, "3 channels; expected 1")],
)
def test_another_number_of_channels_is_an_error_with_the_file_and_both_counts(
    tmp_path: Path, channels: int, stored: int, counts: str
) -> None:
    np.save(tmp_path / "scene.npy", np.zeros((4, 5, stored), np.float32))
    with pytest.raises(DataError, match=rf"scene\.npy.*found {counts}") as caught:
        ImageReader(channels, "RGB", RASTERS).read(tmp_path / "scene.npy")
    assert "\n" not in caught.value.one_line()


@pytest.mark.parametrize("name", ["gone.png", "text.png", "gone.npy", "text.npy", "text.tif"])
@pytest.mark.parametrize("raster", [None, RASTERS])
def test_the_error_of_an_unreadable_image_has_its_name(tmp_path: Path, name: str, raster: RasterOptions | None) -> None:
    if name.startswith("text"):
        (tmp_path / name).write_text("no image")
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        ImageReader(3, "RGB", raster).read(tmp_path / name)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_read_in_their_exif_orientation(tmp_path: Path, orientation: int) -> None:
    """Both ways of reading agree with the definition of rows and columns in Exif 2.3."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:16, :24] = 255
    exif = PilImage.Exif()
    exif[0x0112] = orientation
    PilImage.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=100)
    upright = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: pixels.transpose(1, 0, 2)[:, ::-1],
        7: pixels.transpose(1, 0, 2)[::-1, ::-1],
        8: pixels.transpose(1, 0, 2)[::-1],
    }[orientation]
    for raster in (None, RASTERS):
        read = ImageReader(3, "RGB", raster).read(tmp_path / "a.jpg")
        assert read.shape == upright.shape and np.abs(read.astype(int) - upright).max() < 4
    with ImageReader(3).open(tmp_path / "a.jpg") as image:
        assert (image.height_px, image.width_px) == upright.shape[:2]


def test_raster_options_of_a_project(tmp_path: Path) -> None:
    for number, text in enumerate(
        ("{root: d}", "{root: d, format: label_images, label_images: {stack: ['b*'], channels: [2, 0], nodata: -1}}")
    ):
        path = tmp_path / f"{number}.yaml"
        path.write_text(f"task: semantic\nclasses: [a, b]\ndata: {text}\n")
    read = [raster_options(load_project(tmp_path / f"{number}.yaml").project) for number in (0, 1)]
    assert read == [None, RasterOptions(stack=("b*",), channels=(2, 0), nodata=-1.0)]

"""Label maps written row by row, read back with tifffile, rasterio, NumPy and Pillow."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image

from d2tune.annotations.io.rasters import Georeference, open_raster
from d2tune.inference.sliding_window import predict_rows
from d2tune.inference.writers import raster_files
from d2tune.inference.writers.raster_files import LabelTiff, NpyRows, Preview
from d2tune.report.sheets.drawing import instance_colors

# label maps without a georeference are intended, and rasterio warns of them
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

COLORS = np.array([[200, 10, 0], [0, 255, 7], [1, 2, 3]], np.uint8)
UTM = rasterio.crs.CRS.from_epsg(32633).to_wkt()
PLACE = Georeference(UTM, (10.0, 0.0, 399960.0, 0.0, -10.0, 5200020.0))
TURNED = Georeference(UTM, (8.0, 6.0, 399960.0, 6.0, -8.0, 5200020.0))


def labels(height_px: int, width_px: int) -> NDArray[np.uint8]:
    values = np.random.default_rng(3).integers(0, 4, (height_px, width_px), dtype=np.uint8)
    return np.where(values == 3, 255, values).astype(np.uint8)


def blocks(values: NDArray[Any], step_px: int) -> Iterator[NDArray[Any]]:
    for top in range(0, len(values), step_px):
        yield values[top : top + step_px]


def write(writer: Any, values: NDArray[Any], step_px: int = 100) -> None:
    with writer as file:
        for rows in blocks(values, step_px):
            file.write(rows)


@pytest.mark.parametrize("size", [(1, 1), (512, 512), (513, 511), (1030, 700), (40, 1600)])
@pytest.mark.parametrize("step_px", [1, 100, 384, 512, 2000])
def test_a_label_tiff_reads_back(tmp_path: Path, size: tuple[int, int], step_px: int) -> None:
    values = labels(*size)
    path = tmp_path / "new" / "map.tif"
    write(LabelTiff(path, height_px=size[0], width_px=size[1], colors=COLORS), values, step_px)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        np.testing.assert_array_equal(page.asarray(), values)
        assert (page.is_tiled, page.tile, page.compression.name, page.photometric.name) == (
            True,
            (512, 512),
            "ADOBE_DEFLATE",
            "PALETTE",
        )
        assert not tiff.is_bigtiff
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.read(1), values)
        assert dataset.nodata == 255
        assert [dataset.colormap(1)[value][:3] for value in (0, 1, 2, 3)] == [*map(tuple, COLORS.tolist()), (0, 0, 0)]
        assert dataset.crs is None
    assert [file.name for file in path.parent.iterdir()] == ["map.tif"]


def test_classes_without_colors_get_those_of_the_contact_sheets(tmp_path: Path) -> None:
    write(LabelTiff(tmp_path / "map.tif", height_px=4, width_px=4), labels(4, 4))
    with rasterio.open(tmp_path / "map.tif") as dataset:
        shown = [dataset.colormap(1)[value][:3] for value in range(30)]
    assert shown == [tuple(color) for color in instance_colors(30).tolist()]


@pytest.mark.parametrize("place", [PLACE, TURNED, Georeference(None, PLACE.transform)])
def test_a_georeference_is_kept(tmp_path: Path, place: Georeference) -> None:
    values = labels(600, 520)
    path = tmp_path / "map.tif"
    write(LabelTiff(path, height_px=600, width_px=520, georeference=place), values)
    with rasterio.open(path) as dataset:
        assert tuple(dataset.transform)[:6] == pytest.approx(place.transform, abs=1e-9)
        assert dataset.crs == (None if place.crs is None else rasterio.crs.CRS.from_epsg(32633))
        np.testing.assert_array_equal(dataset.read(1), values)
    with open_raster(path) as raster:
        assert raster.georeference is not None
        assert raster.georeference.transform == pytest.approx(place.transform, abs=1e-9)


def test_a_file_beyond_four_gigabytes_becomes_a_big_tiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raster_files, "_CLASSIC_TIFF_BYTES", 10_000)
    values = labels(700, 700)
    write(LabelTiff(tmp_path / "map.tif", height_px=700, width_px=700, georeference=PLACE), values)
    with tifffile.TiffFile(tmp_path / "map.tif") as tiff:
        assert tiff.is_bigtiff
        np.testing.assert_array_equal(tiff.asarray(), values)
    with rasterio.open(tmp_path / "map.tif") as dataset:
        assert dataset.crs == rasterio.crs.CRS.from_epsg(32633)


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    values = labels(530, 530)
    for name, step_px in (("one.tif", 7), ("two.tif", 530)):
        write(LabelTiff(tmp_path / name, height_px=530, width_px=530, georeference=PLACE), values, step_px)
    assert (tmp_path / "one.tif").read_bytes() == (tmp_path / "two.tif").read_bytes()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_npy_rows_are_the_bytes_that_numpy_saves(tmp_path: Path, dtype: Any) -> None:
    values = (labels(70, 31) / 3).astype(dtype)
    write(NpyRows(tmp_path / "map.npy", height_px=70, width_px=31, dtype=dtype), values, 13)
    np.save(tmp_path / "reference.npy", values)
    assert (tmp_path / "map.npy").read_bytes() == (tmp_path / "reference.npy").read_bytes()


def test_a_small_preview_shows_every_pixel(tmp_path: Path) -> None:
    values = labels(50, 80)
    write(Preview(tmp_path / "map.png", height_px=50, width_px=80, colors=COLORS), values, 9)
    with Image.open(tmp_path / "map.png") as image:
        shown = np.asarray(image.convert("RGBA"))
    has_class = values != 255
    np.testing.assert_array_equal(shown[has_class][:, :3], COLORS[values[has_class]])
    np.testing.assert_array_equal(shown[..., 3] == 255, has_class)


def test_a_large_preview_is_reduced(tmp_path: Path) -> None:
    values = np.repeat(np.repeat(labels(90, 30), 5, axis=0), 5, axis=1)
    for step_px in (1, 64, 450):
        write(Preview(tmp_path / "map.png", height_px=450, width_px=150, max_side_px=90), values, step_px)
        with Image.open(tmp_path / "map.png") as image:
            np.testing.assert_array_equal(np.asarray(image), values[2::5, 2::5])
    write(Preview(tmp_path / "thin.png", height_px=1, width_px=5000), labels(1, 5000))
    with Image.open(tmp_path / "thin.png") as image:
        assert image.size == (2000, 1)


FILES = [
    lambda path: LabelTiff(path, height_px=600, width_px=20),
    lambda path: NpyRows(path, height_px=600, width_px=20, dtype=np.uint8),
    lambda path: Preview(path, height_px=600, width_px=20),
]


@pytest.mark.parametrize("make", FILES)
@pytest.mark.parametrize("there_before", [False, True])
def test_an_interrupt_leaves_an_existing_file_unchanged(tmp_path: Path, make: Any, there_before: bool) -> None:
    """A real SIGINT, while the model runs on the fourth window."""
    # a shell that starts the tests in the background has them ignore it
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    path = tmp_path / "map"
    if there_before:
        path.write_text("earlier")
    seen = []

    def model(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        seen.append(len(samples))
        if len(seen) == 4:
            signal.raise_signal(signal.SIGINT)
        return [{"sem_seg": torch.zeros(2, sample["height"], sample["width"])} for sample in samples]

    class Blank:
        height_px, width_px = 600, 20

        def read(self, top_px: int, left_px: int, height_px: int, width_px: int) -> NDArray[np.uint8]:
            return np.zeros((height_px, width_px, 1), np.uint8)

    try:
        with pytest.raises(KeyboardInterrupt), make(path) as file:
            for rows in predict_rows(model, Blank(), classes=2, window_px=64):
                file.write(rows.class_ids)
    finally:
        signal.signal(signal.SIGINT, earlier)
    assert len(seen) == 4
    assert [file.name for file in tmp_path.iterdir()] == (["map"] if there_before else [])
    assert not there_before or path.read_text() == "earlier"


@pytest.mark.parametrize("make", FILES)
def test_rows_that_do_not_fit_are_refused_and_leave_nothing(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "map"
    for rows in (labels(601, 20), labels(10, 21), labels(10, 20).astype(np.int64)):
        with pytest.raises(ValueError, match=r"for an image \(600, 20\) of uint8"):
            write(make(path), rows, 10_000)
    with pytest.raises(ValueError, match="10 of 600 rows were written"):
        write(make(path), labels(10, 20))
    assert list(tmp_path.iterdir()) == []

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2tune.annotations.io.rasters import open_raster
from d2tune.annotations.model.options import RasterOptions
from d2tune.data.statistics import channel_statistics, class_pixels
from tests.shared_files import SHARED


def rasters(folder: Path, arrays: list[Any], **options: Any) -> Any:
    for number, pixels in enumerate(arrays):
        np.save(folder / f"{number}.npy", pixels)
        yield open_raster(folder / f"{number}.npy", RasterOptions(**options))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_same_as_numpy_for_any_block_size(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    draw = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    offset, scale = data.draw(st.sampled_from([(0, 1), (1e4, 1), (-5, 1e-3), (250, 60)]))
    arrays = [
        (offset + scale * draw.normal(size=(draw.integers(5, 40), draw.integers(5, 40), 3))).astype(np.float32)
        for _ in range(data.draw(st.integers(1, 4)))
    ]
    for pixels in arrays:
        pixels[draw.random(pixels.shape) < 0.2] = np.nan
    folder = tmp_path_factory.mktemp("rasters")
    measured = channel_statistics(rasters(folder, arrays), block_values=data.draw(st.integers(1, 4000)))
    values = np.concatenate([pixels.reshape(-1, 3) for pixels in arrays]).astype(np.float64)
    np.testing.assert_allclose(measured.mean, np.nanmean(values, axis=0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(measured.std, np.nanstd(values, axis=0), rtol=1e-9)
    whole = channel_statistics(rasters(folder, arrays))
    np.testing.assert_allclose(measured.std, whole.std, rtol=1e-9)
    np.testing.assert_allclose(measured.mean, whole.mean, rtol=1e-9, atol=1e-12)
    assert measured.pixels == len(values)


def test_channels_that_cannot_be_scaled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pixels = np.stack([np.full((5, 9), 0.1), np.full((5, 9), np.nan), np.arange(45.0).reshape(5, 9)], axis=2)
    with caplog.at_level(logging.WARNING):
        measured = channel_statistics(rasters(tmp_path, [pixels, pixels]), block_values=10)
    assert measured.mean == pytest.approx((np.float32(0.1), 0, 22)) and measured.std[:2] == (1, 1)
    assert measured.std[2] == pytest.approx(np.sqrt((45**2 - 1) / 12), rel=1e-12)
    assert [record.getMessage() for record in caplog.records] == [
        "channels without data in the training split: 1",
        "channels with the same value everywhere in the training split: 0",
    ]


def test_images_without_any_data_are_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    full, empty = np.arange(40.0).reshape(5, 4, 2), np.full((5, 4, 2), np.nan)
    measured = channel_statistics(rasters(tmp_path, [empty, full, empty]), block_values=6)
    assert measured.empty == (0, 2) and measured.mean == pytest.approx((19, 20)) and not caplog.records
    assert channel_statistics(rasters(tmp_path, [empty])).empty == (0,) and not caplog.records


def test_8_bit_images_and_no_data(tmp_path: Path) -> None:
    pixels = np.array([[0, 10], [20, 255]], np.uint8)
    assert channel_statistics(rasters(tmp_path, [pixels])).mean == (71.25,)
    measured = channel_statistics(rasters(tmp_path, [pixels], nodata=255))
    assert (measured.mean, measured.pixels) == ((10.0,), 4) and measured.std == pytest.approx((np.sqrt(200 / 3),))


def test_the_land_cover_series() -> None:
    path = SHARED / "data" / "landcover_timeseries" / "data" / "NDVI.npy"
    measured = channel_statistics([open_raster(path)], block_values=5000)
    stored = np.load(path)[..., 0].astype(np.float64)
    np.testing.assert_allclose(measured.mean, np.nanmean(stored, axis=(1, 2)), rtol=1e-9)
    np.testing.assert_allclose(measured.std, np.nanstd(stored, axis=(1, 2)), rtol=1e-9)
    assert len(measured.mean) == 68


def test_images_with_different_channels_or_no_images(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 channels, the images before it have 3"):
        channel_statistics(rasters(tmp_path, [np.zeros((9, 9, 3)), np.zeros((9, 9, 2))]))
    with pytest.raises(ValueError, match="no images"):
        channel_statistics([])


def test_pixels_of_classes() -> None:
    maps = [np.array([[0, 1, 255], [2, 2, 2]], np.uint8), np.array([[1, 1]], np.uint8)]
    assert class_pixels(maps, classes=4) == (1, 3, 3, 0)
    assert class_pixels([], classes=2) == (0, 0)
    with pytest.raises(ValueError, match=r"\[2\]"):
        class_pixels(maps, classes=2)

"""The predictor of label maps on rasters: windows, sizes of annotated images, and files that are closed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile
import torch
from numpy.typing import NDArray

from d2tune.annotations.model.dataset import Image
from d2tune.annotations.model.options import RasterOptions
from d2tune.data.image_reader import ImageReader
from d2tune.errors import DataError
from d2tune.inference.predictors.semantic import SemanticPredictor
from d2tune.modeling.config import default_config

HEIGHT_PX, WIDTH_PX = 70, 90


def brightest(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Probabilities that are the channels themselves."""
    return [{"sem_seg": sample["image"].float()} for sample in samples]


def failing(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    raise RuntimeError("the network failed")


def predictor(model: Any = brightest, *, window_px: int) -> SemanticPredictor:
    cfg = default_config()
    cfg.INPUT.MIN_SIZE_TEST = cfg.INPUT.MAX_SIZE_TEST = 0
    cfg.TEST.WINDOW_PX = window_px
    return SemanticPredictor(model, cfg, class_names=["a", "b"], reader=ImageReader(2, "RGB", RasterOptions()))


@pytest.fixture
def raster(tmp_path: Path) -> tuple[Path, NDArray[np.uint8]]:
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT_PX, WIDTH_PX, 2), dtype=np.uint8)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, photometric="minisblack", planarconfig="contig", compression="zlib")
    return path, pixels


def is_open(path: Path) -> bool:
    return str(path) in [file.path for file in psutil.Process().open_files()]


@pytest.mark.parametrize("window_px", [0, 32])
def test_files_and_read_only_arrays_give_the_same_map(raster: tuple[Path, NDArray[np.uint8]], window_px: int) -> None:
    path, pixels = raster
    pixels.flags.writeable = False
    from_file, from_array = predictor(window_px=window_px).batch([path, pixels])
    assert np.array_equal(from_file.class_ids, pixels.argmax(axis=2))
    assert np.array_equal(from_array.class_ids, from_file.class_ids)


@pytest.mark.parametrize("window_px", [0, 32])
def test_a_changed_image_size_is_an_error(raster: tuple[Path, NDArray[np.uint8]], window_px: int) -> None:
    path, _ = raster
    annotated = [Image(1, "a.tif", WIDTH_PX, HEIGHT_PX, path), Image(2, "a.tif", WIDTH_PX, HEIGHT_PX + 1, path)]
    fitting, changed = predictor(window_px=window_px).stream(annotated, show_progress=False)
    assert fitting.class_ids.shape == (HEIGHT_PX, WIDTH_PX)
    assert isinstance(changed, DataError) and "the size of the image has changed" in changed.message
    assert (changed.found, changed.expected) == ("90 x 70 px", "90 x 71 px") and not is_open(path)


@pytest.mark.parametrize("window_px", [0, 32])
def test_a_failed_prediction_closes_the_raster(raster: tuple[Path, NDArray[np.uint8]], window_px: int) -> None:
    path, _ = raster
    failed = predictor(failing, window_px=window_px)
    with pytest.raises(RuntimeError, match="the network failed"), failed.open_rows(path) as label_map:
        label_map.whole()
    assert not is_open(path)
    with predictor(window_px=16).open_rows(path) as label_map:
        next(label_map.rows)
        assert is_open(path), "the rest of the rows is not read"
    assert not is_open(path)


def test_rows_are_those_of_the_whole_map(raster: tuple[Path, NDArray[np.uint8]]) -> None:
    path, pixels = raster
    with predictor(window_px=32).open_rows(path) as label_map:
        assert (label_map.height_px, label_map.width_px, label_map.georeference) == (HEIGHT_PX, WIDTH_PX, None)
        blocks = list(label_map.rows)
    assert len(blocks) > 1 and np.array_equal(np.concatenate(blocks), pixels.argmax(axis=2))
    assert torch.is_grad_enabled()


def test_windows_of_a_model_that_resizes_are_resized_by_the_same_factor() -> None:
    """Windows of 32 px become 64 px, and the map is that of the blocks of 4 px of the image itself."""
    pixels = np.random.default_rng(1).integers(0, 2, (18, 23), dtype=np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    image = np.stack([255 * (1 - pixels), 255 * pixels], axis=2)
    sizes: list[tuple[int, ...]] = []

    def network(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        sizes.extend(tuple(sample["image"].shape[1:]) for sample in samples)
        resized = [
            torch.nn.functional.interpolate(sample["image"][None].float(), (sample["height"], sample["width"]))[0]
            for sample in samples
        ]
        return [{"sem_seg": planes / 255} for planes in resized]

    cfg = default_config()
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 64, 107
    cfg.TEST.WINDOW_PX, cfg.TEST.WINDOW_OVERLAP_PX = 32, 12
    reader = ImageReader(2, "RGB", RasterOptions())
    label_map = SemanticPredictor(network, cfg, class_names=["a", "b"], reader=reader)(image)
    assert set(sizes) == {(64, 64)}
    assert np.array_equal(label_map.class_ids, pixels)

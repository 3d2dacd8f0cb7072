"""A predictor in memory: files and arrays, single, in batches and as a stream."""

from __future__ import annotations

import gc
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image as PilImage

import d2tune
from d2tune.errors import DataError, RunError
from d2tune.inference.predictors.base import Predictor
from d2tune.inference.results import Detections, LabelMap
from tests.runs.test_old_runs import old_run
from tests.shared_files import SHARED

pytestmark = pytest.mark.slow


def quick_run(folder: Path) -> Path:
    """The old instance run with few detections on an image, whose masks take most of the time."""
    run = old_run("instance", folder)
    config = run / "detectron2.yaml"
    text = config.read_text(encoding="utf-8")
    assert "DETECTIONS_PER_IMAGE: 100" in text
    config.write_text(text.replace("DETECTIONS_PER_IMAGE: 100", "DETECTIONS_PER_IMAGE: 8"), encoding="utf-8")
    return run


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Predictor[Any, Any]:
    return d2tune.load_predictor(quick_run(tmp_path_factory.mktemp("runs")), min_score=0)


@pytest.fixture(scope="module")
def semantic(tmp_path_factory: pytest.TempPathFactory) -> Predictor[Any, Any]:
    return d2tune.load_predictor(old_run("semantic", tmp_path_factory.mktemp("runs")))


def photos(count: int) -> list[Path]:
    return sorted((SHARED / "data" / "balloon" / "val").glob("*.jpg"))[:count]


def test_files_and_arrays_give_the_same_detections(instance: Predictor[Any, Detections]) -> None:
    paths = photos(3)
    from_files = instance.batch(paths)
    for path, expected in zip(paths, from_files, strict=True):
        with PilImage.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        single = instance(pixels)
        assert (single.height_px, single.width_px) == pixels.shape[:2] and single.class_names == ("balloon",)
        assert len(single) == len(expected) > 3
        # one image alone and four in a batch differ by the rounding of floats
        assert single.scores == pytest.approx(expected.scores, abs=1e-4)
        assert single.boxes_xyxy == pytest.approx(expected.boxes_xyxy, abs=0.5)
        assert single.masks.shape == (len(single), *pixels.shape[:2])
    assert instance(str(paths[0])).scores == pytest.approx(from_files[0].scores, abs=1e-4)


def test_a_gray_array_is_a_photo(instance: Predictor[Any, Detections]) -> None:
    gray = np.full((64, 80), 90, np.uint8)
    assert instance(gray).width_px == 80
    assert instance(np.repeat(gray[:, :, None], 3, axis=2)).scores == pytest.approx(instance(gray).scores)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros(5, np.uint8),
    ],
)
def test_arrays_that_are_not_images_are_refused(instance: Predictor[Any, Detections], array: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"the array is not a valid input of the model.*\(H, W, 3\) uint8"):
        instance(array)


def test_label_maps_of_files_and_arrays(semantic: Predictor[Any, LabelMap]) -> None:
    path = sorted((SHARED / "data" / "membrane" / "train" / "image").glob("*.png"))[0]
    expected = semantic(path)
    with PilImage.open(path) as image:
        pixels = np.asarray(image)
    assert pixels.ndim == 2 and np.array_equal(semantic(pixels).class_ids, expected.class_ids)
    assert expected.class_names == ("membrane", "cell") and set(np.unique(expected.class_ids)) <= {0, 1}


def test_an_unreadable_image_gives_an_error_in_its_place(instance: Predictor[Any, Detections], tmp_path: Path) -> None:
    torn = tmp_path / "torn.jpg"
    torn.write_bytes(photos(1)[0].read_bytes()[:2000])
    results = list(instance.stream([torn, *photos(2), tmp_path / "gone.jpg"], show_progress=False))
    assert [type(result) for result in results] == [DataError, Detections, Detections, DataError]
    with pytest.raises(DataError, match=r"torn\.jpg"):
        instance.batch([torn])


@pytest.mark.extended
def test_memory_does_not_grow_with_the_number_of_images(instance: Predictor[Any, Detections], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    path = tmp_path / "a.jpg"
    PilImage.fromarray(pixels).save(path)

    def resident_bytes_after(images: int) -> int:
        for _ in instance.stream([path] * images, convert=lambda *_: None, show_progress=False):
            pass
        gc.collect()
        return int(psutil.Process(os.getpid()).memory_info().rss)

    before = resident_bytes_after(80)
    # 160 images of 0.9 MB each would be 150 MB
    assert resident_bytes_after(160) - before < 30e6


def test_predicting_a_folder_writes_the_detections_of_the_predictor(
    instance: Predictor[Any, Detections], tmp_path: Path
) -> None:
    run = quick_run(tmp_path)
    folder = tmp_path / "in"
    folder.mkdir()
    for path in photos(5):
        (folder / path.name).symlink_to(path)
    result = d2tune.predict(run, folder, out=tmp_path / "out", min_score=0.1)
    written = json.loads((tmp_path / "out" / "predictions.json").read_text(encoding="utf-8"))
    assert [image["id"] for image in written["images"]] == [1, 2, 3, 4, 5] and result.images == 5
    expected = [
        row
        for number, detections in enumerate(instance.batch(photos(5)), start=1)
        for row in detections.at_least(0.1).to_coco(number)
    ]
    assert result.instances == len(written["annotations"]) == len(expected) > 5
    for number, (row, expected_row) in enumerate(zip(written["annotations"], expected, strict=True), start=1):
        assert row["id"] == number and row["iscrowd"] == 0
        assert {key: row[key] for key in expected_row} == expected_row
    assert list(written) == ["images", "categories", "annotations"]


def test_missing_runs_and_weights(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="record"):
        d2tune.load_predictor(tmp_path)
    run = old_run("instance", tmp_path)
    with pytest.raises(RunError, match="the weights do not exist"):
        d2tune.load_predictor(run, weights="final")

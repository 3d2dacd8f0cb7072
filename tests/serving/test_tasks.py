"""Models of every task, served: the answers are what their predictors give for the same file."""

from __future__ import annotations

import io
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_utils

from d2tune.runs.load import load_predictor
from d2tune.runs.windows import WindowChoice
from d2tune.serving.models import served_models
from d2tune.serving.service import Service
from d2tune.serving.settings import ServingSettings
from tests.cases import on_demand
from tests.runs.random_runs import random_run
from tests.serving.conftest import served_by


def photo_of(folder: Path) -> Path:
    pixels = np.random.default_rng(5).integers(0, 256, (96, 130, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((260, 192)).save(folder / "photo.png")
    return folder / "photo.png"


def answered(url: str, photo: Path, format_name: str) -> httpx.Response:
    answer = httpx.post(
        f"{url}/v1/predict",
        params={"format": format_name, "tolerance_px": 0},
        content=photo.read_bytes(),
        headers={"Content-Type": "image/png"},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    return answer


@pytest.mark.slow
@pytest.mark.parametrize("window_px", on_demand([None, 128], 128))
def test_instances(tmp_path: Path, window_px: int | None) -> None:
    run, photo = random_run(tmp_path / "run", "instance"), photo_of(tmp_path)
    expected = load_predictor(run, min_score=0, window_px=window_px)(photo)
    models = served_models([run], min_score=0, windows=WindowChoice(window_px=window_px))
    with served_by(Service(models, ServingSettings())) as url:
        rows = answered(url, photo, "rle").json()["objects"]
        polygons = answered(url, photo, "polygons").json()["objects"]
    given = {(round(float(score), 6), rle.counts) for score, rle in zip(expected.scores, expected.rles, strict=True)}
    assert rows and {(row["score"], row["segmentation"]["counts"]) for row in rows} <= given
    assert [row["area_px2"] for row in polygons] == [row["area_px2"] for row in rows]
    for row, outlined in zip(rows, polygons, strict=True):
        rle = {"size": row["segmentation"]["size"], "counts": row["segmentation"]["counts"].encode()}
        assert int(mask_utils.area(rle)) == row["area_px2"] == round(area_of(outlined))


def area_of(row: dict[str, list[list[list[int]]]]) -> float:
    """The shoelace area of the outlines without the holes."""

    def area(points: list[list[int]]) -> float:
        x, y = np.array(points, dtype=float).T
        return abs(float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))) / 2

    return sum(map(area, row["polygons"])) - sum(map(area, row["holes"]))


def test_label_maps(tmp_path: Path) -> None:
    run, photo = random_run(tmp_path / "run", "semantic"), photo_of(tmp_path)
    expected = load_predictor(run)(photo)
    with served_by(Service(served_models([run]), ServingSettings())) as url:
        png = Image.open(io.BytesIO(answered(url, photo, "png").content))
        rows = answered(url, photo, "polygons").json()["objects"]
    assert np.array_equal(np.asarray(png), expected.class_ids)
    for number, name in enumerate(expected.class_names):
        regions = [row for row in rows if row["class"] == name]
        assert sum(row["area_px2"] for row in regions) == int((expected.class_ids == number).sum())
        assert all(row["score"] is None and round(area_of(row)) == row["area_px2"] for row in regions)


@pytest.mark.parametrize("window_px", [None, pytest.param(128, marks=pytest.mark.extended)])
def test_panoptic_maps(tmp_path: Path, window_px: int | None) -> None:
    run, photo = random_run(tmp_path / "run", "panoptic"), photo_of(tmp_path)
    expected = load_predictor(run, window_px=window_px)(photo)
    models = served_models([run], windows=WindowChoice(window_px=window_px))
    with served_by(Service(models, ServingSettings())) as url:
        png = Image.open(io.BytesIO(answered(url, photo, "png").content))
        rows = answered(url, photo, "rle").json()["objects"]
    assert np.array_equal(np.asarray(png), expected.segment_ids)
    areas = [segment.area_px2 for segment in expected.segments if segment.area_px2]
    assert [row["area_px2"] for row in rows] == areas

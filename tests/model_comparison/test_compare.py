"""Two models on one image, from run folders and published files."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import d2tune
from d2tune.errors import DataError, ProjectError
from d2tune.model_comparison import drawings
from d2tune.model_comparison.compare import Comparison, read_image
from d2tune.model_comparison.measuring import TensorMemory
from d2tune.model_comparison.models import ComparedModel, open_model
from tests.runs.random_runs import random_run
from tests.shared_files import SHARED

VOC = "deeplabv3_mobilenet_v2_voc"


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    frame = sorted((SHARED / "data" / "car_video").rglob("*.jpg"))[0]
    return np.asarray(Image.open(frame).convert("RGB").resize((214, 120)))


@pytest.fixture(scope="module")
def voc() -> ComparedModel:
    return open_model(VOC, weights_folder=SHARED / "weights")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ComparedModel]:
    folder = tmp_path_factory.mktemp("runs")
    return {task: open_model(random_run(folder / task, task)) for task in ("instance", "semantic", "panoptic")}


@pytest.fixture(scope="module")
def comparison(voc: ComparedModel, runs: dict[str, ComparedModel], photo: np.ndarray) -> Comparison:
    return d2tune.compare_models(voc, runs["semantic"], photo)


@pytest.mark.parametrize("task", ["instance", "semantic", pytest.param("panoptic", marks=pytest.mark.extended)])
def test_the_comparison_of_b_and_a_is_that_of_a_and_b_mirrored(
    task: str, runs: dict[str, ComparedModel], voc: ComparedModel, photo: np.ndarray
) -> None:
    there = d2tune.compare_models(voc, runs[task], photo)
    back = d2tune.compare_models(runs[task], voc, photo).mirrored()
    assert (there.a.name, there.b.name) == (back.a.name, back.b.name) == (VOC, f"random {task}")
    assert there.maps.names == back.maps.names and there.maps.classes == back.maps.classes
    assert (there.maps.pixels, there.maps.same_px) == (back.maps.pixels, back.maps.same_px)
    for one in (drawings.layer(there, "a") == drawings.layer(back, "a"), there.maps.b == back.maps.b):
        assert one.all()
    assert np.array_equal(drawings.agreement_layer(there), drawings.agreement_layer(back.mirrored()))
    assert there.a.cost.peak_bytes == back.a.cost.peak_bytes
    assert {"car", "background"} <= {row.name for row in there.maps.classes}


def test_a_model_agrees_with_itself(voc: ComparedModel, photo: np.ndarray) -> None:
    result = d2tune.compare_models(voc, voc, photo)
    assert result.maps.share == result.maps.mean_iou == 1
    shown = drawings.agreement_layer(result)
    assert not (shown[..., 0] > shown[..., 1]).any(), "nothing is red"
    car = result.maps.a == result.maps.names.index("car")
    assert car.sum() > 1000 and np.array_equal(shown[..., 3] == 255, car), "background is transparent"


def test_the_car_is_where_the_other_model_has_none(comparison: Comparison, photo: np.ndarray) -> None:
    car = comparison.maps.a == comparison.maps.names.index("car")
    painted = drawings.layer(comparison, "a")
    color = drawings.class_colors(comparison)["car"]
    assert {"#{:02x}{:02x}{:02x}".format(*pixel[:3]) for pixel in np.unique(painted[car], axis=0)} == {color}
    assert np.array_equal(drawings.overlay(photo, painted, opacity=0), photo)
    opaque = drawings.overlay(photo, painted, opacity=1)
    assert np.array_equal(opaque[car], painted[car][:, :3]) and np.array_equal(opaque[~car], photo[~car])
    half = drawings.overlay(photo, painted, opacity=0.5)
    expected = (photo[car].astype(float) + painted[car][:, :3]) / 2
    assert np.abs(half[car] - expected).max() <= 0.5
    with pytest.raises(ValueError, match="between 0 and 1"):
        drawings.overlay(photo, painted, opacity=1.5)


def test_the_download_has_everything(comparison: Comparison) -> None:
    with zipfile.ZipFile(io.BytesIO(drawings.to_zip(comparison))) as archive:
        names = {"a.png", "b.png", "agreement.png", "image.png", "classes.csv", "comparison.json"}
        assert set(archive.namelist()) == names
        assert np.array_equal(np.asarray(Image.open(archive.open("image.png"))), comparison.image_rgb)
        content = json.loads(archive.read("comparison.json"))
        rows = list(csv.DictReader(io.StringIO(archive.read("classes.csv").decode())))
    assert content["models"][0]["name"] == VOC and content["width_px"] == 214
    assert content["agreement"] == comparison.maps.same_px / (120 * 214)
    assert [row["class"] for row in rows] == [row.name for row in comparison.maps.classes]
    assert sum(int(row["pixels of A"]) for row in rows) == 120 * 214


def test_time_and_memory(comparison: Comparison) -> None:
    cost = comparison.a.cost
    assert cost.total_s == cost.prepare_s + cost.network_s + cost.finish_s > 0
    parameters = torch.load(SHARED / "weights" / f"{VOC}.pth", weights_only=True)
    state = parameters.get("model_state", parameters)
    assert cost.weights_bytes == pytest.approx(sum(value.nbytes for value in state.values()), rel=0.01)
    # at least the probabilities of 21 classes at the size of the image, and those before the softmax
    assert cost.peak_bytes is not None and cost.peak_bytes > 2 * 21 * 120 * 214 * 4


def test_memory_of_tensors_that_are_alive_together() -> None:
    known = torch.ones(1000)
    with TensorMemory([known]) as memory:
        first = known * 2
        second = first.view(10, 100) + 1
        del first
        known.view(10, 100)
        third = second + 1
        del second, third
    assert (memory.peak_bytes, memory.live_bytes) == (8000, 0)


def test_images_that_cannot_be_compared(voc: ComparedModel, tmp_path: Path, photo: np.ndarray) -> None:
    for content, message in (
        (b"not an image", "the image cannot be read"),
        (b"", "the image cannot be read"),
        (drawings.png(photo)[:2000], "cut off|damaged|cannot be"),
    ):
        with pytest.raises(DataError, match=message):
            d2tune.compare_models(voc, voc, content)
    with pytest.raises(DataError, match=r"too large; found 214 x 120 px; expected at most 100 pixels"):
        read_image(drawings.png(photo), max_pixels=100)
    with pytest.raises(DataError, match=r"no\.jpg"):
        d2tune.compare_models(voc, voc, tmp_path / "no.jpg")
    with pytest.raises(DataError, match=r"the array is not an image; found \(4, 4\) float64"):
        d2tune.compare_models(voc, voc, np.zeros((4, 4)))


def test_models_that_do_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"there is no such model; found fcn_resnet5; expected .*fcn_resnet50"):
        open_model("fcn_resnet5")
    with pytest.raises(d2tune.errors.D2TuneError, match="the weights file does not exist"):
        open_model(f"fcn_resnet50={tmp_path / 'none.pth'}")

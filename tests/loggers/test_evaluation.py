"""What loggers are given of evaluations whose predictions were written by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage

from d2tune.data.image_reader import image_reader
from d2tune.engine.galleries import Galleries
from d2tune.loggers import evaluation as logged
from d2tune.loggers.exhibits import Chart, Gallery, as_pixels
from d2tune.modeling.config import read_config
from d2tune.project import load_project
from d2tune.project.traits import TaskName
from d2tune.report.labeled_image import MOST_CLASSES, decode, label_names, label_of
from d2tune.run_folder import RunFolder
from d2tune.runs.evaluated import read_evaluated
from tests.review.world import BUS, CAR, HEIGHT, WIDTH, make_data, make_run

TASKS: tuple[TaskName, ...] = ("instance", "semantic", "panoptic")


@pytest.fixture(scope="module")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[TaskName], Path]:
    data = make_data(tmp_path_factory.mktemp("crossing") / "data")
    made: dict[TaskName, Path] = {}

    def run(task: TaskName) -> Path:
        if task not in made:
            made[task] = make_run(tmp_path_factory.mktemp("runs") / task, data, task)
        return made[task]

    return run


def gallery_of(run: Path, most: int = 100) -> Gallery:
    folder, evaluated = RunFolder(run), read_evaluated(run)
    reader = image_reader(load_project(folder.project).project, read_config(folder.config))
    galleries = Galleries(evaluated.dataset, evaluated.evaluator, reader, key="split")
    return galleries.of(evaluated.predictions(), most=most)


def inside(labels: np.ndarray, box: tuple[int, int, int, int]) -> set[int]:
    """The labels of the pixels in a box, but for its border."""
    x, y, width, height = box
    return set(np.unique(labels[y + 2 : y + height - 2, x + 2 : x + width - 2]).tolist())


@pytest.mark.parametrize("task", TASKS)
def test_a_gallery_has_the_masks_of_both_sides_and_the_worst_image_first(
    task: TaskName, run_of: Callable[[TaskName], Path]
) -> None:
    gallery = gallery_of(run_of(task))
    scores = [prediction.score for _, prediction in gallery.rows]
    assert scores == sorted(scores) and scores[-1] == pytest.approx(100, abs=1)
    assert [image.name for image in gallery.all_images] == [f"val/{number:03}.jpg" for number in range(1, 7)]
    rows = {image.name: (image, prediction) for image, prediction in gallery.rows}
    assert rows["val/001.jpg"][1].score == scores[-1]
    for image, _ in rows.values():
        truth = decode(image.truth_png)
        assert truth.shape == (HEIGHT, WIDTH)
        assert inside(truth, BUS) == {1} and inside(truth, CAR) == {2}
    missed, confused = (decode(rows[name][1].predicted_png) for name in ("val/002.jpg", "val/003.jpg"))
    # a semantic task's background has no mask, a panoptic task's is a region
    nothing = 3 if task == "panoptic" else 0
    assert inside(missed, BUS) == {1} and inside(missed, CAR) == {nothing}
    assert inside(confused, CAR) == {1}
    assert as_pixels(gallery).shape[2] == 3


def test_qualities_of_instances(run_of: Callable[[TaskName], Path]) -> None:
    """Sums of IoU over TP + FP / 2 + FN / 2; see the detections in tests/review/world.py."""
    rows = {image.name: prediction for image, prediction in gallery_of(run_of("instance")).rows}
    expected = {1: 100, 2: 100 / 1.5, 3: 100 / 2, 4: 200 / 2.5, 5: 100 / 2, 6: 200 / 2.5}
    assert {int(name[4:7]): one.score for name, one in rows.items()} == pytest.approx(expected, abs=0.01)
    assert (rows["val/002.jpg"].annotated, rows["val/002.jpg"].predicted) == (2, 1)


def test_a_small_gallery_is_spread_over_the_split(run_of: Callable[[TaskName], Path]) -> None:
    gallery = gallery_of(run_of("instance"), most=3)
    assert {image.name for image, _ in gallery.rows} == {"val/001.jpg", "val/003.jpg", "val/006.jpg"}
    assert len(gallery.all_images) == 6


@pytest.mark.parametrize("task", TASKS)
def test_every_metric_is_a_scalar_with_the_ends_of_its_interval(
    task: TaskName, run_of: Callable[[TaskName], Path]
) -> None:
    content = json.loads((run_of(task) / "evaluation.json").read_bytes())
    scalars = logged.scalars(content)
    expected: dict[str, Any] = {}
    for kind, metrics in content["metrics"].items():
        for name, metric in metrics.items():
            expected[f"evaluation/{kind}/{name}"] = metric["value"]
            expected[f"evaluation/{kind}/{name}_low"] = metric["low"]
            expected[f"evaluation/{kind}/{name}_high"] = metric["high"]
    for row in content["classes"]:
        kind, name = {"instance": ("segm", "AP"), "semantic": ("semantic", "IoU"), "panoptic": ("panoptic", "PQ")}[task]
        metric = row["metrics"]["segm"]["AP"] if task == "instance" else row["metrics"][name]
        for end, key in (("", "value"), ("_low", "low"), ("_high", "high")):
            expected[f"evaluation/{kind}/{name}-{row['name']}{end}"] = metric[key]
    assert scalars == {name: value for name, value in expected.items() if value is not None}
    assert any(name.endswith("_low") for name in scalars)


def charts_of(run: Path) -> dict[str, Any]:
    evaluated = read_evaluated(run)
    curves = [
        (one.name, one.recall, one.precision) for one in evaluated.evaluator.images(evaluated.predictions()).curves()
    ]
    return dict(logged.images(evaluated.content, curves=curves, plots=run / "plots"))


def test_charts_of_instances(run_of: Callable[[TaskName], Path]) -> None:
    run = run_of("instance")
    shown = charts_of(run)
    names = ("classes", "precision_recall", "confusion", "calibration", "errors", "sizes")
    assert set(shown) == {f"evaluation/{name}" for name in names}
    bars, curves, matrix = (shown[f"evaluation/{name}"] for name in names[:3])
    assert all(isinstance(one, Chart) for one in (bars, curves, matrix))
    content = json.loads((run / "evaluation.json").read_bytes())
    assert bars.rows == [(row["name"], row["metrics"]["segm"]["AP"]["value"]) for row in content["classes"]]
    # six buses: four outlined well, one of them twice, one badly, of the cars one is missed and one is called a bus
    assert {(a, b): count for a, b, count in matrix.rows} == {
        ("bus", "bus"): 5,
        ("bus", "background"): 1,
        ("car", "car"): 4,
        ("car", "bus"): 1,
        ("car", "background"): 1,
        ("background", "bus"): 3,
    }
    assert {row[0] for row in curves.rows} == {"bus", "car"} and curves.rows[0][:2] == ("bus", 0.0)
    with PilImage.open(run / "plots" / "confusion.png") as plot:
        assert np.array_equal(matrix.pixels, np.asarray(plot.convert("RGB")))


@pytest.mark.parametrize("task", TASKS[1:])
def test_charts_of_label_maps(task: TaskName, run_of: Callable[[TaskName], Path]) -> None:
    run = run_of(task)
    shown = charts_of(run)
    assert "evaluation/precision_recall" not in shown and "evaluation/classes" in shown
    assert [row[0] for row in shown["evaluation/classes"].rows] == ["bus", "car", "ground"]
    content = json.loads((run / "evaluation.json").read_bytes())
    if "confusion" in content:
        counts = {(a, b): count for a, b, count in shown["evaluation/confusion"].rows}
        assert counts["bus", "bus"] == content["confusion"][0][0]
        assert sum(counts.values()) == 6 * WIDTH * HEIGHT


def test_more_classes_than_labels_of_eight_bits() -> None:
    names = label_names([f"class {number}" for number in range(300)])
    assert len(names) == MOST_CLASSES + 2
    assert names[label_of(0)] == "class 0" and names[label_of(252)] == "class 252"
    assert names[label_of(253)] == names[label_of(299)] == "47 further classes"
    assert max(names) == 255

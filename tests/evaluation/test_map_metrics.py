"""Metrics of label maps and segments as tables, sentences and JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from d2tune.annotations.model.dataset import Category
from d2tune.evaluation.map_metrics import MapMetrics, MapOutcome, map_sentence, spanned_main
from d2tune.evaluation.panoptic_metrics import panoptic_metrics
from d2tune.evaluation.semantic_metrics import semantic_metrics
from d2tune.metrics.metric import Metric
from d2tune.metrics.panoptic import PanopticScorer
from d2tune.metrics.semantic import SemanticScorer
from d2tune.tasks import metrics_from_json
from d2tune.timing import StageTimes

CATEGORIES = (Category(1, "car"), Category(2, "tram"), Category(3, "road", False))


def semantic(*, intervals: bool = False, boundary: bool = False) -> MapMetrics:
    """Two images; half of class b is predicted on the first and all on the second; class c is in neither map."""
    scorer = SemanticScorer(("a", "b", "c"), boundary=boundary)
    truth = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [255, 0, 0, 0]], np.uint8)
    half = np.array([[0, 0, 0, 1], [0, 0, 0, 1], [1, 0, 0, 0]], np.uint8)
    scorer.add(half, truth, "1.png")
    scorer.add(truth, truth, "2.png")
    return semantic_metrics(scorer, intervals=intervals)


def panoptic(*, intervals: bool = False) -> MapMetrics:
    """A car of two is predicted with an IoU of 2/3, the road completely, and another car where the road is."""
    scorer = PanopticScorer(CATEGORIES)
    truth = np.array([[1, 1, 1, 2, 3, 3], [3, 3, 3, 3, 3, 3]])
    predicted = np.array([[1, 1, 0, 0, 3, 3], [3, 3, 3, 3, 3, 4]])
    kinds = {1: 1, 2: 1, 3: 3, 4: 1}
    rows = [
        [{"id": segment, "category_id": kinds[segment]} for segment in np.unique(ids) if segment]
        for ids in (predicted, truth)
    ]
    scorer.add(predicted, rows[0], truth, rows[1], "1.png")
    return panoptic_metrics(scorer, intervals=intervals)


def test_metrics_of_label_maps_by_hand() -> None:
    metrics = semantic()
    # a: 14 correct, 2 false; b: 6 correct, 2 missed
    assert metrics.metrics["mIoU"].value == pytest.approx(100 * (14 / 16 + 6 / 8) / 2)
    assert metrics.metrics["pACC"].value == pytest.approx(100 * 20 / 22)
    assert metrics.metrics["mDice"].value == pytest.approx(100 * (28 / 30 + 12 / 14) / 2)
    assert metrics.confusion == ((14, 0, 0, 0), (2, 6, 0, 0), (0, 0, 0, 0))
    assert [(row["name"], row["pixels"]) for row in metrics.classes] == [("a", 14), ("b", 8), ("c", 0)]
    assert (metrics.task, metrics.images, metrics.replicates) == ("semantic", 2, 0)
    assert metrics.main is metrics.metrics["mIoU"] and metrics.headline == "mIoU 81.2"
    assert metrics.classes[2]["metrics"]["IoU"].value is None and metrics.classes[2]["metrics"]["IoU"].reason


def test_metrics_of_segments_by_hand() -> None:
    metrics = panoptic()
    car, tram, road = metrics.classes
    assert (car["tp"], car["fp"], car["fn"]) == (1, 1, 1)
    assert car["metrics"]["PQ"].value == pytest.approx(100 * (2 / 3) / 2)
    assert (tram["tp"], tram["fp"], tram["fn"]) == (0, 0, 0) and tram["metrics"]["PQ"].value is None
    assert road["metrics"]["PQ"].value == pytest.approx(100 * 7 / 8)
    assert metrics.main.value == pytest.approx(100 * (1 / 3 + 7 / 8) / 2)
    assert metrics.headline == "PQ 60.4"


def test_tables_of_classes_and_metrics() -> None:
    lines = semantic().table.splitlines()
    assert lines[0].split() == ["class", "pixels", "IoU", "ACC", "Dice"]
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.split()}
    assert rows["a"] == ["14", "87.5", "100.0", "93.3"] and rows["b"] == ["8", "75.0", "75.0", "85.7"]
    assert rows["c"] == ["0", "-", "-", "-"]
    assert rows["mIoU"] == ["81.2"] and rows["metric"] == ["value"]
    table = panoptic().table
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines() if line.split()}
    assert rows["car"] == ["thing", "1", "1", "1", "33.3", "66.7", "50.0"]
    assert rows["road"] == ["stuff", "1", "0", "0", "87.5", "87.5", "100.0"]
    assert "tram" not in rows, "tram is neither annotated nor predicted"
    assert "value (95 % interval over 2 images)" in semantic(intervals=True).table


@pytest.mark.parametrize("intervals", [False, True])
@pytest.mark.parametrize("task", ["semantic", "panoptic"])
def test_metrics_are_read_back_from_json(tmp_path: Path, task: str, intervals: bool) -> None:
    metrics = semantic(intervals=intervals, boundary=True) if task == "semantic" else panoptic(intervals=intervals)
    MapOutcome(metrics).write(tmp_path, bound={"run": "r"}, times=StageTimes())
    plain = json.loads((tmp_path / "evaluation.json").read_text("utf-8"))
    assert metrics_from_json(plain) == metrics
    assert (plain["task"], plain["run"], plain["schema"]) == (task, "r", 2) and plain["times"] is not None
    plots = {path.name for path in (tmp_path / "plots").iterdir()}
    assert plots == ({"class_iou.png", "confusion.png"} if task == "semantic" else {"class_pq.png"})


def test_a_metric_of_a_competition_is_read_back_too() -> None:
    metrics = semantic()
    metrics = replace(metrics, metrics=metrics.metrics | {"carvana": Metric(99.5, low=98.0, high=100.0)})
    plain = json.loads(json.dumps({"task": metrics.task} | metrics.to_json()))
    assert metrics_from_json(plain) == metrics and "99.5 (98.0 to 100.0)" in metrics.table


def test_intervals_contain_the_value() -> None:
    metrics = semantic(intervals=True)
    assert metrics.replicates == 1000
    main = metrics.main
    assert main.low is not None and main.high is not None and main.low <= main.value <= main.high
    # each image once, or either of them twice
    assert main.low == pytest.approx(100 * (7 / 9 + 2 / 4) / 2) and main.high == pytest.approx(100)


def test_nothing_to_score_gives_reasons_and_still_files(tmp_path: Path) -> None:
    scorer = SemanticScorer(("a", "b"))
    scorer.add(np.full((4, 4), 255, np.uint8), np.full((4, 4), 255, np.uint8), "1.png")
    nothing = semantic_metrics(scorer, intervals=True)
    empty = PanopticScorer(CATEGORIES)
    empty.add(np.zeros((4, 4), int), [], np.zeros((4, 4), int), [], "1.png")
    for task, metrics in (("mIoU", nothing), ("PQ", panoptic_metrics(empty, intervals=True))):
        assert metrics.main.value is None and metrics.main.reason
        assert map_sentence(metrics) == f"No {task} can be computed on 1 image: {metrics.main.reason}."
        assert f"- ({metrics.main.reason})" in metrics.table and metrics.headline == f"{task} -"
        MapOutcome(metrics).write(tmp_path / task, bound={}, times=None)
        plain = json.loads((tmp_path / task / "evaluation.json").read_text("utf-8"))
        assert metrics_from_json(plain) == metrics and plain["times"] is None


def test_the_sentence_has_metric_images_and_interval() -> None:
    assert map_sentence(semantic()) == "mIoU on 2 images: 81.2."
    assert map_sentence(panoptic()) == "PQ on 1 image: 60.4."
    metrics = semantic(intervals=True)
    interval = f"{metrics.main.low:.1f} to {metrics.main.high:.1f}"
    assert map_sentence(metrics) == f"mIoU on 2 images: 81.2 ({interval})."


def test_the_main_metric_in_training_has_the_interval_of_the_complete_evaluation() -> None:
    scorer = SemanticScorer(("a", "b"), boundary=False)
    truth = np.array([[0, 0, 1, 1]], np.uint8)
    for number, predicted in enumerate(([0, 0, 1, 1], [0, 0, 0, 1], [1, 0, 0, 1])):
        scorer.add(np.array([predicted], np.uint8), truth, f"{number}.png")
    main = spanned_main(semantic_metrics(scorer, intervals=False), scorer)
    assert main == semantic_metrics(scorer, intervals=True).main and main.low is not None
    assert main.low < main.value < main.high

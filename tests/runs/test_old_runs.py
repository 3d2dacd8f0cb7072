"""Runs that an earlier version made still load, predict the same, compare and resume."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PilImage
from pycocotools import mask as mask_utils

import d2tune
from d2tune.run_folder import RunFolder
from tests.shared_files import SHARED

pytestmark = pytest.mark.usefixtures("without_plots")

OLD = Path(__file__).resolve().parents[1] / "old_runs"


def old_run(name: str, folder: Path) -> Path:
    """A copy of an old run with the path of the test data on this machine."""
    run = folder / name
    shutil.copytree(OLD / name, run)
    project = RunFolder(run).project
    text = project.read_text(encoding="utf-8").replace("root: DATA", f"root: {SHARED / 'data'}")
    project.write_text(text, encoding="utf-8")
    return run


@pytest.mark.extended
def test_detections_on_real_photos_are_those_of_the_old_version(tmp_path: Path) -> None:
    run = old_run("instance", tmp_path)
    expected = json.loads((run / "predictions.json").read_text(encoding="utf-8"))
    photos = sorted((SHARED / "data" / "balloon" / "val").glob("*.jpg"))
    predictor = d2tune.load_predictor(run, min_score=0)
    rows = [row for number, result in enumerate(predictor.batch(photos), start=1) for row in result.to_coco(number)]
    assert len(expected) > 500 and len({row["image_id"] for row in expected}) == 12
    # the same order, classes and sizes on any processor; the last bits of floats differ between processors
    assert [(row["image_id"], row["category_id"]) for row in rows] == [
        (row["image_id"], row["category_id"]) for row in expected
    ]
    assert [row["score"] for row in rows] == pytest.approx([row["score"] for row in expected], abs=2e-4)
    boxes, old_boxes = (np.array([row["bbox"] for row in side]) for side in (rows, expected))
    assert np.abs(boxes - old_boxes).max() < 1
    overlaps = [
        mask_utils.iou([row["segmentation"]], [old["segmentation"]], [0])[0, 0]
        for row, old in zip(rows, expected, strict=True)
        if max(mask_utils.area(row["segmentation"]), mask_utils.area(old["segmentation"]))
    ]
    assert len(overlaps) > 400 and np.quantile(overlaps, 0.01) > 0.98
    result = d2tune.evaluate(run, out=tmp_path / "evaluation")
    old = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))["metrics"]
    for kind, values in (("bbox", result.metrics.bbox), ("segm", result.metrics.segm)):
        assert values["AP"].value == pytest.approx(old[kind]["AP"]["value"], abs=0.1)
    assert result.metrics.segm["AP"].value > 5
    compared = d2tune.compare(run, tmp_path / "evaluation")
    assert abs(compared.metrics["segm AP"].difference) < 0.1


@pytest.mark.slow
def test_label_maps_are_those_of_the_old_version(tmp_path: Path) -> None:
    run = old_run("semantic", tmp_path)
    d2tune.predict(run, None, out=tmp_path / "out")
    old = json.loads((run / "predicted_cells.json").read_text(encoding="utf-8"))
    assert len(old) == 7
    for name, rle in old.items():
        (new,) = (tmp_path / "out" / "labels").rglob(name)
        with PilImage.open(new) as image:
            assert (np.asarray(image) == mask_utils.decode(rle)).mean() > 0.9999


@pytest.mark.slow
def test_an_old_run_is_resumed(tmp_path: Path) -> None:
    run = old_run("semantic", tmp_path)
    state = torch.load(run / "checkpoints" / "last.pth", weights_only=True)
    assert state["trainer"]["iteration"] == 30
    result = d2tune.train(
        RunFolder(run).project, output_dir=run, resume=True, overrides=["train.iterations=32"], num_gpus=0
    )
    record = json.loads((run / "record.json").read_text(encoding="utf-8"))
    assert len(record["resumed"]) == 1 and result.run == run
    assert torch.load(run / "checkpoints" / "last.pth", weights_only=True)["trainer"]["iteration"] == 32

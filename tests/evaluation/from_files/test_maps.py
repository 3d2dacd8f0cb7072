"""Evaluation of label PNGs and panoptic predictions from files, once with the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

from d2tune.errors import DataError
from d2tune.evaluation.from_files.evaluate import evaluate_files
from tests.shared_files import SHARED
from tests.system.commands import d2tune_here, succeeded


def label_folders(folder: Path) -> None:
    """Two images of 10 x 10 px: the left half is class 0, of which the prediction has a column as class 1."""
    for side in ("predicted", "truth"):
        (folder / side / "deep").mkdir(parents=True)
        for name in ("a.png", "deep/b.png"):
            labels = np.zeros((10, 10), np.uint8)
            labels[:, 5 if side == "truth" else 4 :] = 1
            labels[0, :] = 255 if side == "truth" else 2
            PilImage.fromarray(labels).save(folder / side / name)
    (folder / "labels.txt").write_text("grass\nroad\nsky\n")


WORDS = ["eval", "--predictions", "predicted", "--ground-truth", "truth", "--labels", "labels.txt", "--out", "scored"]


@pytest.mark.slow
def test_folders_of_label_images(tmp_path: Path) -> None:
    label_folders(tmp_path)
    out = succeeded(d2tune_here(*WORDS, folder=tmp_path))
    assert out.rstrip().splitlines()[-1].startswith("mIoU on 2 images: 81.7")
    evaluation = json.loads((tmp_path / "scored" / "evaluation.json").read_text())
    metrics = evaluation["metrics"]["semantic"]
    # the first row is ignored; of 90 pixels an image, 36 of 45 of grass are right, and road has 45 of 54
    assert metrics["mIoU"]["value"] == pytest.approx(50 * (36 / 45 + 45 / 54))
    assert metrics["pACC"]["value"] == pytest.approx(90) and metrics["mIoU"]["low"] == pytest.approx(81.667, abs=1e-3)
    assert evaluation["classes"][2]["metrics"]["IoU"]["value"] is None
    assert [row[:3] for row in evaluation["confusion"]] == [[72, 18, 0], [0, 90, 0], [0, 0, 0]]
    assert sorted(path.name for path in (tmp_path / "scored" / "plots").glob("*.png")) == [
        "class_iou.png",
        "confusion.png",
    ]


def refusal(folder: Path, *, labels: str | None = "labels.txt", out: str = "scored") -> str:
    """The error as a line."""
    named = None if labels is None else folder / labels
    with pytest.raises(DataError) as caught:
        evaluate_files(folder / "predicted", folder / "truth", out=folder / out, labels=named)
    line = caught.value.one_line()
    assert "\n" not in line and not (folder / out / "evaluation.json").exists()
    return line


def test_errors_of_label_pngs_are_a_line(tmp_path: Path) -> None:
    label_folders(tmp_path)
    assert "label PNGs have no class names" in refusal(tmp_path, labels=None)
    (tmp_path / "labels.txt").write_text("grass\nroad\n")
    assert "a.png" in refusal(tmp_path)
    (tmp_path / "many.txt").write_text("".join(f"class {number}\n" for number in range(300)))
    assert "300 classes" in refusal(tmp_path, labels="many.txt")
    assert "must not be inside a folder of label PNGs" in refusal(tmp_path, out="truth/out")
    (tmp_path / "predicted" / "a.png").unlink()
    assert "1 of 2 images have no prediction" in refusal(tmp_path)


def test_panoptic_ground_truth_scores_100_against_itself(tmp_path: Path) -> None:
    folder = SHARED / "data" / "panoptic_coco_sample"
    (table,) = [path for path in folder.rglob("*.json") if "segments_info" in path.read_text("utf-8")]
    result = evaluate_files(table, table, out=tmp_path / "scored")
    assert result.sentence.startswith("PQ on 2 images: 100.0")
    metrics = json.loads((tmp_path / "scored" / "evaluation.json").read_text())["metrics"]["panoptic"]
    assert {name: metric["value"] for name, metric in metrics.items()} == dict.fromkeys(metrics, pytest.approx(100))
    assert {"PQ", "SQ", "RQ", "PQ_th", "PQ_st"} <= set(metrics)

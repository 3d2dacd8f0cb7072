"""Predictions from files: evaluated, compared, and refused if they do not fit together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage
from pycocotools import mask as mask_utils

from d2tune.errors import DataError
from d2tune.evaluation.from_files.evaluate import evaluate_files
from tests.annotations.builders import labelme_file, moved, shape
from tests.runs.random_runs import random_run
from tests.system.commands import d2tune, d2tune_here, refused, succeeded

SIZE = 120
BIG = [[4, 3], [34, 3], [34, 20], [4, 20]]


def rle_of(x: int, y: int, side: int) -> dict[str, Any]:
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[y : y + side, x : x + side] = 1
    rle = mask_utils.encode(np.asfortranarray(mask))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def write_set(folder: Path, *, images: int = 12, shift_px: int = 3) -> None:
    """Twelve images with three squares; model A is ``shift_px`` off, model B is exact."""
    draw = np.random.default_rng(0)
    truth: list[dict[str, Any]] = []
    results: dict[str, list[dict[str, Any]]] = {"a": [], "b": []}
    for image in range(1, images + 1):
        for category in (1, 2, 2):
            x, y = (int(value) for value in draw.integers(0, 80, 2))
            row = {"image_id": image, "category_id": category}
            box = [x, y, 30, 30]
            truth.append(
                {**row, "id": len(truth) + 1, "iscrowd": 0, "area": 900, "bbox": box, "segmentation": rle_of(x, y, 30)}
            )
            for name, off in (("a", shift_px), ("b", 0)):
                moved = {"bbox": [x + off, y, 30, 30], "segmentation": rle_of(x + off, y, 30)}
                results[name].append({**row, **moved, "score": round(0.5 + 0.4 * draw.random(), 3)})
    names = ["left", "right"]
    coco = {
        "images": [
            {"id": number, "file_name": f"{number}.png", "width": SIZE, "height": SIZE}
            for number in range(1, images + 1)
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, start=1)],
        "annotations": truth,
    }
    (folder / "truth.json").write_text(json.dumps(coco))
    for name, rows in results.items():
        (folder / f"{name}.json").write_text(json.dumps(rows))


@pytest.mark.slow
def test_any_models_predictions_are_scored_from_a_file(tmp_path: Path) -> None:
    write_set(tmp_path)
    words = ["eval", "--predictions", "b.json", "--ground-truth", "truth.json", "--out", "scored"]
    out = succeeded(d2tune_here(*words, folder=tmp_path))
    assert "95 % interval over 12 images" in out and out.rstrip().splitlines()[-1].startswith("On 12 images the model")
    evaluation = json.loads((tmp_path / "scored" / "evaluation.json").read_text())
    assert evaluation["schema"] == 2
    for kind in ("bbox", "segm", "boundary"):
        ap = evaluation["metrics"][kind]["AP"]
        assert ap["value"] == pytest.approx(100) and (ap["low"], ap["high"]) == pytest.approx((100, 100))
        large = evaluation["metrics"][kind]["APl"]
        assert large["value"] is None and large["reason"] == "no object in truth.json is larger than 96 x 96 px"
    assert [row["instances"] for row in evaluation["classes"]] == [12, 24]
    assert evaluation["analysis"]["confusion"]["counts"] == [[12, 0, 0], [0, 24, 0], [0, 0, 0]]
    assert all(error["count"] == 0 for error in evaluation["analysis"]["errors"]["errors"].values())
    assert len(evaluation["predictions_sha256"]) == len(evaluation["data_sha256"]) == 64
    plots = sorted(path.name for path in (tmp_path / "scored" / "plots").glob("*.png"))
    assert plots == ["calibration.png", "confusion.png", "errors.png", "precision_recall.png", "sizes.png"]
    for name in plots:
        with PilImage.open(tmp_path / "scored" / "plots" / name) as plot:
            assert plot.width > 800 and len(plot.convert("RGB").getcolors(1 << 24) or []) > 20


def content_of(folder: Path) -> dict[str, Any]:
    """The content of ``evaluation.json`` without the times."""
    content: dict[str, Any] = json.loads((folder / "evaluation.json").read_text())
    return {key: value for key, value in content.items() if key != "times"}


@pytest.fixture(scope="module")
def own_result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of four images, and their evaluation by the function."""
    folder = tmp_path_factory.mktemp("own")
    write_set(folder, images=4)
    evaluate_files(folder / "a.json", folder / "truth.json", out=folder / "auto")
    return folder


@pytest.mark.slow
def test_the_command_writes_the_same_file(own_result: Path) -> None:
    words = ["eval", "--predictions", "a.json", "--ground-truth", "truth.json"]
    succeeded(d2tune(*words, "--out", "by_command", folder=own_result))
    assert content_of(own_result / "by_command") == content_of(own_result / "auto")


@pytest.mark.slow
def test_the_better_model_is_reported_with_an_interval(tmp_path: Path) -> None:
    write_set(tmp_path)
    words = ["compare", "a.json", "b.json", "--ground-truth", "truth.json", "--out", "."]
    out = succeeded(d2tune_here(*words, folder=tmp_path))
    comparison = json.loads((tmp_path / "comparison.json").read_text())
    mask_ap = comparison["figures"]["segm AP"]
    # 3 px off, IoU is 27 / 33 = 0.818: correct up to 0.80, which is seven of ten thresholds
    assert mask_ap["value_a"] == pytest.approx(70) and mask_ap["value_b"] == pytest.approx(100)
    assert mask_ap["difference"] == pytest.approx(30) and mask_ap["better"] == "B"
    assert mask_ap["interval"]["low"] == pytest.approx(30) == mask_ap["interval"]["high"]
    assert out.rstrip().endswith("mask AP: B is better by 30.0 points (95 % interval 30.0 to 30.0).")
    same = succeeded(d2tune_here("compare", "a.json", "a.json", "--ground-truth", "truth.json", folder=tmp_path))
    assert same.rstrip().endswith("mask AP: no significant difference on 12 images.")


@pytest.mark.slow
def test_boundaries_come_with_their_masks(tmp_path: Path) -> None:
    write_set(tmp_path)
    words = ["eval", "--predictions", "a.json", "--ground-truth", "truth.json", "--metrics", "boundary"]
    succeeded(d2tune_here(*words, folder=tmp_path))
    evaluation = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())
    assert set(evaluation["metrics"]) == {"segm", "boundary"} and evaluation["analysis"]["kind"] == "segm"
    assert evaluation["analysis"]["errors"]["AP50"]["value"] == evaluation["metrics"]["segm"]["AP50"]["value"]


def test_scores_outside_0_to_1_are_evaluated_without_calibration(tmp_path: Path) -> None:
    from d2tune import api

    write_set(tmp_path)
    rows = [row | {"score": row["score"] * 25 - 14} for row in json.loads((tmp_path / "a.json").read_text())]
    (tmp_path / "logits.json").write_text(json.dumps(rows))
    for name in ("a", "logits"):
        api.evaluate_files(tmp_path / f"{name}.json", tmp_path / "truth.json", out=tmp_path / name)
    shares, logits = (json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("a", "logits"))
    assert logits["metrics"] == shares["metrics"]
    calibration = logits["analysis"]["calibration"]
    assert calibration["bins"] == [] and "below 0 or above 1" in calibration["expected_error"]["reason"]
    assert not (tmp_path / "logits" / "plots" / "calibration.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ()}, "the kind of metric is unknown; found none"),
        ({"metrics": ("mask",)}, "found 'mask'; expected bbox, segm, boundary"),
        ({"labels": "labels.txt"}, "--labels needs a folder of label PNGs"),
    ],
)
def test_invalid_options(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    from d2tune import api

    write_set(tmp_path)
    with pytest.raises(DataError) as caught:
        api.evaluate_files(tmp_path / "a.json", tmp_path / "truth.json", out=tmp_path / "out", **options)
    assert message in caught.value.one_line()


def test_masks_for_only_some_detections_are_an_error(tmp_path: Path) -> None:
    from d2tune import api

    write_set(tmp_path)
    rows = json.loads((tmp_path / "a.json").read_text())
    del rows[2]["segmentation"]
    (tmp_path / "some.json").write_text(json.dumps(rows))
    with pytest.raises(DataError, match="some detections have no segmentation") as caught:
        api.evaluate_files(tmp_path / "some.json", tmp_path / "truth.json", out=tmp_path / "out")
    assert "result 3 of 36" in caught.value.one_line()
    (tmp_path / "nothing.json").write_text("[]")
    result = api.evaluate_files(tmp_path / "nothing.json", tmp_path / "truth.json", out=tmp_path / "out")
    assert result.metrics.segm["AP"].value == 0


@pytest.mark.slow
def test_boxes_alone_are_scored_as_boxes(tmp_path: Path) -> None:
    write_set(tmp_path)
    rows = [
        {key: value for key, value in row.items() if key != "segmentation"}
        for row in json.loads((tmp_path / "a.json").read_text())
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(rows))
    out = succeeded(d2tune_here("eval", "--predictions", "boxes.json", "--ground-truth", "truth.json", folder=tmp_path))
    assert "box AP" in out and "mask AP" not in out
    assert set(json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())["metrics"]) == {"bbox"}


BOTH = ["--predictions", "a.json", "--ground-truth", "truth.json"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["eval", "--predictions", "a.json"], "--predictions and --ground-truth go together"),
        (["eval"], "no run is given"),
        (["eval", "--predictions", "none.json", "--ground-truth", "truth.json"], "none.json: the file does not exist"),
        (
            ["eval", "--predictions", "truth.json", "--ground-truth", "a.json"],
            "a.json: the file is not a COCO instances file",
        ),
        (
            ["eval", "--predictions", "broken.json", "--ground-truth", "truth.json"],
            "broken.json: the file ends in the middle of the JSON",
        ),
        (
            ["eval", "--predictions", "other.json", "--ground-truth", "truth.json"],
            "the image is not in the ground truth",
        ),
        (
            ["eval", "run", "--predictions", "a.json", "--ground-truth", "truth.json"],
            "with --predictions no model is run",
        ),
        (["compare", ".", "b.json"], "evaluation.json: the evaluation does not exist"),
        (["compare", "a.json", "b.json"], "two files of results need their ground truth"),
    ],
)
def test_files_that_do_not_fit_together_are_refused(
    tmp_path: Path,
    words: list[str],
    message: str,
) -> None:
    write_set(tmp_path)
    (tmp_path / "broken.json").write_text('[{"image_id": 1')
    row = json.loads((tmp_path / "a.json").read_text())[0]
    (tmp_path / "other.json").write_text(json.dumps([row | {"image_id": 99}]))
    assert message in refused(d2tune_here(*words, folder=tmp_path))


@pytest.mark.extended
def test_the_model_of_another_tool_is_put_beside_a_run(tmp_path: Path) -> None:
    """The other tool was trained on the layout that is written for it, and its predictions have the ids of that."""
    from d2tune import api

    run = tmp_path / "run"
    for split, count in (("train", 2), ("val", 6)):
        for number in range(count):
            name = f"{split}{number}.json"
            labelme_file(run / split / name, shape(moved(BIG, 3 * number), "bus"), shape(moved(BIG, 0, 22), "road"))
    random_run(run, "instance")
    api.evaluate(run)
    api.convert(run / "project.yaml", to="rfdetr", out=tmp_path / "theirs")
    truth = tmp_path / "theirs" / "valid" / "_annotations.coco.json"
    annotations = json.loads(truth.read_text("utf-8"))["annotations"]
    rows = [
        {key: row[key] for key in ("image_id", "category_id", "bbox", "segmentation")} | {"score": 0.9}
        for row in annotations
    ]
    (tmp_path / "theirs.json").write_text(json.dumps(rows), "utf-8")
    by_itself = api.evaluate_files(tmp_path / "theirs.json", truth, out=tmp_path / "scored")
    assert by_itself.metrics.segm["AP"].value == pytest.approx(100) and "best-F1 threshold" in by_itself.table
    beside = api.compare(run, tmp_path / "theirs.json")
    mask_ap = beside.metrics["segm AP"]
    assert mask_ap.value_b == pytest.approx(100) and mask_ap.value_a is not None and mask_ap.value_a < 50
    assert mask_ap.better == "B" and beside.images == 6
    exchanged = api.compare(tmp_path / "theirs.json", run).metrics["segm AP"]
    assert (exchanged.value_a, exchanged.value_b, exchanged.better) == (mask_ap.value_b, mask_ap.value_a, "A")
    percent = [row | {"score": 90} for row in rows]
    (tmp_path / "theirs.json").write_text(json.dumps(percent), "utf-8")
    report = api.write_report(run, predictions={"theirs": tmp_path / "theirs.json"}, out=tmp_path / "report.html")
    assert "theirs" in report.path.read_text("utf-8")
    assert [line for line in report.problems if "the highest score is 90; scores are from 0 to 1 (divide" in line]
    with pytest.raises(DataError):
        (tmp_path / "none.json").write_text("[]", "utf-8")
        api.compare(run, tmp_path / "none.json")

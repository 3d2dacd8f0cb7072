"""Evaluation files as people have them, `92_eval_files`: the right value, or one line that says what is wrong."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from d2tune.errors import DataError
from d2tune.evaluation.from_files.evaluate import evaluate_files
from tests.shared_files import SHARED

pytestmark = pytest.mark.usefixtures("without_plots")

FOLDER = SHARED / "strangers" / "92_eval_files"

# one of two objects found: precision 1 up to recall 0.5, which are 51 of 101 recall points
HALF = 100 * 51 / 101

RIGHT: dict[str, tuple[float | None, float | None]] = {
    # box AP and mask AP; None where there is none. Each detection is the square that is annotated.
    "gt.json": (100, 100),
    "gt_area_zero.json": (100, 100),
    "gt_bom.json": (100, 100),
    "gt_box_no_seg_key.json": (100, None),
    "gt_box_only_gt.json": (100, None),
    "gt_crowd_all.json": (None, None),
    "gt_degenerate_part.json": (100, 100),
    "gt_dup_ann_ids.json": (100, 100),
    "gt_flat.json": (100, 100),
    "gt_iscrowd_null.json": (100, 100),
    "gt_nested_empty.json": (100, 100),
    "gt_no_iscrowd_area.json": (100, 100),
    "gt_no_size.json": (100, 100),
    "gt_string_ids.json": (100, 100),
    "gt_two_cats.json": (100, 100),
    "gt_zero_ann_id.json": (100, 100),
    "p_bbox_only.json": (100, None),
    "p_bytes_repr.json": (100, 100),
    "p_detectron2_wrapped.json": (HALF, HALF),
    # four equal scores in the order of the file: right, wrong, wrong, right; precision 1, then 1/2
    "p_duplicate.json": (100 * (51 + 50 / 2) / 101, 100 * (51 + 50 / 2) / 101),
    "p_empty.json": (0, 0),
    "p_empty_seg.json": (100, None),
    "p_float_ids.json": (100, 100),
    "p_image_id_string.json": (100, 100),
    "p_image_name.json": (100, 100),
    "p_lines.jsonl": (100, 100),
    "p_ok.json": (100, 100),
    "p_per_image.json": (100, 100),
    "p_polygon_seg.json": (100, 100),
    "p_score_percent.json": (100, 100),
    "p_score_string.json": (100, 100),
    # a box of 30 x 30 px around a square of 20 x 20 px
    "p_xyxy.json": (0, 100),
}

REFUSED = {
    "gt_nan.json": "annotation 1: the area must be a number of 0 or more; found area nan",
    "gt_no_annotations.json": "annotations: the ground truth is not a COCO instances file; found nothing",
    "gt_orphan.json": "annotation 3 of 3: the image of an annotation does not exist; found image_id 9",
    "p_mixed.json": "result 2 of 2: some detections have no segmentation",
    "p_nan_score.json": "result 1 of 2: the score is not a finite number; found nan",
    "p_no_score.json": "result 1 of 2: the score is not a finite number; found None",
    "p_swapped_size.json": "result 1 of 2: the size of the mask differs from the size of its image",
    "p_zero_based_class.json": "result 1 of 2: the class is not in the ground truth; found category_id 0",
}

WARNED = {
    "gt_crowd_all.json": "0 objects, 2 crowds; if they are single objects, --crowds objects",
    "gt_box_no_seg_key.json": "only boxes are evaluated",
    "gt_box_only_gt.json": "only boxes are evaluated",
    "gt_degenerate_part.json": "1 polygon of fewer than three points",
    "gt_flat.json": "it was read as a polygon (row 1)",
    "gt_nested_empty.json": "1 annotation without a segmentation",
    "gt_string_ids.json": "the image_id of annotations is '1'; it was read as the id 1 (2 rows, the first is 1)",
    "p_bytes_repr.json": "it was read as the counts of a run-length mask (row 1)",
    "p_empty.json": "there are no detections",
    "p_float_ids.json": "the image_id of detections is 1.0; it was read as the id 1",
    "p_image_id_string.json": "the image_id of detections is '1'",
    "p_score_percent.json": "the highest score is 90; scores are from 0 to 1",
    "p_score_string.json": "the score of detections is '0.9'; it was read as the number 0.9 (row 1)",
    "p_xyxy.json": "the boxes of 2 of 2 detections do not fit their masks; read as [x1, y1, x2, y2], 2 would",
}


def both_files(name: str) -> tuple[Path, Path]:
    """Predictions and ground truth; the usual file of the other side."""
    if name.startswith("gt"):
        return FOLDER / "p_ok.json", FOLDER / name
    return FOLDER / name, FOLDER / "gt.json"


def test_every_file_has_a_right_value() -> None:
    assert {path.name for path in FOLDER.iterdir()} == RIGHT.keys() | REFUSED.keys()


@pytest.mark.parametrize("name", RIGHT)
def test_a_file_is_evaluated(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("d2tune").propagate = True
    result = evaluate_files(*both_files(name), out=tmp_path / "out")
    metrics = result.metrics.metrics
    values = tuple(metrics[kind]["AP"].value if kind in metrics else None for kind in ("bbox", "segm"))
    assert values == tuple(None if right is None else pytest.approx(right, abs=1e-9) for right in RIGHT[name])
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("d2tune")]
    assert len(lines) == (2 if name == "p_float_ids.json" else int(name in WARNED)), lines
    assert WARNED.get(name, "") in "".join(lines)
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["warnings"] == lines


def test_crowds_are_named_where_there_is_nothing_else(tmp_path: Path) -> None:
    result = evaluate_files(*both_files("gt_crowd_all.json"), out=tmp_path / "out")
    assert "there is no ground truth in gt_crowd_all.json: 0 objects, 2 crowds" in result.sentence


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        evaluate_files(*both_files(name), out=tmp_path / "out")
    line = caught.value.one_line()
    assert REFUSED[name] in line and line.startswith(str(FOLDER)) and "\n" not in line
    assert not (tmp_path / "out").exists()


# it takes the id 0 of an annotation for "not matched", and of two annotations with one id the last one twice
READ_BY_PYCOCOTOOLS = (
    *("gt.json", "gt_area_zero.json", "gt_two_cats.json"),
    *("p_bbox_only.json", "p_duplicate.json", "p_float_ids.json", "p_ok.json", "p_polygon_seg.json"),
    *("p_score_percent.json", "p_xyxy.json"),
)


@pytest.mark.parametrize("name", READ_BY_PYCOCOTOOLS)
def test_pycocotools_gives_the_same(name: str) -> None:
    predictions, ground_truth = both_files(name)
    for right, kind in zip(RIGHT[name], ("bbox", "segm"), strict=True):
        if right is None:
            continue
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO(str(ground_truth))
            evaluation = COCOeval(truth, truth.loadRes(str(predictions)), kind)
            evaluation.evaluate()
            evaluation.accumulate()
        precision = evaluation.eval["precision"][:, :, :, 0, -1]
        assert 100 * np.mean(precision[precision > -1]) == pytest.approx(right, abs=1e-9)

"""Results in memory and their conversions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as mask_utils

from d2tune.annotations.geometry.masks import encode_mask, to_rle
from d2tune.annotations.model.dataset import Image
from d2tune.inference.results import Detections, LabelMap, PanopticMap, Segment

HEIGHT_PX, WIDTH_PX = 20, 30


def bitmap(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros((HEIGHT_PX, WIDTH_PX), bool)
    mask[top:bottom, left:right] = True
    return mask


BITMAPS = (bitmap(2, 3, 12, 9), bitmap(15, 5, 25, 15))


def detections(*, with_masks: bool = True) -> Detections:
    return Detections(
        HEIGHT_PX,
        WIDTH_PX,
        np.array([[2, 3, 12, 9], [15.12345, 5, 25, 15]], np.float32),
        np.array([0.9000004, 0.25], np.float32),
        np.array([1, 0]),
        tuple(to_rle(encode_mask(mask)) for mask in BITMAPS) if with_masks else None,
        ("car", "tram"),
    )


def test_coco_rows_by_hand() -> None:
    rows = detections().to_coco(7, category_ids=[10, 20])
    assert [row["category_id"] for row in rows] == [20, 10] and {row["image_id"] for row in rows} == {7}
    assert rows[0]["bbox"] == [2.0, 3.0, 10.0, 6.0] and rows[1]["bbox"][0] == 15.123
    assert [row["score"] for row in rows] == [0.9, 0.25]
    for row, mask in zip(rows, BITMAPS, strict=True):
        rle = row["segmentation"]
        assert json.loads(json.dumps(rle)) == rle
        assert np.array_equal(mask_utils.decode({**rle, "counts": rle["counts"].encode()}), mask)
    assert "segmentation" not in detections(with_masks=False).to_coco(1)[0]


def test_masks_are_bitmaps_of_the_whole_image() -> None:
    assert np.array_equal(detections().masks, np.stack(BITMAPS))
    assert detections(with_masks=False).masks.shape == (0, HEIGHT_PX, WIDTH_PX)


def test_lower_scores_add_up_in_descending_order() -> None:
    first = replace(detections(), lower_scores=(0.2, 0.1))
    assert first.at_least(0.5).lower_scores == (0.25, 0.2, 0.1)
    assert first.at_least(0.5).at_least(0.95).lower_scores == (0.9, 0.25, 0.2, 0.1)
    assert len(first.to_coco(1)) == len(first.to_dataset(Image(1, "a.jpg", WIDTH_PX, HEIGHT_PX)).instances) == 2


@pytest.mark.parametrize(("score", "kept"), [(0.0, 2), (0.25, 2), (0.2500001, 1), (0.9, 1), (0.95, 0)])
def test_the_lowest_score_is_compared_with_six_digits(score: float, kept: int) -> None:
    chosen = detections().at_least(score)
    assert len(chosen) == kept == len(chosen.rles or ()) == len(chosen.boxes_xyxy)
    assert chosen.lower_scores == (0.9, 0.25)[kept:]


def test_a_labelme_file_reads_back_to_the_same_masks(tmp_path: Path) -> None:
    from PIL import Image as PilImage

    from d2tune.annotations.convert import read_dataset
    from d2tune.annotations.model.options import ReadOptions

    PilImage.new("RGB", (WIDTH_PX, HEIGHT_PX)).save(tmp_path / "a.png")
    content = detections().to_labelme("a.png", tolerance_px=0)
    assert all(shape["flags"] == {"prediction": True} for shape in content["shapes"])
    (tmp_path / "a.json").write_text(json.dumps(content), encoding="utf-8")
    dataset = read_dataset(tmp_path, options=ReadOptions(labels=("car", "tram")))
    assert [(instance.category_id, instance.score, instance.area_px2) for instance in dataset.instances] == [
        (2, 0.9, 60),
        (1, 0.25, 100),
    ]


def test_a_dataset_of_boxes_alone() -> None:
    dataset = detections(with_masks=False).to_dataset(Image(3, "a.png", WIDTH_PX, HEIGHT_PX))
    assert dataset.instances[0].bbox_xywh == (2.0, 3.0, 10.0, 6.0)
    assert dataset.instances[0].area_px2 == 60 and dataset.instances[0].image_id == 3


@pytest.mark.parametrize("with_masks", [True, False])
def test_supervision_gets_boxes_masks_and_names(with_masks: bool) -> None:
    converted = detections(with_masks=with_masks).to_supervision()
    assert len(converted) == 2 and list(converted.data["class_name"]) == ["tram", "car"]
    assert converted.xyxy[0].tolist() == [2, 3, 12, 9] and converted.class_id.tolist() == [1, 0]
    if with_masks:
        assert converted.mask.shape == (2, HEIGHT_PX, WIDTH_PX)
        assert converted.mask.sum(axis=(1, 2)).tolist() == [
            60,
            100,
        ]
    else:
        assert converted.mask is None
    empty = detections(with_masks=with_masks).at_least(1.0).to_supervision()
    assert len(empty) == 0


def test_label_and_panoptic_maps() -> None:
    labels = LabelMap(np.where(BITMAPS[0], np.uint8(1), np.uint8(0)), ("ground", "car"))
    assert (labels.height_px, labels.width_px) == (HEIGHT_PX, WIDTH_PX) and labels.mask("car").sum() == 60
    with pytest.raises(ValueError, match="there is no class 'ship'; the classes are ground, car"):
        labels.mask("ship")
    ids = np.where(BITMAPS[1], 5, 0).astype(np.int32)
    panoptic = PanopticMap(ids, (Segment(5, 1, False, 100), Segment(6, 0, True, 0, 0.1234567)), ("car", "road"))
    assert panoptic.to_segments_info() == [
        {"id": 5, "category_id": 2, "isthing": 0, "area": 100},
        {"id": 6, "category_id": 1, "isthing": 1, "area": 0, "score": 0.123457},
    ]


@pytest.mark.parametrize("result", [detections(), LabelMap(np.zeros((4000, 4000), np.uint8), ("a",))])
def test_a_result_is_short_in_a_terminal(result: object) -> None:
    assert len(repr(result)) < 80 and " px>" in repr(result)

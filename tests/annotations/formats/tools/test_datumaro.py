"""Datumaro JSON; right values by hand and from pycocotools, on 64 x 48 px images."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from d2tune.annotations.convert import check, read_dataset
from d2tune.annotations.geometry.masks import decode_mask, to_raw
from d2tune.annotations.model.options import ReadOptions
from d2tune.annotations.model.types import Rle
from tests.annotations.builders import codes, photo

SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]


def annotation(kind: str, label_id: Any = 0, **more: Any) -> dict[str, Any]:
    return {"id": 0, "type": kind, "attributes": {}, "group": 0, "label_id": label_id, "z_order": 0} | more


def datumaro(folder: Path, *annotations: Any, labels: tuple[str, ...] = ("van", "car"), **item: Any) -> Path:
    photo(folder / "images" / "default" / "a.png")
    (folder / "annotations").mkdir(exist_ok=True)
    rows = [{"name": name, "parent": "", "attributes": []} for name in labels]
    image = {"path": "a.png", "size": [48, 64]}
    value = {
        "info": {},
        "categories": {"label": {"labels": rows}},
        "items": [{"id": "a", "annotations": list(annotations), "image": image} | item],
    }
    (folder / "annotations" / "default.json").write_text(json.dumps(value), "utf-8")
    return folder


def test_shapes_with_an_area(tmp_path: Path) -> None:
    shapes = [
        annotation("polygon", 1, points=SQUARE),
        annotation("bbox", 0, bbox=[40, 10, 10, 20]),
        annotation("bbox", 0, bbox=[35, 30, 20, 10], attributes={"rotation": 90.0}),
        annotation("ellipse", 1, points=[4, 34, 28, 46]),
    ]
    dataset = read_dataset(datumaro(tmp_path, *shapes))
    assert [one.area_px2 for one in dataset.instances[:3]] == [400, 200, 200]
    assert dataset.instances[2].bbox_xywh == pytest.approx((40, 25, 10, 20))
    assert dataset.instances[3].area_px2 == pytest.approx(math.pi * 12 * 6, rel=0.02)
    assert dataset.class_names == ("van", "car") and dataset.images[0].source_id == "a"
    assert dataset.images[0].file_name == "images/default/a.png"
    assert codes(dataset) == [("info", "box_as_mask", None)]


@pytest.mark.parametrize("compressed", [True, False])
def test_run_length_masks(tmp_path: Path, compressed: bool) -> None:
    mask = np.zeros((48, 64), dtype=np.uint8, order="F")
    mask[5:20, 7:33] = 1
    mask[9:12, 10:14] = 0
    rle = coco_mask.encode(mask)
    counts: Any = rle["counts"].decode()
    if not compressed:
        flat = mask.reshape(-1, order="F")
        edges = np.flatnonzero(np.diff(np.concatenate([[0], flat]))).tolist()
        counts = np.diff([0, *edges, flat.size]).tolist()
    shape = annotation("mask", 1, rle={"counts": counts, "size": [48, 64]})
    (instance,) = read_dataset(datumaro(tmp_path, shape)).instances
    assert isinstance(instance.segmentation, Rle)
    assert np.array_equal(decode_mask(to_raw(instance.segmentation)), mask.astype(bool))


def test_groups_crowds_and_shapes_without_an_area(tmp_path: Path) -> None:
    shapes = [
        annotation("polygon", points=[1, 1, 9, 1, 9, 9], group=4),
        annotation("polygon", points=[21, 1, 29, 1, 29, 9], group=4),
        annotation("polygon", points=[41, 1, 49, 1, 49, 9], attributes={"is_crowd": True}),
        annotation("label"),
        annotation("polyline", points=SQUARE),
        annotation("points", points=SQUARE),
        annotation("strange"),
    ]
    dataset = read_dataset(datumaro(tmp_path, *shapes))
    assert [(len(one.shapes), one.iscrowd) for one in dataset.instances] == [(2, False), (1, True)]
    assert codes(dataset) == [
        ("info", "no_spatial_extent", 3),
        ("warning", "unsupported_shape_type", 4),
        ("warning", "unsupported_shape_type", 5),
        ("warning", "unknown_shape_type", 6),
    ]
    assert read_dataset(tmp_path, options=ReadOptions(crowds="objects")).crowds == 0


@pytest.mark.parametrize(
    ("shape", "code"),
    [
        (annotation("polygon", 9, points=SQUARE), "bad_shape"),
        (annotation("polygon", None, points=SQUARE), "bad_shape"),
        (annotation("polygon", points=SQUARE[:-1]), "bad_point"),
        (annotation("polygon"), "bad_point"),
        (annotation("bbox", bbox=[1, 2, 3]), "bad_point"),
        (annotation("mask"), "mask_missing"),
        (annotation("mask", rle={"counts": [1], "size": [48, 64]}), "bad_rle"),
    ],
)
def test_invalid_annotations_are_errors(tmp_path: Path, shape: dict[str, Any], code: str) -> None:
    assert [one.code for one in read_dataset(datumaro(tmp_path, shape)).errors()] == [code]


def test_later_files_and_sizes(tmp_path: Path) -> None:
    shape = annotation("polygon", points=SQUARE)
    for name, more in {"media": {"media": {"path": "a.png"}}, "id": {}}.items():
        later = check(datumaro(tmp_path / name, shape, image=None, **more))
        assert len(later.dataset.instances) == 1 and not later.findings
    wrong = datumaro(tmp_path / "b", shape, image={"path": "a.png", "size": [48, 65]})
    assert [one.code for one in read_dataset(wrong).errors()] == ["size_mismatch"]

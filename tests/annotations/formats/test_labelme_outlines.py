"""Regions of masks in Labelme files: small ones are excluded where a label map or a prediction has them."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as PilImage

from d2tune.annotations.convert import convert
from d2tune.annotations.formats import labelme
from d2tune.annotations.formats.from_masks import dataset_of_masks
from d2tune.annotations.model.dataset import Dataset, Image
from d2tune.annotations.model.options import LabelImageOptions, ReadOptions
from d2tune.cli import main
from tests.annotations.builders import photo

SIDES = (2, 4, 5, 10)
"""Sides in pixels of squares of one class, apart from each other: 4, 16, 25 and 100 px2."""


def squares(sides: tuple[int, ...] = SIDES) -> np.ndarray:
    mask = np.zeros((48, 64), dtype=bool)
    for place, side in enumerate(sides):
        mask[4 : 4 + side, 4 + 14 * place : 4 + 14 * place + side] = True
    return mask


def areas(shapes: list[dict[str, Any]]) -> list[float]:
    return sorted(cv2.contourArea(np.array(shape["points"], dtype=np.float32)) for shape in shapes)


def predicted(mask: np.ndarray, score: float | None) -> Dataset:
    dataset = dataset_of_masks([Image(1, "a.png", 64, 48)], [[(0, mask)]], ["cell"])
    return replace(dataset, instances=tuple(replace(one, score=score) for one in dataset.instances))


def label_image(folder: Path, values: np.ndarray) -> ReadOptions:
    photo(folder / "images" / "a.png")
    (folder / "labels").mkdir(parents=True, exist_ok=True)
    PilImage.fromarray(values.astype(np.uint8)).save(folder / "labels" / "a.png")
    return ReadOptions(label_images=LabelImageOptions(values={0: None, 1: "road", 2: "pole"}))


def test_small_regions_of_label_images_are_excluded_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = label_image(tmp_path / "set", squares() + 2 * squares((3,))[::-1])
    reading = {"format": "label_images", "options": options, "to": "labelme"}
    with caplog.at_level(logging.WARNING):
        convert(tmp_path / "set", out=tmp_path / "default", **reading)
    assert "3 regions smaller than 25 px2 excluded from the Labelme files (--min-area)" in caplog.text
    for name, least, expected in (
        ("default", None, [25, 100]),
        ("all", 0.0, [4, 9, 16, 25, 100]),
        ("big", 50.0, [100]),
    ):
        if least is not None:
            convert(tmp_path / "set", out=tmp_path / name, min_area_px2=least, **reading)
        (file,) = (tmp_path / name).rglob("*.json")
        shapes = json.loads(file.read_text("utf-8"))["shapes"]
        assert areas(shapes) == expected
        assert len({shape["group_id"] for shape in shapes if shape["label"] == "road"}) == 1


def test_specks_beside_a_region_with_a_hole_leave_its_mask(tmp_path: Path) -> None:
    mask = squares((2, 12))
    mask[8:10, 22:24] = False
    options = label_image(tmp_path / "set", mask)
    convert(tmp_path / "set", out=tmp_path / "out", format="label_images", options=options, to="labelme")
    (shape,) = json.loads((tmp_path / "out" / "images" / "a.json").read_text("utf-8"))["shapes"]
    assert (shape["shape_type"], shape["points"]) == ("mask", [[18, 4], [29, 15]])


@pytest.mark.parametrize(
    ("mask", "score", "expected"),
    [
        (squares(), 0.9, [25, 100]),
        (squares((2, 4)), 0.9, [16]),
        (squares((3,)), 0.9, [9]),
        (squares(), None, [25, 100]),
        (squares((2, 4)), None, []),
    ],
)
def test_predicted_objects_keep_their_largest_region_and_label_maps_do_not(
    mask: np.ndarray, score: float | None, expected: list[float]
) -> None:
    content = labelme.file_content(predicted(mask, score), Path("a.json"))
    assert areas(content["shapes"]) == expected
    outlines = labelme.Outlines(1.0, 0.0)
    every = labelme.file_content(predicted(mask, score), Path("a.json"), outlines=outlines)
    assert (len(every["shapes"]), outlines.excluded) == (cv2.connectedComponents(mask.astype(np.uint8))[0] - 1, 0)


def test_what_a_person_annotated_is_excluded_on_request_alone(tmp_path: Path) -> None:
    """A COCO object of two regions of 4 and 16 px2, and one drawn as a small triangle."""
    photo(tmp_path / "a.png")
    polygons = [[4, 4, 6, 4, 6, 5, 6, 6, 4, 6], [18, 4, 22, 4, 22, 6, 22, 8, 18, 8]]
    triangle = [[40.5, 10.5, 44.5, 10.5, 40.5, 14.5]]
    rows = [
        {"id": number, "image_id": 1, "category_id": 1, "segmentation": one, "iscrowd": 0, "bbox": [0, 0, 1, 1]}
        for number, one in enumerate((polygons, triangle), start=1)
    ]
    coco = {"images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 48}], "annotations": rows}
    (tmp_path / "a.json").write_text(json.dumps(coco | {"categories": [{"id": 1, "name": "cat"}]}))
    for name, least, expected in (("plain", None, [4, 8, 16]), ("least", 25.0, [8, 16])):
        convert(tmp_path / "a.json", out=tmp_path / name, to="labelme", min_area_px2=least)
        shapes = json.loads((tmp_path / name / "a.json").read_text("utf-8"))["shapes"]
        assert areas(shapes) == expected


def test_the_command_takes_the_smallest_area(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo(tmp_path / "set" / "images" / "a.png")
    (tmp_path / "set" / "labels").mkdir()
    PilImage.fromarray(squares().astype(np.uint8)).save(tmp_path / "set" / "labels" / "a.png")
    (tmp_path / "labels.txt").write_text("ground\nroad\n")
    words = ["convert", str(tmp_path / "set"), "--format", "label_images", "--labels", str(tmp_path / "labels.txt")]
    words += ["--to", "labelme", "--out"]
    assert main([*words, str(tmp_path / "out"), "--min-area", "20"]) == 0
    (file,) = (tmp_path / "out").rglob("*.json")
    shapes = [one for one in json.loads(file.read_text("utf-8"))["shapes"] if one["label"] == "road"]
    assert areas(shapes) == [25, 100]
    for value in ("-1", "nan"):
        assert main([*words, str(tmp_path / "bad"), "--min-area", value]) == 1
    assert "--min-area: must be 0 or more" in capsys.readouterr().err

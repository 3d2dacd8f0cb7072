from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d2tune.api import convert
from d2tune.data.splits import load_splits
from d2tune.project import load_project
from tests.annotations.builders import SQUARE, labelme_file, shape


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in "abcde":
        labelme_file(tmp_path / "data" / f"{name}.json", shape(SQUARE, "car"))
    return tmp_path


def written(root: Path, text: str) -> Path:
    path = root / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


SEMANTIC = "task: semantic\nclasses: [ground, car]\n"
PANOPTIC = "task: panoptic\nthings: [car]\nstuff: [ground]\n"
DATA = "data: {root: data, train: ., val: 0.4, background: ground}\n"


@pytest.mark.parametrize("text", ["classes: [car]\ndata: {root: data, train: ., val: 0.4}\n", SEMANTIC + DATA])
def test_a_fraction_is_written_as_the_two_splits_of_training(root: Path, text: str) -> None:
    path = written(root, text)
    splits = load_splits(load_project(path, hardware="cpu").project)
    train, val = convert(path, out=root / "coco")
    for name, result, dataset in (("train", train, splits.train), ("val", val, splits.val)):
        value = json.loads((root / "coco" / f"{name}.json").read_bytes())
        names = [image.file_name for image in dataset.images]
        assert [Path(image["file_name"]).name for image in value["images"]] == names
        assert len(value["annotations"]) == len(names) == len(result.dataset.ledger)
    assert (len(train.dataset.images), len(val.dataset.images)) == (3, 2)


def test_findings_and_ledger_rows_are_written_once(root: Path) -> None:
    labelme_file(root / "data" / "e.json", shape(SQUARE, "car"), shape([[1, 1], [2, 2]], "car"))
    path = written(root, "classes: [car]\ndata: {root: data, train: ., val: 0.4}\n")
    results = convert(path, out=root / "coco", findings_path=root / "f.json", ledger_path=root / "l.csv")
    assert [finding.code for result in results for finding in result.findings] == ["too_few_points"]
    assert len(json.loads((root / "f.json").read_bytes())) == 1
    assert (
        len((root / "l.csv").read_text().splitlines()) == 1 + 6 == 1 + sum(len(one.dataset.ledger) for one in results)
    )


def test_a_semantic_conversion_has_the_class_of_the_background(root: Path) -> None:
    convert(written(root, SEMANTIC + DATA), out=root / "out", to="semantic")
    labels = sorted((root / "out").glob("*/*.png"))
    assert len(labels) == 5
    for path in labels:
        values, counts = np.unique(np.asarray(Image.open(path)), return_counts=True)
        assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == {0: 64 * 48 - 100, 1: 100}


def test_a_panoptic_conversion_has_the_class_of_the_background(root: Path) -> None:
    convert(written(root, PANOPTIC + DATA), out=root / "out", to="panoptic")
    path = root / "out" / "val" / "panoptic.json"
    value = json.loads(path.read_bytes())
    names = {category["id"]: category["name"] for category in value["categories"]}
    for row in value["annotations"]:
        areas = {names[segment["category_id"]]: segment["area"] for segment in row["segments_info"]}
        assert areas == {"car": 100, "ground": 64 * 48 - 100}


def test_instances_are_written_without_a_region_of_the_background(root: Path) -> None:
    convert(written(root, SEMANTIC + DATA), out=root / "coco")
    value = json.loads((root / "coco" / "train.json").read_bytes())
    assert {row["area"] for row in value["annotations"]} == {100}

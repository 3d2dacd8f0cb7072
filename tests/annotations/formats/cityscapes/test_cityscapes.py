"""Cityscapes: polygons as they are read, label images as they are written; right values by hand on 64 x 48 px."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from d2tune.annotations.convert import check, convert, read_dataset
from d2tune.annotations.model.options import ReadOptions
from d2tune.errors import DataError
from tests.annotations.builders import SQUARE, TRIANGLE, codes, labelme_file, moved, photo, shape


def cityscapes(root: Path, *objects: Any, below: str = "train/aachen", name: str = "aachen_000") -> Path:
    photo(root / "leftImg8bit" / below / f"{name}_leftImg8bit.png")
    path = root / "gtFine" / below / f"{name}_gtFine_polygons.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"imgHeight": 48, "imgWidth": 64, "objects": list(objects)}), "utf-8")
    return root


def row(label: Any, points: Any = SQUARE, **more: Any) -> dict[str, Any]:
    return {"label": label, "polygon": points} | more


def test_groups_are_crowds_and_regions_without_a_class_are_ignored(tmp_path: Path) -> None:
    objects = [
        row("car"),
        row("cargroup", moved(SQUARE, 20)),
        row("polegroup", moved(SQUARE, 40)),
        row("car", moved(SQUARE, 0, 25), deleted=1),
        row("out of roi", moved(SQUARE, 20, 25)),
        row("group", moved(SQUARE, 40, 25)),
    ]
    dataset = read_dataset(cityscapes(tmp_path, *objects))
    names = {one.id: one.name for one in dataset.categories}
    kept = [(names[one.category_id], one.iscrowd) for one in dataset.instances]
    assert kept == [("car", False), ("car", True), ("polegroup", False), ("group", False)]
    assert codes(dataset) == [("info", "ignored_label", 4)]
    assert [one.fate for one in dataset.ledger] == ["kept", "kept", "kept", "dropped", "dropped", "kept"]
    given = read_dataset(tmp_path, options=ReadOptions(labels=["car", "polegroup", "out of roi", "group"]))
    assert given.counts()["out of roi"] == 1


@pytest.mark.parametrize("source", [".", "gtFine", "gtFine/train", "gtFine/train/aachen"])
def test_sources(tmp_path: Path, source: str) -> None:
    result = check(cityscapes(tmp_path, row("car")) / source)
    assert len(result.dataset.instances) == 1 and not result.findings
    below = {".": "leftImg8bit/train/aachen/", "gtFine": "train/aachen/", "gtFine/train": "aachen/"}
    assert result.dataset.images[0].file_name == f"{below.get(source, '')}aachen_000_leftImg8bit.png"


def test_missing_images_and_other_sizes_are_errors(tmp_path: Path) -> None:
    cityscapes(tmp_path, row("car"))
    image = tmp_path / "leftImg8bit" / "train" / "aachen" / "aachen_000_leftImg8bit.png"
    image.unlink()
    assert [one.code for one in check(tmp_path).findings] == ["image_missing"]
    photo(image, 60, 48)
    assert [one.code for one in check(tmp_path).findings] == ["size_mismatch"]


def pixels(path: Path) -> Any:
    return np.asarray(Image.open(path))


def test_label_images_have_the_values_of_cityscapes(tmp_path: Path) -> None:
    labelme_file(
        tmp_path / "src" / "x" / "a.json",
        shape([[0, 0], [64, 0], [64, 48], [0, 48]], "road"),
        shape(SQUARE, "car"),
        shape(moved(SQUARE, 30), "car"),
        shape(moved(SQUARE, 30, 20), "person", flags={"iscrowd": True}),
    )
    result = convert(tmp_path / "src", to="cityscapes", out=tmp_path / "out", options=ReadOptions(stuff=("road",)))
    stem = tmp_path / "out" / "gtFine" / "x" / "a_gtFine"
    labels, objects, colors = (pixels(Path(f"{stem}_{kind}.png")) for kind in ("labelIds", "instanceIds", "color"))
    assert {int(value): int((labels == value).sum()) for value in np.unique(labels)} == {7: 2772, 24: 100, 26: 200}
    assert sorted(np.unique(objects).tolist()) == [7, 24, 26000, 26001] and objects.dtype == np.uint16
    assert colors[10, 10].tolist() == [0, 0, 142] and colors[0, 0].tolist() == [128, 64, 128]
    rows = json.loads((tmp_path / "out" / "categories.json").read_text("utf-8"))
    assert [(one["label"], one["name"]) for one in rows] == [
        (0, "_background_"),
        (7, "road"),
        (24, "person"),
        (26, "car"),
    ]
    assert len(result.paths) == 4
    photo(tmp_path / "out" / "leftImg8bit" / "x" / "a_leftImg8bit.png")
    again = read_dataset(tmp_path / "out", format="masks")
    assert again.counts() == {"road": 1, "person": 1, "car": 1}
    assert [one.area_px2 for one in again.instances] == [2772, 100, 200]


def test_other_classes_count_from_1_and_are_read_back(tmp_path: Path) -> None:
    labelme_file(tmp_path / "src" / "a.json", shape(SQUARE, "zebra"), shape(moved(TRIANGLE, 20), "cat"))
    convert(tmp_path / "src", to="cityscapes", out=tmp_path / "out")
    labels = pixels(tmp_path / "out" / "gtFine" / "a_gtFine_labelIds.png")
    assert {int(value): int((labels == value).sum()) for value in np.unique(labels)} == {0: 3072 - 400, 1: 300, 2: 100}
    photo(tmp_path / "out" / "leftImg8bit" / "a_leftImg8bit.png")
    again = read_dataset(tmp_path / "out", format="masks")
    assert again.class_names == ("cat", "zebra") and [one.area_px2 for one in again.instances] == [300, 100]


def test_the_splits_of_a_project(tmp_path: Path) -> None:
    from d2tune import api

    for split in ("train", "val"):
        labelme_file(tmp_path / split / f"{split}.json", shape(SQUARE, "cat"), shape(TRIANGLE, "dog"))
    (tmp_path / "p.yaml").write_text("task: instance\ndata: {root: .}\nclasses: [cat, dog]\n")
    api.convert(tmp_path / "p.yaml", to="cityscapes", out=tmp_path / "out")
    written = sorted(
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*labelIds.png")
    )
    assert written == ["gtFine/train/train_gtFine_labelIds.png", "gtFine/val/val_gtFine_labelIds.png"]


def test_too_many_objects_or_classes_are_refused(tmp_path: Path) -> None:
    small = [[0, 0], [1, 0], [1, 1], [0, 1]]
    many = [shape(moved(small, at % 64, at // 64), f"c{at:02d}") for at in range(70)]
    labelme_file(tmp_path / "src" / "a.json", *many)
    with pytest.raises(DataError, match="do not fit into 16 bits"):
        convert(tmp_path / "src", to="cityscapes", out=tmp_path / "out")

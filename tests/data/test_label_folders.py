"""Projects whose masks and label images have folders of their own, as docs/semantic.md shows them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from d2tune.annotations.convert import FindingsError, convert
from d2tune.checking import check
from d2tune.data.splits import load_splits
from d2tune.errors import DataError, ProjectError
from d2tune.project import Project, load_project
from tests.annotations.builders import photo

DOCUMENTED = [
    yaml.safe_load(block)
    for block in re.findall(
        r"```yaml\n(.*?)```", (Path(__file__).parents[2] / "docs" / "semantic.md").read_text("utf-8"), re.DOTALL
    )
    if "labels: " in block and "camvid" in block
]


def project(folder: Path, value: dict[str, Any]) -> Project:
    (folder / "projects").mkdir(exist_ok=True)
    path = folder / "projects" / "p.yaml"
    path.write_text(yaml.safe_dump(value), encoding="utf-8")
    return load_project(path).project


def save(path: Path, pixels: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path)


def halves(left: Any, right: Any) -> np.ndarray:
    """48 x 64 px with one value or color in each half."""
    pixels = np.zeros((48, 64, *np.shape(left)), dtype=np.uint8)
    pixels[:, :32], pixels[:, 32:] = left, right
    return pixels


def test_segnets_layout_as_documented(tmp_path: Path) -> None:
    value = DOCUMENTED[0]
    root = tmp_path / "datasets" / "camvid"
    for split in ("train", "val"):
        photo(root / split / f"{split}_1.png")
        photo(root / split / f"{split}_2.png")
        save(root / f"{split}annot" / f"{split}_1.png", halves(0, 3))
        save(root / f"{split}annot" / f"{split}_2.png", halves(8, 255))
    splits = load_splits(project(tmp_path, value))
    assert splits.train.class_names == tuple(value["classes"])
    for dataset, split in ((splits.train, "train"), (splits.val, "val")):
        assert [image.file_name for image in dataset.images] == [f"{split}_1.png", f"{split}_2.png"]
        assert {name: count for name, count in dataset.counts().items() if count} == {"sky": 1, "road": 1, "car": 1}
        assert [one.area_px2 for one in dataset.instances] == [48 * 32] * 3
    (tmp_path / "datasets" / "camvid" / "valannot" / "val_3.png").write_bytes(
        (root / "valannot" / "val_1.png").read_bytes()
    )
    with pytest.raises(DataError, match=r"val_3\.png has no image of its name"):
        load_splits(project(tmp_path, value))


def test_camvid_as_published_and_documented(tmp_path: Path) -> None:
    root = tmp_path / "datasets" / "camvid"
    (root / "splits").mkdir(parents=True)
    (root / "label_colors.txt").write_text("128 128 128\tSky\n128 64 128\t\tRoad\n64 0 128\t\tCar\n0 0 0\t\tVoid\n")
    for number, split in enumerate(("train", "train", "val")):
        photo(root / "701_StillsRaw_full" / f"0001TP_{number}.png")
        right = (128, 64, 128) if number else (64, 0, 128)
        save(root / "LabeledApproved_full" / f"0001TP_{number}_L.png", halves((128, 128, 128), right))
        with (root / "splits" / f"{split}.txt").open("a") as stream:
            stream.write(f"0001TP_{number}.png\n")
    splits = load_splits(project(tmp_path, DOCUMENTED[1]))
    assert [image.file_name for image in splits.train.images] == ["0001TP_0.png", "0001TP_1.png"]
    assert (splits.train.counts(), splits.val.counts()) == (
        {"Car": 1, "Road": 1, "Sky": 2},
        {"Car": 0, "Road": 1, "Sky": 1},
    )


@pytest.mark.parametrize("format", ["masks", "label_images"])
def test_one_folder_of_labels_for_both_splits(tmp_path: Path, format: str) -> None:
    for split in ("train", "val"):
        photo(tmp_path / "set" / split / f"{split}.png")
        save(tmp_path / "set" / "labels" / f"{split}.png", halves(0, 1))
    data = {"root": "../set", "labels": "labels", "format": format}
    value = {"task": "semantic", "data": data, "classes": ["ground", "road"]}
    splits = load_splits(project(tmp_path, value))
    for dataset, split in ((splits.train, "train"), (splits.val, "val")):
        assert [image.file_name for image in dataset.images] == [f"{split}.png"]
        assert dataset.counts() == {"ground": 1, "road": 1}
    results = check(tmp_path / "projects" / "p.yaml")
    assert [finding.code for result in results for finding in result.findings if finding.level == "error"] == []


def test_label_images_of_each_split_in_a_folder_of_their_own(tmp_path: Path) -> None:
    for split in ("train", "val"):
        photo(tmp_path / "set" / split / "images" / f"{split}.png")
        save(tmp_path / "set" / f"{split}_labels" / "images" / f"{split}.png", halves(0, 9))
    labels = {split: f"{split}_labels" for split in ("train", "val")}
    data = {"root": "../set", "labels": labels, "format": "label_images"}
    data["label_images"] = {"values": {0: "ground", 9: "road"}}
    splits = load_splits(project(tmp_path, {"task": "semantic", "data": data, "classes": ["ground", "road"]}))
    assert [image.file_name for image in splits.val.images] == ["images/val.png"]
    assert splits.train.counts() == {"ground": 1, "road": 1}


def test_the_color_map_of_a_project_lies_in_its_data(tmp_path: Path) -> None:
    for split in ("train", "val"):
        photo(tmp_path / "set" / split / "images" / f"{split}.png")
        save(tmp_path / "set" / split / "masks" / f"{split}.png", halves((255, 0, 0), (0, 0, 255)))
    (tmp_path / "set" / "colors.csv").write_text("road,255,0,0\ncar,0,0,255\n")
    data = {"root": "../set", "format": "masks", "color_map": "colors.csv"}
    splits = load_splits(project(tmp_path, {"task": "semantic", "data": data, "classes": ["car", "road"]}))
    assert splits.train.counts() == splits.val.counts() == {"car": 1, "road": 1}
    with pytest.raises(DataError, match="the color map cannot be read"):
        load_splits(project(tmp_path, {"task": "semantic", "data": data | {"color_map": "gone.csv"}}))
    with pytest.raises(FindingsError, match="has no class"):
        convert(tmp_path / "set" / "train", out=tmp_path / "out.json")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"labels": "x", "format": "coco"}, "labels goes with the formats masks and label_images"),
        ({"labels": {"train": "x"}}, "labels has no folder for val"),
        ({"labels": ""}, "labels"),
    ],
)
def test_label_folders_that_do_not_fit_are_refused(tmp_path: Path, data: dict[str, Any], message: str) -> None:
    with pytest.raises(ProjectError, match=message):
        project(tmp_path, {"task": "semantic", "data": {"root": ".", **data}, "classes": ["a", "b"]})
    assert project(tmp_path, {"task": "semantic", "data": {"root": ".", "labels": "x"}}).data.format == "masks"

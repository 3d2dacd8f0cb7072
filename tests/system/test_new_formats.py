"""``d2tune new``, ``check`` and ``convert`` on folders of other annotation tools, from the folder to written files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from d2tune.cli import main
from d2tune.project import load_project
from tests.shared_files import SHARED

STRANGERS = SHARED / "strangers"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


def yolo(root: Path) -> Path:
    """Four images to train on and two to validate on: a polygon of 20 x 20 px and a box of 32 x 12 px on each."""
    polygon = "0 0.15625 0.20833333 0.46875 0.20833333 0.46875 0.625 0.15625 0.625"
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for role in ("images", "labels"):
            (root / role / split).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "images" / split / f"{split}{number}.jpg")
            (root / "labels" / split / f"{split}{number}.txt").write_text(f"{polygon}\n1 0.5 0.8 0.5 0.25\n")
    (root / "data.yaml").write_text("path: ../datasets/set\ntrain: images/train\nval: images/val\nnames: [car, van]\n")
    return root


def test_yolo_from_the_folder_to_written_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    yolo(folder / "data")
    assert main(["new", "mine", "--data", "data"]) == 0
    out = capsys.readouterr().out
    assert "YOLO labels in" in out and "4 images, 8 instances to train on, 2 images, 4 instances to validate on" in out
    data = load_project("mine.yaml").project.data
    assert (data.format, data.train, data.val) == ("yolo-seg", "images/train", "images/val")
    assert main(["check", "mine.yaml"]) == 0
    assert "train: 4 images, 8 instances (4 car, 4 van)" in capsys.readouterr().out
    assert main(["convert", "mine.yaml", "--out", "coco"]) == 0
    written = json.loads((folder / "coco" / "train.json").read_text("utf-8"))
    assert [row["area"] for row in written["annotations"][:2]] == [400, 384]
    assert [(row["id"], row["name"]) for row in written["categories"]] == [(1, "car"), (2, "van")]
    assert main(["convert", "mine.yaml", "--to", "yolo-seg", "--out", "again", "--images", "link"]) == 0
    description = yaml.safe_load((folder / "again" / "data.yaml").read_text("utf-8"))
    assert description["names"] == {0: "car", 1: "van"}
    assert (folder / "again" / "images" / "val" / "val0.jpg").samefile(folder / "data" / "images" / "val" / "val0.jpg")
    assert main(["check", "again"]) == 0
    assert "6 images, 12 instances (6 car, 6 van)" in capsys.readouterr().out


def test_roboflow_has_a_folder_for_each_split(folder: Path) -> None:
    yolo(folder / "data")
    for split, name in (("train", "train"), ("val", "valid")):
        for role in ("images", "labels"):
            (folder / "data" / name).mkdir(exist_ok=True)
            shutil.move(folder / "data" / role / split, folder / "data" / name / role)
    for role in ("images", "labels"):
        (folder / "data" / role).rmdir()
    assert main(["new", "mine", "--data", "data"]) == 0
    data = load_project("mine.yaml").project.data
    assert (data.format, data.train, data.val) == ("yolo-seg", "train", "valid")
    assert main(["check", "mine.yaml"]) == 0


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("50_cvat_for_images", "cvat"),
        ("51_datumaro", "datumaro"),
        ("53_via_csv", "via-csv"),
        ("54_labelstudio_json", "label-studio"),
        ("56_isat", "isat"),
        ("99_json_list_of_labelme", "labelme"),
        ("132_cityscapes_polygons", "cityscapes"),
    ],
)
def test_folders_of_other_tools(folder: Path, name: str, format: str) -> None:
    shutil.copytree(STRANGERS / name, folder / "data", ignore=shutil.ignore_patterns("project.yaml"))
    assert main(["new", "mine", "--data", "data"]) == 0
    project = load_project("mine.yaml").project
    assert (project.data.format, project.classes) == (format, ("car",))
    assert main(["convert", "data", "--out", "coco.json"]) == 0
    areas = [row["area"] for row in json.loads((folder / "coco.json").read_text("utf-8"))["annotations"]]
    assert areas in ([400], [400, 6], [190])


def test_options_that_the_format_does_not_use_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    yolo(folder / "data")
    assert main(["convert", "data", "--out", "out", "--class-attribute", "type"]) == 1
    line = capsys.readouterr().err
    assert "--class-attribute is not used by the format yolo-seg (YOLO labels)" in line and "via, via-csv" in line
    assert main(["convert", "data", "--out", "out", "--images", "link"]) == 1
    assert "--images goes with --to yolo-seg" in capsys.readouterr().err
    assert not (folder / "out").exists()

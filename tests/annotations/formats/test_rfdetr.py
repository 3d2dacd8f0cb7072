"""RF-DETR's layout: read back by a reader that does what its documentation says, and by torchvision's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PilImage
from PIL import ImageDraw
from torchvision.datasets import CocoDetection

import d2tune
from d2tune.annotations.convert import convert, read_dataset
from d2tune.annotations.formats.rfdetr import FILE_NAME
from d2tune.cli import main
from d2tune.errors import DataError
from tests.annotations.builders import SQUARE, TRIANGLE, labelme_file, moved, photo, png_base64, shape

PROJECT = "task: instance\ndata: {root: .}\nclasses: [cat, dog]\n"


def project(folder: Path) -> Path:
    """Two images to train on, one of them in a folder, and one to validate on without objects."""
    ring = np.pad(np.ones((12, 10), dtype=np.uint8), 1)
    ring[4:7, 4:8] = 0
    mask = shape([[30, 20], [41, 33]], "dog", "mask", mask=png_base64(ring))
    labelme_file(folder / "train" / "a.json", shape(TRIANGLE, "dog"), mask)
    labelme_file(folder / "train" / "x" / "a.json", shape(moved(SQUARE, 3, 4), "cat"))
    labelme_file(folder / "val" / "v.json", shape(SQUARE, "cat"))
    (folder / "p.yaml").write_text(PROJECT, "utf-8")
    return folder / "p.yaml"


def read(folder: Path) -> Iterator[tuple[str, list[tuple[str, list[float], NDArray[np.bool_]]]]]:
    """File name, and class name, box and pixels of each object, of a split; classes without a root are counted."""
    value: dict[str, Any] = json.loads((folder / FILE_NAME).read_text("utf-8"))
    names = {row["id"]: row["name"] for row in value["categories"] if row["supercategory"] != "none"}
    assert sorted(names) == list(range(1, len(value["categories"]) + 1))
    for row in value["images"]:
        with PilImage.open(folder / row["file_name"]) as image:
            assert image.size == (row["width"], row["height"])
        of_image = [one for one in value["annotations"] if one["image_id"] == row["id"]]
        objects = [(names[one["category_id"]], one["bbox"], pixels(one, row)) for one in of_image]
        yield row["file_name"], objects


def pixels(annotation: dict[str, Any], row: dict[str, Any]) -> NDArray[np.bool_]:
    """The mask of an annotation: polygons as PIL draws them, or COCO's compressed runs, decoded by hand."""
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, list):
        image = PilImage.new("1", (row["width"], row["height"]))
        for ring in segmentation:
            ImageDraw.Draw(image).polygon(ring, fill=1)
        return np.asarray(image)
    counts, text = [], segmentation["counts"]
    while text:
        value, shift = 0, 0
        while True:
            letter, text = ord(text[0]) - 48, text[1:]
            value |= (letter & 31) << shift
            shift += 5
            if not letter & 32:
                break
        value -= (1 << shift) if letter & 16 else 0
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    runs = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return runs.reshape(segmentation["size"][::-1]).T


def test_both_splits_of_a_project_are_read_back(tmp_path: Path) -> None:
    results = d2tune.convert(project(tmp_path), to="rfdetr", out=tmp_path / "out")
    out = tmp_path / "out"
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*") if path.name[0] != ".") == [
        "train/_annotations.coco.json",
        "train/a.png",
        "train/x/a.png",
        "valid/_annotations.coco.json",
        "valid/v.png",
    ]
    assert [path.name for result in results for path in result.paths].count(FILE_NAME) == 2
    train, (valid,) = dict(read(out / "train")), read(out / "valid")
    (triangle, ring), (square,) = train["a.png"], train["x/a.png"]
    assert (triangle[0], ring[0], square[0]) == ("dog", "dog", "cat")
    assert triangle[1] == [10, 10, 20, 30] and square[1] == [8, 9, 10, 10]
    assert ring[2].sum() == 12 * 10 - 3 * 4 and not ring[2][24:27, 34:38].any() and ring[2][21, 31]
    assert abs(int(triangle[2].sum()) - 300) <= 45 and triangle[2][20, 14] and not triangle[2][38, 28]
    assert valid[0] == "v.png" and [name for name, _, _ in valid[1]] == ["cat"]


@pytest.mark.parametrize("to", ["rfdetr", "yolo-seg"])
def test_annotations_without_classes_are_refused(to: str, tmp_path: Path) -> None:
    source = tmp_path / "none.json"
    PilImage.new("RGB", (8, 8)).save(tmp_path / "a.png")
    image = {"id": 1, "file_name": "a.png", "width": 8, "height": 8}
    source.write_text(json.dumps({"images": [image], "annotations": [], "categories": []}), encoding="utf-8")
    with pytest.raises(DataError, match=r"none\.json: there are no classes, without which no model can be trained"):
        d2tune.convert(source, to=to, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_torchvision_and_this_package_read_it(tmp_path: Path) -> None:
    d2tune.convert(project(tmp_path), to="rfdetr", out=tmp_path / "out")
    folder = tmp_path / "out" / "train"
    loaded = CocoDetection(folder, folder / FILE_NAME)
    assert len(loaded) == 2 and [len(objects) for _, objects in loaded] == [2, 1]
    assert loaded[0][0].size == (64, 48)
    again = read_dataset(folder)
    assert again.class_names == ("cat", "dog") and not again.errors()
    assert [image.path for image in again.images] == [folder / "a.png", folder / "x" / "a.png"]


def test_a_folder_without_splits_is_written_to_train_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labelme_file(tmp_path / "src" / "a.json", shape(SQUARE))
    for images in ("copy", "link", "none"):
        convert(tmp_path / "src", to="rfdetr", out=tmp_path / images, images=images)
    assert (tmp_path / "link" / "train" / "a.png").samefile(tmp_path / "src" / "a.png")
    assert not (tmp_path / "none" / "train" / "a.png").exists()
    assert "convert a project file to write both splits" in caplog.text


def test_photos_that_are_stored_turned_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labelme_file(tmp_path / "src" / "a.json", shape(SQUARE), image="a.jpg", draw=False)
    photo(tmp_path / "src" / "a.jpg", 48, 64, orientation=6)
    convert(tmp_path / "src", to="rfdetr", out=tmp_path / "out")
    assert "1 photo is stored turned" in caplog.text


def test_nothing_of_a_person_is_replaced(tmp_path: Path) -> None:
    labelme_file(tmp_path / "src" / "a.json", shape(SQUARE))
    own = tmp_path / "out" / "train" / FILE_NAME
    own.parent.mkdir(parents=True)
    own.write_text("{}", "utf-8")
    with pytest.raises(DataError, match="already there"):
        convert(tmp_path / "src", to="rfdetr", out=tmp_path / "out", force=True)
    assert own.read_text("utf-8") == "{}" and not (own.parent / "a.png").exists()
    own.unlink()
    convert(tmp_path / "src", to="rfdetr", out=tmp_path / "out")
    convert(tmp_path / "src", to="rfdetr", out=tmp_path / "out")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(project(tmp_path)), "--to", "rfdetr", "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "valid" / FILE_NAME).is_file()
    capsys.readouterr()
    words = ["--to", "rfdetr", "--out", str(tmp_path / "one.json")]
    assert main(["convert", str(tmp_path / "train"), *words]) == 1
    assert "this format is written to a folder" in capsys.readouterr().err

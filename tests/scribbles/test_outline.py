"""``d2tune outline`` on Labelme files with lines, points and boxes."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from d2tune import api
from d2tune.cli import main
from d2tune.scribbles.reading import read_marks

RING = [[60, 30], [180, 30], [180, 150], [60, 150], [60, 30]]


def shape(kind: str, label: str, points: list[list[float]], **more: Any) -> dict[str, Any]:
    return {"label": label, "shape_type": kind, "points": points, "group_id": None, "flags": {}, **more}


def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two red disks on green (BGR), and their masks."""
    rows, columns = np.mgrid[:200, :400]
    first = (rows - 90) ** 2 + (columns - 120) ** 2 <= 40**2
    second = (rows - 100) ** 2 + (columns - 300) ** 2 <= 30**2
    bgr = np.where((first | second)[..., None], (50, 60, 190), (80, 150, 70))
    noise = np.random.default_rng(0).normal(0, 10, bgr.shape)
    return np.clip(bgr + noise, 0, 255).astype(np.uint8), first, second


def write(folder: Path, shapes: list[dict[str, Any]], *, name: str = "a", **more: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / f"{name}.png"), scene()[0])
    content = {"version": "5.0.1", "flags": {"sharp": True}, "shapes": shapes, "imagePath": f"{name}.png"}
    path = folder / f"{name}.json"
    path.write_text(json.dumps({**content, "imageData": None, "imageHeight": 200, "imageWidth": 400, **more}))
    return path


def filled(polygon: list[list[float]]) -> np.ndarray:
    mask = np.zeros((200, 400), np.uint8)
    cv2.fillPoly(mask, [np.round(polygon).astype(np.int32)], 1)
    return mask.astype(bool)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("method", ["grabcut", "random-walker"])
def test_scribbles_and_a_box(tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]) -> None:
    kept = shape("polygon", "sky", [[0, 0], [30, 0], [30, 9]])
    marks = [
        shape("linestrip", "ball", [[100, 90], [140, 90]]),
        shape("linestrip", "background", RING),
        shape("rectangle", "ball", [[331, 131], [269, 69]]),
        kept,
    ]
    write(tmp_path / "in", marks)
    assert main(["outline", str(tmp_path / "in"), "--method", method]) == 0
    assert capsys.readouterr().out.startswith("2 outlines in 1 file in ")
    out = tmp_path / "in_outlines" / "a.json"
    content = json.loads(out.read_text())
    assert content["flags"] == {"sharp": True}
    assert (out.parent / content["imagePath"]).resolve() == tmp_path / "in" / "a.png"
    sky, first, second = content["shapes"]
    assert sky == kept
    _, left, right = scene()
    for one, mask in ((first, left), (second, right)):
        assert one["label"] == "ball" and one["shape_type"] == "polygon" and one["flags"] == {"prediction": True}
        assert iou(filled(one["points"]), mask) > 0.93


def test_points_of_a_label_mark_one_object_and_groups_mark_several(tmp_path: Path) -> None:
    marks = [
        shape("linestrip", "ball", [[100, 90], [140, 90]], group_id=4),
        shape("point", "ball", [[120, 110]], group_id=4),
        shape("line", "ball", [[290, 100], [310, 100]], group_id=7),
        shape("linestrip", "background", RING, group_id=4),
        shape("linestrip", "background", [[255, 55], [345, 55], [345, 145], [255, 145], [255, 55]], group_id=7),
    ]
    api.outline(write(tmp_path, marks), out=tmp_path / "out")
    shapes = json.loads((tmp_path / "out" / "a.json").read_text())["shapes"]
    assert [one["group_id"] for one in shapes] == [4, 7]
    _, left, right = scene()
    assert iou(filled(shapes[0]["points"]), left) > 0.93
    assert iou(filled(shapes[1]["points"]), right) > 0.93


def test_points_mark_one_object_whatever_comes_before_them(tmp_path: Path) -> None:
    dots = [shape("point", "ball", [[290, 100]]), shape("point", "ball", [[310, 100]])]
    ring = shape("linestrip", "background", [[255, 55], [345, 55], [345, 145], [255, 145], [255, 55]])
    line, other = shape("line", "ball", [[100, 90], [140, 90]]), shape("linestrip", "background", RING)
    for number, marks in enumerate(([line, *dots, ring, other], [dots[0], line, dots[1], ring, other])):
        file = read_marks(write(tmp_path / str(number), marks), background="background")
        assert file is not None
        assert sorted([len(points) for points in one.lines] for one in file.objects) == [[1, 1], [2]]


@pytest.mark.parametrize("is_box_first", [True, False])
def test_scribbles_in_a_box_of_their_group_say_what_is_the_object(tmp_path: Path, is_box_first: bool) -> None:
    # a box around both balls; the line says that the right one is meant
    box = shape("rectangle", "ball", [[75, 45], [335, 135]], group_id=1)
    line = shape("line", "ball", [[285, 100], [315, 100]], group_id=1)
    api.outline(write(tmp_path, [box, line] if is_box_first else [line, box]), out=tmp_path / "out")
    (one,) = json.loads((tmp_path / "out" / "a.json").read_text())["shapes"]
    assert one["group_id"] == 1 and iou(filled(one["points"]), scene()[2]) > 0.93


@pytest.mark.parametrize("label", ["Background", "_background_", "__background__"])
def test_other_spellings_of_the_background_are_not_an_object(tmp_path: Path, label: str) -> None:
    marks = [shape("line", "ball", [[100, 90], [140, 90]]), shape("linestrip", label, RING)]
    assert api.outline(write(tmp_path, marks), out=tmp_path / "out").objects == 1


def test_marks_that_labelme_ignores_stay_as_they_are(tmp_path: Path) -> None:
    ignored = shape("rectangle", "__ignore__", [[5, 5], [20, 20]])
    api.outline(write(tmp_path, [shape("rectangle", "ball", [[80, 50], [161, 131]]), ignored]), out=tmp_path / "out")
    assert json.loads((tmp_path / "out" / "a.json").read_text())["shapes"][0] == ignored


def test_an_image_of_another_size_than_the_file_states(tmp_path: Path) -> None:
    write(tmp_path / "in", [shape("rectangle", "ball", [[80, 50], [161, 131]])], imageHeight=400, imageWidth=800)
    message = failure(tmp_path, "in")
    assert "found 800 x 400 px, an image of 400 x 200 px" in message and "a.json" in message


def test_another_label_for_the_background_and_an_image_in_the_file(tmp_path: Path) -> None:
    marks = [shape("line", "ball", [[100, 90], [140, 90]]), shape("linestrip", "none", RING)]
    data = base64.b64encode(cv2.imencode(".png", scene()[0])[1].tobytes()).decode()
    path = write(tmp_path / "in", marks, imageData=data)
    (tmp_path / "in" / "a.png").unlink()
    api.outline(path, out=tmp_path / "out", background="none")
    content = json.loads((tmp_path / "out" / "a.json").read_text())
    assert content["imageData"] == data, "the file stays whole by itself"
    assert iou(filled(content["shapes"][0]["points"]), scene()[1]) > 0.93


def test_the_folder_is_searched_and_a_persons_file_is_not_overwritten(tmp_path: Path) -> None:
    marks = [shape("rectangle", "ball", [[80, 50], [161, 131]])]
    write(tmp_path / "in", marks)
    write(tmp_path / "in" / "sub", marks, name="b")
    (tmp_path / "in" / "other.json").write_text("[1, 2]")
    result = api.outline(tmp_path / "in", out=tmp_path / "in" / "out")
    assert (result.files, result.objects, result.skipped) == (2, 2, 1)
    assert (tmp_path / "in" / "out" / "sub" / "b.json").is_file()
    assert "--force" in failure(tmp_path, "in", "--out", str(tmp_path / "in" / "out"))
    again = api.outline(tmp_path / "in", out=tmp_path / "in" / "out", force=True)
    assert again.files == 2, "the output folder is not searched"
    changed = tmp_path / "in" / "out" / "a.json"
    changed.write_text(changed.read_text() + " ")
    assert "changed after d2tune wrote it" in failure(tmp_path, "in", "--out", str(tmp_path / "in" / "out"), "--force")


def failure(folder: Path, source: str, *arguments: str) -> str:
    """The line that the command ends with."""
    import contextlib
    import io

    stream = io.StringIO()
    with contextlib.redirect_stderr(stream):
        assert main(["outline", str(folder / source), *arguments]) == 1
    (line,) = stream.getvalue().splitlines()
    return line


INSIDE = shape("line", "ball", [[100, 90], [140, 90]])


@pytest.mark.parametrize(
    ("marks", "words"),
    [
        ([INSIDE], "all scribbles are of one class, 'ball'"),
        ([INSIDE, shape("line", "ball", [[290, 100], [310, 100]])], "all scribbles are of one class, 'ball'"),
        ([shape("linestrip", "background", RING)], "all scribbles are of the background"),
        ([INSIDE | {"group_id": 1}, shape("line", "background", RING[:2], group_id=2)], "one class"),
        ([INSIDE, shape("rectangle", "background", RING[:2])], "a box cannot mark the background"),
        ([INSIDE | {"group_id": 3}, shape("line", "car", [[1, 1], [9, 9]], group_id=3)], "two objects have the group"),
        ([INSIDE | {"label": ""}], "the shape has no label"),
        ([INSIDE | {"points": [[1, "x"]]}], "shape 0"),
        ([INSIDE | {"points": []}], "the shape has no points"),
        ([shape("rectangle", "ball", [])], "the shape has no points"),
        ([shape("rectangle", "ball", [[5, 5]])], "the box is too small"),
        ([INSIDE | {"group_id": "x"}], "group_id is not a whole number"),
        ([shape("rectangle", "ball", [[500, 50], [600, 90]])], "the box is too small"),
        ([shape("line", "ball", [[900, 900], [950, 950]]), shape("line", "background", RING)], "no scribble on the"),
        ([shape("polygon", "ball", RING)], "no Labelme file has scribbles or boxes"),
    ],
)
def test_marks_that_cannot_be_used(tmp_path: Path, marks: list[dict[str, Any]], words: str) -> None:
    write(tmp_path / "in", marks)
    assert words in failure(tmp_path, "in")
    assert not (tmp_path / "in_outlines").exists(), "nothing is written"


def test_a_mistake_in_the_last_file_leaves_no_files(tmp_path: Path) -> None:
    marks = [shape("rectangle", "ball", [[80, 50], [161, 131]])]
    write(tmp_path / "in", marks)
    write(tmp_path / "in", marks, name="b")
    (tmp_path / "in" / "b.png").write_bytes(b"not an image")
    assert "b.png" in failure(tmp_path, "in")
    assert not (tmp_path / "in_outlines").exists()


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    assert "does not exist" in failure(tmp_path, "nowhere")
    path = write(tmp_path / "in", [shape("rectangle", "ball", [[80, 50], [161, 131]])])
    (tmp_path / "in" / "a.png").write_bytes(b"not an image")
    assert "a.png" in failure(tmp_path, "in")
    (tmp_path / "in" / "a.png").unlink()
    assert "the image does not exist" in failure(tmp_path, "in")
    path.write_text("{")
    assert "a.json" in failure(tmp_path, "in")
    assert "the output folder is the folder" in failure(tmp_path, "in", "--out", str(tmp_path / "in"))

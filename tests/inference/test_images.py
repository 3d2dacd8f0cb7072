from pathlib import Path

import numpy as np
import pytest

import d2tune
from d2tune.annotations.io.output_record import EVALUATION
from d2tune.annotations.io.outputs import write_output
from d2tune.annotations.model.options import ReadOptions
from d2tune.annotations.registry import TARGETS
from d2tune.errors import DataError
from d2tune.inference.images import find_images
from tests.annotations.builders import SQUARE, labelme_file, png_base64, shape


def test_images_of_a_folder_in_order_and_deep(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "deep/c.tif", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    root, images = find_images(tmp_path)
    assert root == tmp_path
    assert [path.relative_to(tmp_path).as_posix() for path in images] == ["a.png", "b.JPG", "deep/c.tif"]


def test_a_single_image(tmp_path: Path) -> None:
    path = tmp_path / "one.jpg"
    path.write_bytes(b"")
    assert find_images(path) == (tmp_path, [path])


@pytest.mark.parametrize(
    ("name", "message"), [("none", "the image or folder does not exist"), ("", "the folder has no images")]
)
def test_nothing_to_predict_on(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_images(tmp_path / name)


def test_what_an_evaluation_drew_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"")
    write_output(tmp_path / "contact_sheet.png", b"drawn", kind=EVALUATION)
    assert find_images(tmp_path) == (tmp_path, [tmp_path / "photo.png"])


def embedded(folder: Path) -> Path:
    """Two annotated images, of which one exists only inside its Labelme file."""
    labelme_file(folder / "a.json", shape(SQUARE))
    data = png_base64(np.full((48, 64, 3), 200))
    labelme_file(folder / "b.json", shape(SQUARE), draw=False, imageData=data)
    return folder


def images_below(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_images(folder)[1]]


@pytest.mark.parametrize("to", TARGETS)
def test_photos_that_a_conversion_copied_are_predicted_on_and_its_labels_are_not(tmp_path: Path, to: str) -> None:
    source, out = embedded(tmp_path / "in"), tmp_path / "out"
    preset = {"options": ReadOptions(preset="airbus")} if to == "rle" else {}
    (result,) = d2tune.convert(source, out=out, to=to, **preset)
    assert len(result.dataset.images) == 2
    folder = {"coco": "", "rle": "", "rfdetr": "train/"}.get(to, "images/")
    names = [f"{folder}a.png", f"{folder}b.png"]
    assert images_below(out) == (["b.png"] if to == "labelme" else names)


@pytest.mark.parametrize("to", ["semantic", "panoptic", "cityscapes"])
def test_label_images_that_were_written_beside_photos_are_not_predicted_on(tmp_path: Path, to: str) -> None:
    source = tmp_path / "photos"
    labelme_file(source / "a.json", shape(SQUARE), image="a.jpg")
    d2tune.convert(source, out=source, to=to)
    assert list(source.rglob("*.png")) and images_below(source) == ["a.jpg"]

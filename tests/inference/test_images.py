from pathlib import Path

import pytest

from d2tune.annotations.io.output_record import EVALUATION
from d2tune.annotations.io.outputs import write_output
from d2tune.errors import DataError
from d2tune.inference.images import find_images


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

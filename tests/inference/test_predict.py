from pathlib import Path

import pytest

from d2tune.errors import DataError
from d2tune.inference.predict import find_pictures


def test_pictures_of_a_folder_in_order_and_deep(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "deep/c.tif", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    root, pictures = find_pictures(tmp_path)
    assert root == tmp_path
    assert [path.relative_to(tmp_path).as_posix() for path in pictures] == ["a.png", "b.JPG", "deep/c.tif"]


def test_a_single_picture(tmp_path: Path) -> None:
    path = tmp_path / "one.jpg"
    path.write_bytes(b"")
    assert find_pictures(path) == (tmp_path, [path])


@pytest.mark.parametrize(("name", "told"), [("none", "no such picture or folder"), ("", "no pictures")])
def test_nothing_to_predict_on(tmp_path: Path, name: str, told: str) -> None:
    with pytest.raises(DataError, match=told):
        find_pictures(tmp_path / name)

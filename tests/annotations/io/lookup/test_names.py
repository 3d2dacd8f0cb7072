"""What the texts in annotation files can stand for; the right names are written by hand."""

from __future__ import annotations

import pytest

from d2tune.annotations.io.lookup.name_index import NameIndex
from d2tune.annotations.io.lookup.names import base_names, folded, path_ends, stem_of, steps_of


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a.jpg", ["a.jpg"]),
        ("D:\\work\\photos\\a.jpg", ["a.jpg"]),
        ("C:a.jpg", ["C:a.jpg"]),
        ("shot 12:30.jpg", ["shot 12:30.jpg"]),
        ("\\\\server\\share\\a.jpg", ["a.jpg"]),
        ("..\\..\\label-studio\\media\\upload\\4\\cb06-a.jpg", ["cb06-a.jpg", "a.jpg"]),
        ("/data/upload/1/0a1b2c3d-b%20c.jpg", ["0a1b2c3d-b%20c.jpg", "0a1b2c3d-b c.jpg", "b%20c.jpg", "b c.jpg"]),
        ("images\\1/cb07-b.jpg", ["cb07-b.jpg"]),
        ("images/0a1b2c3d-b.jpg", ["0a1b2c3d-b.jpg", "b.jpg"]),
        ("data/local-files/?d=images/a%20b.jpg", ["a%20b.jpg", "a b.jpg", "local-files"]),
        ("http://host:8080/x/a.jpg?token=1/2&x=3", ["2&x=3", "a.jpg"]),
        ("https://host/x/a.jpg#frame=1", ["a.jpg#frame=1", "a.jpg"]),
        ("s3://bucket/folder/a.jpg", ["a.jpg"]),
        ("file:///home/me/a%C3%A9.jpg", ["a%C3%A9.jpg", "aé.jpg"]),
        ("照片 😀 #1%20.jpg", ["照片 😀 #1%20.jpg", "照片 😀 #1 .jpg"]),
        ("../..", []),
        ("/", []),
    ],
)
def test_base_names(text: str, names: list[str]) -> None:
    assert base_names(text) == names


def test_ends_of_paths_are_the_longest_first() -> None:
    assert list(path_ends("D:\\x\\train\\a.jpg")) == [("x", "train", "a.jpg"), ("train", "a.jpg")]
    assert list(path_ends("a.jpg")) == []
    assert steps_of("file:///a/./b/../c.jpg") == ("a", "b", "c.jpg")
    assert [len(end) for end in path_ends("a/" * 3000 + "a.jpg")] == list(range(100, 1, -1))


def test_stems_and_folded_names() -> None:
    assert [stem_of(name) for name in ("a.jpg", "a.b.c.jpg", ".hidden", "a")] == ["a", "a.b.c", ".hidden", "a"]
    composed, decomposed = "Gr\u00f6\u00dfe.JPG", "gro\u0308\u00dfe.jpg"
    assert composed != decomposed and folded(composed) == folded(decomposed)


def test_an_index_finds_names_in_every_form_and_the_nearest_one() -> None:
    index = NameIndex(
        ["x/IMG_1.JPG", "y/img_1.jpg", "y/IMG_2.JPG", *(f"n/frame_{number:05}.png" for number in range(2000))]
    )
    assert index.same_name("IMG_1.JPG") == ["x/IMG_1.JPG"]
    assert index.same_stem("IMG_2") == ["y/IMG_2.JPG"]
    assert index.same_folded_name("Img_1.jpg") == ["x/IMG_1.JPG", "y/img_1.jpg"]
    assert index.same_folded_stem("img_2") == ["y/IMG_2.JPG"]
    assert index.nearest("frame_01234x.png") == "n/frame_01234.png"
    assert index.nearest("rame_01234.png") == "n/frame_01234.png"
    assert index.nearest("~") is None and NameIndex([]).nearest("a.png") is None

"""Where images are found that are not at the path named; each right place is written by hand."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest

from d2tune.annotations.io.places import ImageFinder, Place
from tests.annotations.builders import photo


def files(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def find(root: Path, text: object, *, near: str = "", stem: str | None = None, **options: Any) -> Place:
    folders = tuple(dict.fromkeys((root / near, root)))
    return ImageFinder(root, **options).find(text, folders=folders, stem=stem)


HERE = ("ann/x.json", "ann/a.jpg", "photos/b.png", "photos/0a1b2c3d-c.png", "photos/IMG_1.JPG", "photos/d e.png")


@pytest.mark.parametrize(
    ("text", "file_name"),
    [
        ("D:\\work\\photos\\a.jpg", "ann/a.jpg"),
        ("/home/me/a.jpg", "ann/a.jpg"),
        ("C:/other/b.png", "photos/b.png"),
        ("/mnt/disk/photos/b.png", "photos/b.png"),
        ("..\\..\\media\\upload\\4\\0a1b2c3d-b.png", "photos/b.png"),
        ("/data/upload/4/0a1b2c3d-c.png", "photos/0a1b2c3d-c.png"),
        ("data/local-files/?d=photos/d%20e.png", "photos/d e.png"),
        ("https://host/files/d%20e.png?x=1", "photos/d e.png"),
        ("a.png", "ann/a.jpg"),
        ("b.tif", "photos/b.png"),
        ("img_1.jpg", "photos/IMG_1.JPG"),
        ("Img_1.png", "photos/IMG_1.JPG"),
        ("PHOTOS/B.PNG", "photos/b.png"),
    ],
)
def test_an_image_elsewhere_is_used_with_both_names(tmp_path: Path, text: str, file_name: str) -> None:
    place = find(files(tmp_path, *HERE), text, near="ann")
    assert (place.path, place.file_name) == (tmp_path / file_name, file_name)
    assert place.detour is not None and text in place.detour and file_name in place.detour


@pytest.mark.parametrize("text", ["a.jpg", "../photos/b.png", "photos\\b.png", "..\\photos\\..\\ann\\a.jpg"])
def test_an_image_at_the_path_named_is_not_a_detour(tmp_path: Path, text: str) -> None:
    place = find(files(tmp_path, *HERE), text, near="ann")
    assert place.path is not None and place.detour is None


def test_names_in_another_unicode_form(tmp_path: Path) -> None:
    composed = "Gr\u00f6\u00dfe \u00e9.jpg"
    for disk, text in (("NFD", "NFC"), ("NFC", "NFD")):
        root = tmp_path / disk
        name = unicodedata.normalize(disk, composed)  # type: ignore[arg-type]
        photo(root / name)
        place = find(root, unicodedata.normalize(text, composed))  # type: ignore[arg-type]
        assert place.path == root / name
        assert place.detour is not None and "Unicode form" in place.detour


def test_the_image_with_the_name_of_the_annotation_file(tmp_path: Path) -> None:
    root = files(tmp_path, "new.jpg", "sub/other.jpg")
    for text in ("old.jpg", "D:\\x\\old.png", None, ""):
        place = find(root, text, stem="new")
        assert place.file_name == "new.jpg" and place.detour is not None
    assert find(root, "old.jpg").path is None, "a file of many images has no image of its own"
    assert find(root, "old.jpg", stem="old").path is None


@pytest.mark.parametrize(
    ("text", "stem", "listed"),
    [
        ("D:\\a.jpg", None, "2 images may be meant: p/a.jpg, q/a.jpg"),
        ("one.png", "two", "2 images may be meant: one.jpg, two.jpg"),
        ("K.png", "k", "2 images may be meant: x/K.jpeg, x/k.JPG"),
        ("B.JPG", None, "2 images may be meant: p/b.jpg, q/b.Jpg"),
        ("m.png", None, "6 images may be meant: 1/m.png, 2/m.png, 3/m.png, 4/m.png and 2 more"),
    ],
)
def test_several_candidates_are_refused_and_listed(tmp_path: Path, text: str, stem: str | None, listed: str) -> None:
    names = ("p/a.jpg", "q/a.jpg", "one.jpg", "two.jpg", "x/k.JPG", "x/K.jpeg", "p/b.jpg", "q/b.Jpg")
    place = find(files(tmp_path, *names, *(f"{number}/m.png" for number in range(1, 7))), text, stem=stem)
    assert (place.path, place.code) == (None, "image_ambiguous")
    assert place.problem is not None and place.problem.endswith(listed)


def test_the_end_of_the_path_separates_equal_names(tmp_path: Path) -> None:
    root = files(tmp_path, "cats/001.jpg", "dogs/001.jpg", "deep/cats/001.jpg")
    assert find(root, "/home/me/set/dogs/001.jpg").file_name == "dogs/001.jpg"
    assert find(root, "E:\\set\\deep\\cats\\001.jpg").file_name == "deep/cats/001.jpg"
    assert find(root, "/home/me/birds/001.jpg").code == "image_ambiguous"


def test_the_image_beside_the_annotation_file_comes_before_others_of_its_name(tmp_path: Path) -> None:
    root = files(tmp_path, "x/001.jpg", "y/001.jpg", "x/001.json")
    assert find(root, "D:\\001.jpg", near="x").file_name == "x/001.jpg"
    photos = files(tmp_path / "photos", "001.jpg")
    finder = ImageFinder(photos, limits=[root / "x"])
    place = finder.find("D:\\001.jpg", folders=(root / "x", photos))
    assert place.code == "image_ambiguous", "the image root that was named has one too"


def test_masks_are_not_taken_for_images(tmp_path: Path) -> None:
    root = files(tmp_path, "masks/a.png", "SegmentationClass/b.png", "set/labels/c.png")
    for text in ("a.jpg", "b.jpg", "c.jpg", "D:\\a.png"):
        assert find(root, text).path is None


def test_a_detour_never_leads_out_of_the_root(tmp_path: Path) -> None:
    files(tmp_path / "secret", "s.png")
    root = files(tmp_path / "data", "a.json")
    (root / "s.png").symlink_to(tmp_path / "secret" / "s.png")
    (root / "all").symlink_to(tmp_path / "secret")
    for text in ("D:\\s.png", "/x/all/s.png", "s.jpg", "S.PNG"):
        assert find(root, text, stem="s").path is None
    assert "is reached by a link" in str(find(root, "s.png").problem)
    assert find(root, "../secret/s.png").hint == "set its folder with --image-root, or allow it with --allow-outside"
    all_options: list[dict[str, Any]] = [{"follow_links": True}, {"allow_outside": True}]
    for options in all_options:
        assert find(root, "s.png", **options).file_name == "s.png"
        assert find(root, "all/s.png", **options).file_name == "all/s.png"
    files(tmp_path / "other", "t.png")
    assert find(root, "../other/t.png", follow_links=True).path is None
    assert find(root, "../secret/s.png", limits=[tmp_path / "secret"]).file_name == "../secret/s.png"


def test_an_existing_image_outside_gives_way_to_one_of_its_name_inside(tmp_path: Path) -> None:
    original = files(tmp_path / "home", "a.jpg") / "a.jpg"
    root = files(tmp_path / "copy", "a.jpg", "b.jpg")
    place = find(root, str(original))
    assert place.file_name == "a.jpg" and "outside the data root" in str(place.detour)
    (root / "a.jpg").unlink()
    assert find(root, str(original), stem="b").path is None, "an image of another name is not taken instead of it"


def test_a_missing_image_names_the_places_and_the_nearest_name_on_one_line(tmp_path: Path) -> None:
    root = files(tmp_path, "sub/IMG_0071.png")
    place = find(root, "D:\\x\\IMG_0017.png", near="ann")
    assert place.code == "image_missing" and place.hint == "the nearest name is sub/IMG_0071.png"
    assert (
        place.problem
        == f"the image D:/x/IMG_0017.png does not exist, nor does an image IMG_0017.png below {root} or in ann"
    )
    (root / "gone.png").symlink_to(root / "cache" / "gone.png")
    assert str(root / "cache" / "gone.png") in str(find(root, "gone.png").problem)
    assert find(tmp_path / "nothing", "a.png").hint == "name the folder of the images with --image-root or data.images"


@pytest.mark.parametrize(
    "text", ["", " ", "\0", 7, None, ["a"], "..", "/", "a" * 300 + ".png", "\ud800.png", "?d=", "%00.png"]
)
def test_odd_names_are_problems_and_never_exceptions(tmp_path: Path, text: object) -> None:
    place = find(files(tmp_path, "a.png"), text)
    assert place.path is None and place.problem


def test_formats_that_name_images_by_base_names_or_without_suffix(tmp_path: Path) -> None:
    root = files(tmp_path, "deep/a.png")
    finder, folders = ImageFinder(root), (root,)
    assert finder.find("a.png", folders=folders, in_subfolders=True).detour is None
    assert finder.find("a.png", folders=folders).detour is not None
    assert finder.find("a", folders=folders, without_suffix=True).detour is None
    assert finder.find("a", folders=folders).detour is not None
    assert finder.find("", folders=folders, stem="a", without_suffix=True).path == root / "deep" / "a.png"

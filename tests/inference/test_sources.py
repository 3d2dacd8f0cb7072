"""The images that sources stand for: folders, patterns and lists, each image once."""

from pathlib import Path

import pytest

from d2tune.annotations.io.output_record import ANNOTATIONS, DRAWING
from d2tune.annotations.io.outputs import write_output
from d2tune.errors import DataError, ProjectError
from d2tune.inference.images import find_images
from d2tune.inference.sources import SourceImages, find_source_images, is_video

FILES = ("one/a.jpg", "one/b.png", "one/deep/a.jpg", "two/a.jpg", "two/notes.txt", "two/.hidden.jpg", "c.jpg")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(result: SourceImages) -> list[str]:
    return [path.relative_to(result.root).as_posix() for path in result.paths]


@pytest.mark.parametrize(
    ("sources", "root", "expected"),
    [
        (["one"], "one", ["a.jpg", "b.png", "deep/a.jpg"]),
        (["c.jpg"], ".", ["c.jpg"]),
        (["one", "two"], ".", ["one/a.jpg", "one/b.png", "one/deep/a.jpg", "two/a.jpg"]),
        (["two", "one/deep"], ".", ["two/a.jpg", "one/deep/a.jpg"]),
        (["one/deep", "one", "./one/a.jpg"], "one", ["deep/a.jpg", "a.jpg", "b.png"]),
        (["one/a.jpg", "one/b.png", "one/a.jpg"], "one", ["a.jpg", "b.png"]),
        (["*/*.jpg"], ".", ["one/a.jpg", "two/a.jpg"]),
        (["one/*"], "one", ["a.jpg", "b.png", "deep/a.jpg"]),
        (["one/**/a.*"], "one", ["a.jpg", "deep/a.jpg"]),
        (["**"], ".", ["c.jpg", "one/a.jpg", "one/b.png", "one/deep/a.jpg", "two/a.jpg"]),
        (["two/[an]*"], "two", ["a.jpg"]),
        (["*/a.???", "c.jpg"], ".", ["one/a.jpg", "two/a.jpg", "c.jpg"]),
    ],
)
def test_sources(sources: list[str], root: str, expected: list[str]) -> None:
    result = find_source_images(sources, find_images)
    assert (result.root, names(result), result.missing) == (Path(root), expected, ())


def test_sources_with_absolute_paths(here: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "x.jpg").write_bytes(b"")
    result = find_source_images([here / "one" / "deep", elsewhere], find_images)
    assert result.paths == [here / "one" / "deep" / "a.jpg", elsewhere / "x.jpg"]
    assert result.root == here.parent and len(set(names(result))) == 2
    assert find_source_images([here / "one", "one"], find_images).root == Path("one")


def test_a_name_that_exists_is_not_a_pattern(here: Path) -> None:
    (here / "set[1]").mkdir()
    (here / "set[1]" / "x.jpg").write_bytes(b"")
    assert names(find_source_images(["set[1]"], find_images)) == ["x.jpg"]


def test_a_pattern_stands_for_no_outputs(here: Path) -> None:
    write_output(here / "one" / "label.png", b"", kind=ANNOTATIONS)
    write_output(here / "one" / "z.png", b"", kind=DRAWING)
    (here / "one" / "a.jpg.predicted.jpg").write_bytes(b"")
    assert names(find_source_images(["one/*.*g"], find_images)) == ["a.jpg", "b.png"]


def test_a_list_is_relative_to_itself(here: Path) -> None:
    lines = ["a.jpg", "", "./deep/a.jpg\r", "a.jpg", "gone.jpg", "deep\\a.jpg", str(here / "two" / "a.jpg"), "deep"]
    (here / "one" / "all.txt").write_text("\n".join(lines), "utf-8")
    result = find_source_images(["one/all.txt"], find_images)
    assert names(result) == ["one/a.jpg", "one/deep/a.jpg", "two/a.jpg"] and result.root == Path()
    assert result.missing == (
        "one/all.txt: line 5: the image does not exist; found gone.jpg",
        "one/all.txt: line 8: the image does not exist; found deep",
    )
    both = find_source_images(["one/all.txt", "c.jpg"], find_images)
    assert names(both)[-1] == "c.jpg" and both.missing == result.missing


def test_a_list_of_the_split_command_is_relative_to_the_folder_above(here: Path) -> None:
    (here / "one" / "splits").mkdir()
    (here / "one" / "splits" / "val.txt").write_bytes(b"\xef\xbb\xbfb.png\ndeep/a.jpg\n")
    result = find_source_images(["one/splits/val.txt"], find_images)
    assert (result.root, names(result)) == (Path("one"), ["b.png", "deep/a.jpg"])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("gone", "gone: the image or folder does not exist"),
        ("gone.txt", "gone.txt: the list does not exist"),
        ("empty.txt", "empty.txt: the list is empty; expected a path of an image on each line"),
        (
            "wrong.txt",
            r"wrong.txt: none of the listed images exists; found wrong.txt: line 2: .*; found x.jpg;",
        ),
        ("*/*.bmp", r"\*/\*.bmp: the pattern stands for no image; found no such file or folder. Patterns have"),
        ("two/no*", r"the pattern stands for no image. Patterns"),
        ("raw/*", "the pattern stands for no image; found 1 HEIC file; HEIC images are not read"),
        ("none", "none: the folder has no images"),
    ],
)
def test_sources_without_images(here: Path, source: str, message: str) -> None:
    (here / "empty.txt").write_text("\n \n", "utf-8")
    (here / "wrong.txt").write_text("\nx.jpg\n", "utf-8")
    (here / "none").mkdir()
    (here / "raw").mkdir()
    (here / "raw" / "a.heic").write_bytes(b"")
    with pytest.raises(DataError, match=message):
        find_source_images(["one", source], find_images)


def test_an_empty_source() -> None:
    with pytest.raises(ProjectError, match="source: the path is empty"):
        find_source_images(["one", ""], find_images)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("clip.MP4", True),
        ("0", True),
        ("12", True),
        ("rtsp://camera/stream", True),
        ("http://127.0.0.1:8000/a.mjpg", True),
        ("a.gif", False),
        ("one", False),
        ("7", False),
        ("folder.mp4", False),
        ("-1", False),
    ],
)
def test_videos(here: Path, source: str, expected: bool) -> None:
    (here / "7").mkdir()
    (here / "folder.mp4").mkdir()
    assert is_video(source) is expected

"""No output goes over an input, or over a file that d2tune did not write as the same kind of output."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image as PilImage

from d2tune.annotations.convert import convert
from d2tune.annotations.io.output_record import NAME, PREDICTIONS, claim, read_record, settle
from d2tune.annotations.io.outputs import beside, protected, refuse_existing, write_output, write_output_json
from d2tune.annotations.model.dataset import Image
from d2tune.errors import DataError
from tests.annotations.builders import labelme_file, shape

SQUARE = [[10, 10], [20, 10], [20, 20], [10, 20]]


def refusal(path: Path, *, force: bool = True, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        refuse_existing([path], force=force, **options)  # type: ignore[arg-type]
    line = caught.value.one_line()
    assert line.startswith(f"{path}: ") and "\n" not in line
    return line


def test_only_own_files_are_replaced_and_only_with_force(tmp_path: Path) -> None:
    own, mine = tmp_path / "own.json", tmp_path / "mine.json"
    write_output_json(own, {"a": 1})
    mine.write_text("{}")
    assert "--force" in refusal(own, force=False)
    refuse_existing([own, tmp_path / "new.json"], force=True)
    for force in (False, True):
        assert "d2tune did not write it as annotations" in refusal(mine, force=force)
    with pytest.raises(DataError, match=r"mine\.json: the file is already there and is not overwritten\. d2tune did"):
        refuse_existing([own, mine], force=True)
    theirs = tmp_path / "theirs.json"
    theirs.write_text("{}")
    with pytest.raises(DataError, match=r"mine\.json: the file .* is not overwritten \(and 1 more\)\. d2tune did"):
        refuse_existing([own, mine, theirs], force=True)


def test_a_file_that_was_changed_is_a_persons(tmp_path: Path) -> None:
    path = write_output(tmp_path / "a.txt", b"written")
    path.write_text("corrected")
    assert "It was changed after d2tune wrote it" in refusal(path)
    path.write_text("written")
    refuse_existing([path], force=True)


def test_each_kind_replaces_its_own_only(tmp_path: Path) -> None:
    path = write_output(tmp_path / "a.png", b"label image")
    assert "d2tune did not write it as predictions" in refusal(path, kind=PREDICTIONS)
    write_output(path, b"label map", kind=PREDICTIONS)
    refuse_existing([path], force=True, kind=PREDICTIONS)
    assert "It was changed after" in refusal(path)


def test_a_link_is_not_replaced(tmp_path: Path) -> None:
    path = write_output(tmp_path / "a.txt", b"written")
    (tmp_path / "photo.txt").write_bytes(b"written")
    path.unlink()
    path.symlink_to(tmp_path / "photo.txt")
    assert "It was changed after" in refusal(path)
    path.unlink()
    path.symlink_to(tmp_path / "nothing")
    assert "already there" in refusal(path)


def test_an_interrupt_between_record_and_file_loses_nothing(tmp_path: Path) -> None:
    """The record has the content that did not come; the file has the content before."""
    path = write_output(tmp_path / "a.txt", b"first")
    with (tmp_path / NAME).open("ab") as stream:
        stream.write(b'{"path": "a.txt", "kind": "annotations", "sha256": "00"}\n{"path": "a.t')
    refuse_existing([path], force=True)
    assert len(read_record(tmp_path)["a.txt"]) == 2


def test_claimed_files_are_own_until_they_are_settled(tmp_path: Path) -> None:
    path = tmp_path / "plots" / "a.png"
    claim([path], PREDICTIONS)
    path.write_text("a plot")
    refuse_existing([path], force=True, kind=PREDICTIONS)
    settle([path], PREDICTIONS)
    refuse_existing([path], force=True, kind=PREDICTIONS)
    path.write_text("my plot")
    assert "It was changed after" in refusal(path, kind=PREDICTIONS)


def test_names_that_are_not_text_are_recorded(tmp_path: Path) -> None:
    for name in (b"a\xff.txt", b"line\nfeed.txt"):
        path = write_output(tmp_path / os.fsdecode(name), b"content")
        refuse_existing([path], force=True)
        path.write_bytes(b"other")
        with pytest.raises(DataError, match="It was changed after"):
            refuse_existing([path], force=True)


def test_inputs_are_never_replaced(tmp_path: Path) -> None:
    path = write_output(tmp_path / "a.txt", b"content")
    (tmp_path / "link.txt").symlink_to(path)
    with protected(lambda: [tmp_path / "link.txt", tmp_path / "missing"]):
        assert "the output would replace an input of this command" in refusal(path)
    refuse_existing([path], force=True)


@pytest.mark.parametrize("to", ["semantic", "panoptic", "labelme", "coco", "rle"])
def test_a_conversion_into_the_folder_of_its_source_replaces_nothing(tmp_path: Path, to: str) -> None:
    """Label images have the names of the photos; Labelme files those of the source."""
    for folder in (tmp_path, tmp_path / "panoptic", tmp_path / "stuff"):
        folder.mkdir(exist_ok=True)
        PilImage.new("RGB", (64, 48), (1, 2, 3)).save(folder / "a.png")
        labelme_file(folder / "a.json", shape(SQUARE, "cat"), image="a.png")
    (tmp_path / "annotations.json").write_text("[]")
    (tmp_path / "train.csv").write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for force in (False, True):
        with pytest.raises(DataError):
            convert(tmp_path, out=tmp_path / "train.csv" if to == "rle" else tmp_path, to=to, force=force)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_own_file_that_is_the_source_is_not_replaced(tmp_path: Path) -> None:
    labelme_file(tmp_path / "src" / "a.json", shape(SQUARE, "cat"), image="a.png")
    PilImage.new("RGB", (64, 48)).save(tmp_path / "src" / "a.png")
    (first,) = convert(tmp_path / "src", out=tmp_path / "out", to="labelme").paths
    (PilImage.new("RGB", (64, 48))).save(tmp_path / "out" / "a.png")
    with pytest.raises(DataError, match="the output would replace an input"):
        convert(tmp_path / "out", out=tmp_path / "out", to="labelme", force=True)
    convert(tmp_path / "src", out=tmp_path / "out", to="labelme", force=True)
    assert first.is_file()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["one.jpg", "one.png", "sub/one.jpg"], ["one.jpg.png", "one.png.png", "sub/one.png"]),
        (["a.png", "a.jpg", "a.png.png"], ["a.png.png", "a.jpg.png", "a.png.png.png"]),
        (["a.b.jpg", "a.jpg"], ["a.b.png", "a.png"]),
    ],
)
def test_no_two_images_get_the_same_file(names: list[str], expected: list[str], tmp_path: Path) -> None:
    images = [Image(number, name, 1, 1) for number, name in enumerate(names, start=1)]
    places = [path.relative_to(tmp_path).as_posix() for path in beside(images, tmp_path, ".png").values()]
    assert places == expected

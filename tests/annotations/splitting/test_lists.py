from __future__ import annotations

import logging
from pathlib import Path

import pytest

from d2tune.annotations.convert import check, convert, read_dataset, read_rename
from d2tune.annotations.model.options import ReadOptions
from d2tune.annotations.splitting.lists import is_list, read_list, refuse_shared
from d2tune.errors import DataError
from tests.annotations.builders import SQUARE, TRIANGLE, labelme_file, shape


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in "abcd":
        labelme_file(tmp_path / "data" / "day 1" / f"{name}.json", shape(TRIANGLE), shape(SQUARE, f"{name}-kind"))
    return tmp_path / "data"


def listed(path: Path, *names: str, end: str = "\n") -> Path:
    path.write_bytes("".join(f"{name}{end}" for name in names).encode())
    return path


def test_only_listed_images_are_kept(folder: Path, tmp_path: Path) -> None:
    path = listed(tmp_path / "some.txt", "day 1/d.png", "day 1/b.png")
    kept = read_dataset(folder, options=ReadOptions(image_list=path))
    assert [image.file_name for image in kept.images] == ["day 1/b.png", "day 1/d.png"]
    assert [(instance.id, instance.image_id) for instance in kept.instances] == [(1, 1), (2, 1), (3, 2), (4, 2)]
    assert kept.counts() == {"a-kind": 0, "b-kind": 1, "c-kind": 0, "cat": 2, "d-kind": 1}
    assert [(row.image, row.instances) for row in kept.ledger] == [
        *(("day 1/b.png", (1,)), ("day 1/b.png", (2,)), ("day 1/d.png", (3,)), ("day 1/d.png", (4,)))
    ]
    out = convert(folder, out=tmp_path / "out.json", options=ReadOptions(image_list=path))
    assert len(out.dataset.images) == 2


def test_findings_of_other_images_are_excluded(folder: Path, tmp_path: Path) -> None:
    labelme_file(folder / "e.json", shape([[1, 1], [2, 2]]))
    path = listed(tmp_path / "some.txt", "day 1/b.png")
    assert check(folder).findings and not check(folder, options=ReadOptions(image_list=path)).findings
    (folder / "f.json").write_text("{", "utf-8")
    with pytest.raises(DataError, match=r"f\.json"):
        read_dataset(folder, options=ReadOptions(image_list=path)).raise_on_errors()


def test_lists_as_other_programs_write_them(folder: Path, tmp_path: Path) -> None:
    path = listed(tmp_path / "some.TXT", "\ufeffday 1\\a.png", "", "./day 1/c.png", end="\r\n")
    assert is_list(path) and not is_list("train")
    assert read_list(path) == {"day 1/a.png": 1, "day 1/c.png": 3}
    assert len(read_dataset(folder, options=ReadOptions(image_list=path)).images) == 2


def test_an_unknown_name_is_reported_with_list_line_and_nearest_name(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = listed(tmp_path / "some.txt", "day 1/a.png", "day1/b.png")
    with pytest.raises(DataError) as caught:
        read_dataset(folder, options=ReadOptions(image_list=path))
    assert str(caught.value) == (
        f"{path}: line 2: day1/b.png is not among the annotated images. Did you mean day 1/b.png?"
    )
    with caplog.at_level(logging.WARNING):
        kept = read_dataset(folder, options=ReadOptions(image_list=path, skip_bad=True))
    assert len(kept.images) == 1 and "day1/b.png" in caplog.text


@pytest.mark.parametrize(
    ("names", "message"),
    [([], "the list is empty"), (["a.png", "b.png", "./a.png"], "line 3: the list names an image twice")],
)
def test_invalid_lists_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_list(listed(tmp_path / "some.txt", *names))


def test_a_list_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.txt: the list cannot be read \(No such file"):
        read_list(tmp_path / "none.txt")


def test_two_lists_with_an_image_in_common(tmp_path: Path) -> None:
    first = listed(tmp_path / "train.txt", "a.png", "b.png")
    second = listed(tmp_path / "val.txt", "c.png", "d.png", "./b.png")
    with pytest.raises(DataError, match=rf"val.txt: line 3: b.png is in {first} too, line 2"):
        refuse_shared(first, second)
    refuse_shared(first, listed(tmp_path / "test.txt", "c.png"))


def test_rename_and_drop() -> None:
    assert read_rename("cat=animal, dog = animal,a=b=c", "sky,road ,") == {
        **{"cat": "animal", "dog": "animal", "a": "b=c", "sky": None, "road": None}
    }
    assert read_rename("", "") == {}
    for pairs, dropped, message in [
        ("cat", "", "'cat'"),
        ("cat=", "", "OLD=NEW"),
        ("=x", "", "OLD"),
        ("a=b", "a", "twice"),
    ]:
        with pytest.raises(DataError, match=message):
            read_rename(pairs, dropped)

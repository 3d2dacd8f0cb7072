from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from d2tune.annotations.model.dataset import Image
from d2tune.annotations.splitting.sharing import refuse_shared_images, shared_images, sharing_findings
from d2tune.errors import DataError
from tests.annotations.builders import photo
from tests.shared_files import SHARED

PHOTOS = sorted((SHARED / "data" / "microcontrollers" / "test").glob("*.jpg"))


def images(*paths: Path) -> list[Image]:
    return [Image(number, path.name, 64, 48, path) for number, path in enumerate(paths, start=1)]


def test_files_are_compared_by_path_and_by_content(tmp_path: Path) -> None:
    first, second, third = (photo(tmp_path / f"{name}.png") for name in "abc")
    copy = Path(shutil.copy(second, tmp_path / "copy of b.png"))
    link = tmp_path / "link.png"
    link.symlink_to(third)
    pairs = shared_images({"train": images(first, second, third), "val": images(first, copy), "test": images(link)})
    assert [(pair.first.file_name, pair.second.file_name, pair.splits, pair.same_file) for pair in pairs] == [
        ("a.png", "a.png", ("train", "val"), True),
        ("b.png", "copy of b.png", ("train", "val"), False),
        ("c.png", "link.png", ("train", "test"), True),
    ]
    assert shared_images({"train": images(first, copy), "val": images(third)}) == []


def test_copies_within_a_split_are_not_shared(tmp_path: Path) -> None:
    first = photo(tmp_path / "a.png")
    assert shared_images({"train": images(first, Path(shutil.copy(first, tmp_path / "b.png"))), "val": []}) == []


def test_images_without_a_file_are_not_compared(tmp_path: Path) -> None:
    nowhere = [Image(1, "a.png", 64, 48), Image(2, "b.png", 64, 48, tmp_path / "missing.png")]
    assert shared_images({"train": nowhere, "val": nowhere}) == []


def test_the_error_has_the_first_image_and_the_number(tmp_path: Path) -> None:
    paths = [photo(tmp_path / f"{name}.png") for name in "abc"]
    with pytest.raises(DataError) as raised:
        refuse_shared_images({"train": images(*paths[:2]), "val": images(*paths)})
    text = raised.value.one_line()
    assert "the image a.png of the val split is in the train split too" in text
    assert "2 of the 3 images of val in train" in text
    refuse_shared_images({"train": images(paths[0]), "val": images(*paths[1:])})


def test_a_copy_that_was_compressed_again_is_a_warning(tmp_path: Path) -> None:
    from PIL import Image as PilImage

    original, other = PHOTOS[:2]
    again = tmp_path / "again.jpg"
    PilImage.open(original).save(again, quality=40)
    by_split = sharing_findings({"train": images(original), "val": images(again, other)})
    ((name, (finding,)),) = by_split.items()
    assert (name, finding.level, finding.code, finding.also) == ("val", "warning", "near_duplicate", (original.name,))
    assert "again.jpg" in finding.message and original.name in finding.message


def test_equal_content_is_one_finding(tmp_path: Path) -> None:
    copy = Path(shutil.copy(PHOTOS[0], tmp_path / "copy.jpg"))
    (findings,) = sharing_findings({"train": images(PHOTOS[0]), "val": images(copy)}).values()
    assert [(finding.level, finding.code) for finding in findings] == [("error", "shared_image")]

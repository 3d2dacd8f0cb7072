"""Labelme files of predictions and the files that are already there."""

from __future__ import annotations

from pathlib import Path

import pytest

from d2tune.errors import DataError
from d2tune.inference.writers.base import Images, WriterOptions
from d2tune.inference.writers.instance import LabelmeWriter


def test_a_file_of_an_image_with_another_suffix_is_not_overwritten(tmp_path: Path) -> None:
    """The file of ``a.png`` alone has the name that the file of ``a.jpg`` got when it was alone."""
    corrected = tmp_path / "a.json"
    corrected.write_text("corrected", encoding="utf-8")
    images = Images(tmp_path, [tmp_path / "a.png"])
    for force in (False, True):
        with pytest.raises(DataError, match=r"a\.json: the file is already there.*d2tune did not write it"):
            LabelmeWriter(tmp_path, images, None, WriterOptions(force=force))
    LabelmeWriter(tmp_path / "new", images, None, WriterOptions())
    assert corrected.read_text(encoding="utf-8") == "corrected"


def test_some_of_the_images_keep_the_names_of_their_files(tmp_path: Path) -> None:
    images = Images(tmp_path, [tmp_path / name for name in ("a.jpg", "a.png", "b.png")])
    names = ["a.jpg.json", "a.png.json", "b.json"]
    assert [path.name for path in images.output_files(tmp_path, ".json")] == names
    some = images.only([1, 2])
    assert [path.name for path in some.output_files(tmp_path, ".json")] == names[1:]
    assert [path.name for path in some.only([0]).output_files(tmp_path, ".json")] == names[1:2] and some.name(
        0
    ) == "a.png"

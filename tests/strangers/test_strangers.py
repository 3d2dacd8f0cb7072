"""Inputs after public reports: each folder of ``strangers`` gives the right objects and the findings that matter.

``expected.yaml`` has one row for each folder. A row is either

- ``checks``: a list of readings, each with ``source`` (a path in the folder, by default the folder itself), ``format``
  and ``options`` (fields of `ReadOptions`), and what is right: ``images`` (their number), ``instances`` (number by
  class; an unlisted class must not exist), ``crowds`` (number by class), ``areas_px2`` (of all instances in their
  order, crowds included, to 1 px), ``findings`` (number by ``level code``; infos may be left out, errors and warnings
  may not), ``image_ids`` and ``category_ids`` (those of the source, in order), ``fails`` (words of the error that stops
  the reading), or
- ``tests``: where the folder is tested instead, because it is no set of annotations.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from d2tune.annotations.convert import check
from d2tune.annotations.model.options import ReadOptions
from d2tune.errors import DataError
from tests.shared_files import SHARED

STRANGERS = SHARED / "strangers"
EXPECTED: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("expected.yaml").read_text())
READINGS = [
    pytest.param(folder, reading, id=f"{folder}-{number}")
    for folder, row in EXPECTED.items()
    for number, reading in enumerate(row.get("checks", []))
]


def test_every_folder_has_a_row() -> None:
    folders = {path.name for path in STRANGERS.iterdir() if path.is_dir()}
    assert folders == set(EXPECTED)


@pytest.mark.parametrize("folder", [folder for folder, row in EXPECTED.items() if "tests" in row])
def test_folders_tested_elsewhere_are_named_there(folder: str) -> None:
    for name in EXPECTED[folder]["tests"]:
        text = (Path(__file__).parents[2] / name).read_text()
        assert folder in text, f"{name} does not use {folder}"


@pytest.mark.parametrize(("folder", "reading"), READINGS)
def test_reading_is_right(folder: str, reading: dict[str, Any]) -> None:
    source = STRANGERS / folder / reading.get("source", ".")
    options = ReadOptions(**_options(STRANGERS / folder, reading.get("options", {})))
    if "fails" in reading:
        with pytest.raises(DataError) as raised:
            check(source, format=reading.get("format", "auto"), options=options)
        for words in reading["fails"]:
            assert words in raised.value.one_line()
        return
    result = check(source, format=reading.get("format", "auto"), options=options)
    dataset = result.dataset
    name_of = {category.id: category.name for category in dataset.categories}
    of_class = Counter(name_of[instance.category_id] for instance in dataset.instances if not instance.iscrowd)
    crowds = Counter(name_of[instance.category_id] for instance in dataset.instances if instance.iscrowd)
    assert {name: of_class[name] for name in name_of.values()} == reading["instances"]
    assert dict(crowds) == reading.get("crowds", {})
    areas = [instance.area_px2 for instance in dataset.instances]
    assert areas == pytest.approx(reading["areas_px2"], abs=1)
    if "images" in reading:
        assert len(dataset.images) == reading["images"]
    if "image_ids" in reading:
        assert [image.source_id for image in dataset.images] == reading["image_ids"]
    if "category_ids" in reading:
        assert [category.source_id for category in dataset.categories] == reading["category_ids"]
    expected = reading.get("findings", {})
    noted = Counter(f"{finding.level} {finding.code}" for finding in result.findings)
    assert {key: count for key, count in noted.items() if key in expected or not key.startswith("info")} == expected


def _options(folder: Path, given: dict[str, Any]) -> dict[str, Any]:
    """The fields with lists as tuples, and paths below the folder."""
    paths = {"image_root", "color_map", "image_list"}
    return {
        key: folder / value if key in paths else tuple(value) if isinstance(value, list) else value
        for key, value in given.items()
    }

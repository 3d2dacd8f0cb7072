"""Labels that differ little are noted, with the way to merge them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from d2tune.annotations.formats.shared.similar_labels import similar_labels
from d2tune.annotations.geometry.polygons import rectangle_points
from d2tune.annotations.model.dataset import Category, Dataset, Image, Instance
from d2tune.checking import check
from tests.annotations.builders import SQUARE, labelme_value, photo, shape


def dataset(**counts: int) -> Dataset:
    """One image with so many instances of each label; underscores of keywords stand for blanks."""
    names = list(counts)
    numbers = [number for number, count in enumerate(counts.values(), start=1) for _ in range(count)]
    square = (rectangle_points((0, 0), (5, 5)),)
    return Dataset(
        (Image(1, "a.png", 9, 9, annotation_file="a.json"),),
        tuple(Category(number, name.replace("_", " ")) for number, name in enumerate(names, start=1)),
        tuple(Instance(place, 1, number, square, (0, 0, 5, 5), 25.0) for place, number in enumerate(numbers, start=1)),
    )


@pytest.mark.parametrize(
    ("counts", "level"),
    [
        ({"baloon": 3, "balloon": 90}, "warning"),
        ({"balloon": 90, "baloon": 3}, "warning"),
        ({"ballonn": 1, "ballon": 9}, "info"),
        ({"ballono": 1, "balloon": 10}, "warning"),
        ({"balxoon": 1, "balloon": 10}, "warning"),
        ({"car": 50, "cars": 40}, "warning"),
        ({"bus": 5, "buses": 5}, "warning"),
        ({"épave": 5, "epave": 5}, "warning"),
        ({"e\u0301pave": 5, "épave": 5}, "warning"),
        ({"traffic_light": 5, "trafficlight": 5}, "warning"),
        ({"Baloon": 3, "balloon": 90}, "warning"),
        ({"horse": 50, "house": 50}, "info"),
    ],
)
def test_labels_that_may_be_one_class(counts: dict[str, int], level: str) -> None:
    ((finding,),) = similar_labels([dataset(**counts)])
    rare, common = sorted(counts, key=lambda name: (counts[name], name))
    rare, common = rare.replace("_", " "), common.replace("_", " ")
    assert (finding.level, finding.code, finding.file) == (level, "similar_labels", "a.json")
    assert repr(rare) in finding.message and repr(common) in finding.message
    assert finding.hint is not None and f"{rare}={common}" in finding.hint and "--rename" in finding.hint
    assert f"data: {{rename: {{{rare}: {common}}}}}" in finding.hint


@pytest.mark.parametrize(
    "counts",
    [
        {"car": 50, "cat": 1},
        {"person1": 5, "person2": 5},
        {"Raspberry_Pi_3": 9, "Raspberry_Pi_4": 1},
        {"level1": 9, "level12": 1},
        {"Cat": 5, "cat": 5},
        {"balloon": 90, "baloon": 0},
        {"window": 5, "widow maker": 5},
        {"a": 5, "b": 5},
        {},
    ],
)
def test_labels_that_are_other_words(counts: dict[str, int]) -> None:
    assert similar_labels([dataset(**counts)]) == [[]]


def test_counts_are_those_of_all_splits() -> None:
    train, val = dataset(balloon=90), dataset(baloon=3)
    first, second = similar_labels([train, val])
    assert first == [] and "'baloon' (3 times) differs little from 'balloon' (90 times)" in second[0].message


def test_many_labels_take_no_time() -> None:
    names = {f"thing{''.join(letters)}": 1 for letters in itertools.product("abcdefgh", repeat=3)}
    (findings,) = similar_labels([dataset(**names)])
    assert len(findings) >= 8**3 * 21 // 2, "each of three letters may be another one of seven"


def test_check_shows_them_and_names_rename(tmp_path: Path) -> None:
    for number in range(12):
        photo(tmp_path / f"{number}.png")
        label = "baloon" if number == 5 else "balloon"
        value = labelme_value(shape(SQUARE, label=label), imagePath=f"{number}.png")
        (tmp_path / f"{number}.json").write_text(json.dumps(value), "utf-8")
    (result,) = check(tmp_path)
    (finding,) = [one for one in result.findings if one.code == "similar_labels"]
    assert (finding.level, finding.file) == ("warning", "5.json")
    (strict,) = check(tmp_path, strict=True)
    assert [one.level for one in strict.findings if one.code == "similar_labels"] == ["error"]

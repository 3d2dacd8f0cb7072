from dataclasses import replace
from pathlib import Path

import pytest

from d2tune.annotations.model.findings import Finding
from d2tune.project import Project
from d2tune.report.check_page.advice import advice, verdict
from d2tune.report.check_page.survey import Checked, Setting, survey
from tests.report.datasets import make_dataset, surveyed


def test_counts_and_sizes_by_hand():
    data = surveyed([(100, 50), (40, 40), (10, 20)], [(1, 1, 0, 0, 30, 30), (1, 2, 5, 5, 8, 2), (2, 1, 0, 0, 10, 40)])
    assert data.sizes_px.tolist() == [30, 4, 20]
    assert data.relative_sizes == pytest.approx([30 / 5000**0.5, 4 / 5000**0.5, 0.5])
    assert data.aspect_ratios.tolist() == [1, 4, 0.25]
    assert data.objects_per_image.tolist() == [2, 1, 0]
    first, second = data.class_rows
    assert (first.name, first.images, first.instances, first.share) == ("a", 2, 2, pytest.approx(2 / 3))
    assert (first.smallest_px, first.median_px, first.largest_px) == (20, 25, 30)
    assert (second.name, second.images, second.instances, second.median_px) == ("b", 1, 1, 4)


def test_a_class_without_instances_has_no_sizes():
    (row,) = surveyed([(9, 9)], [], classes=("a",)).class_rows
    assert (row.instances, row.share, row.median_px) == (0, 0, None)


@pytest.mark.parametrize(
    ("names", "split_of", "expected"),
    [
        (["train/1.png", "Valid/2.png", "3.png"], None, ["train", "val", ""]),
        (["train/1.png", "train/2.png", "3.png"], None, ["", "", ""]),
        (["1.png", "2.png", "3.png"], {"2.png": "test", "1.png": "train"}, ["train", "test", ""]),
    ],
    ids=["folders", "one folder is no split", "lists"],
)
def test_splits(names, split_of, expected):
    data = surveyed([(9, 9)] * 3, [(2, 1, 0, 0, 3, 3)], names=names, split_of=split_of)
    assert [entry.split for entry in data.entries] == expected
    assert list(data.splits) == [split for split in ("train", "val", "test") if split in expected]
    assert sum(data.class_rows[0].by_split) == (1 if expected[1] else 0)


def test_two_sources_are_counted_as_one():
    one = make_dataset([(9, 9)], [(1, 1, 0, 0, 3, 3)], classes=("a", "b"))
    two = make_dataset([(9, 9), (8, 8)], [(1, 1, 0, 0, 3, 3)], classes=("b", "c"))
    data = survey([Checked(Path("x"), one, (), "train"), Checked(Path("y"), two, (), "val")])
    assert data.class_names == ("a", "b", "c")
    assert [entry.image.id for entry in data.entries] == [1, 2, 3]
    assert {row.name: row.by_split for row in data.class_rows} == {"a": (1, 0), "b": (0, 1), "c": (0, 0)}


def titles(*arguments, leaks=0, **options):
    return [one.title for one in advice(surveyed(*arguments, **options), leaks=leaks)]


MANY = [(1, 1, 0, 0, 200, 200)] * 30


@pytest.mark.parametrize(
    ("arguments", "options", "expected"),
    [
        (([(640, 640)], MANY), {"classes": ("a",)}, []),
        (
            ([(640, 640)], [(1, 1, 0, 0, 20, 20)] * 30),
            {"classes": ("a",)},
            ["100 % of the objects are smaller than 32 px"],
        ),
        (
            ([(4000, 3000)], [(1, 1, 0, 0, 100, 100)] * 30),
            {"classes": ("a",)},
            ["100 % of the objects are smaller than 32 px after resizing"],
        ),
        (([(640, 640)], MANY), {}, ["b has no annotations"]),
        (([(640, 640)], [*MANY, (1, 2, 0, 0, 200, 200)]), {}, ["b has fewer than 20 instances"]),
        (
            ([(640, 640)], MANY * 21 + [(1, 2, 0, 0, 200, 200)] * 30),
            {},
            ["a is 21 times as frequent as b", "An image has"],
        ),
        (([(640, 640)], [(1, 1, 0, 0, 400, 50)] * 30), {"classes": ("a",)}, ["100 % of the objects are over 4 times"]),
        (([(640, 640), (3000, 3000)], MANY), {"classes": ("a",)}, ["The largest image is 4.69 times as wide"]),
        (
            ([(640, 640)], MANY),
            {"classes": ("a",), "leaks": 2},
            ["Near-duplicates lie in different splits (2 groups)"],
        ),
        (
            ([(640, 640)] * 2, MANY),
            {"classes": ("a",), "split_of": {"0001.png": "train", "0002.png": "val"}},
            ["a is missing from val"],
        ),
    ],
    ids=[
        "nothing",
        "small",
        "small after resizing",
        "no annotations",
        "scarce",
        "unbalanced",
        "thin",
        "sizes",
        "leak",
        "missing",
    ],
)
def test_advice_is_given_where_the_data_show_it(arguments, options, expected):
    given = titles(*arguments, **options)
    assert len(given) == len(expected)
    assert all(title.startswith(start) for title, start in zip(given, expected, strict=True)), given


def test_advice_speaks_of_the_size_that_the_project_sets():
    arguments = ([(4000, 3000)], [(1, 1, 0, 0, 100, 100)] * 30)
    default = advice(surveyed(*arguments, classes=("a",)))
    assert (
        "By default training resizes images to a short side of 640 px; the median object is then 21.3"
        in default[0].text
    )
    project = Setting(short_side_px=800, project="pets")
    (small,) = advice(surveyed(*arguments, classes=("a",), setting=project))
    assert "The project pets resizes images to a short side of 800 px; the median object is then 26.7" in small.text
    assert not advice(surveyed(*arguments, classes=("a",), setting=Setting(short_side_px=1600, project="pets")))
    assert not advice(surveyed(*arguments, classes=("a",), setting=Setting(short_side_px=None, project="pets")))


def test_regions_are_counted_in_pixels_and_have_no_anchors():
    boxes = [*[(1, 1, 0, 0, 2, 10)] * 30, *[(1, 2, 0, 0, 200, 200)] * 120]
    setting = Setting(project="pets", has_objects=False)
    data = surveyed([(640, 640)], boxes, setting=setting)
    assert [(row.name, row.share) for row in data.class_rows] == [
        ("b", pytest.approx(120 * 40000 / (120 * 40000 + 30 * 20))),
        ("a", pytest.approx(600 / (120 * 40000 + 600))),
    ]
    assert verdict(data) == "1 image, 150 regions of 2 classes; no problems."
    given = [one.title for one in advice(data)]
    assert given == ["b has 8,000 times as many pixels as a"]
    assert [one.title for one in advice(surveyed([(640, 640)], boxes))] == [
        "20 % of the objects are over 4 times as long as wide",
        "An image has 150 objects",
    ]


def test_label_images_have_regions_without_a_project():
    dataset = make_dataset([(9, 9)], [(1, 1, 0, 0, 3, 3)])
    disjoint = replace(dataset, instances=tuple(replace(one, is_disjoint=True) for one in dataset.instances))
    assert survey([Checked(Path("x"), dataset, ())]).setting.has_objects
    assert not survey([Checked(Path("x"), disjoint, ())]).setting.has_objects


def test_the_setting_of_a_project():
    def setting(task, size, **keys):
        return Setting.of(
            Project.model_validate(
                {"name": "p", "task": task, "data": {"root": "."}, "train": {"image_size": size}} | keys
            )
        )

    assert setting("instance", 800) == Setting(short_side_px=800, project="p")
    assert setting("semantic", "original") == Setting(short_side_px=None, project="p", has_objects=False)
    assert setting("panoptic", 320, things=["a"], stuff=["b"]).has_objects


def test_errors_come_first_and_the_verdict_counts_them():
    findings = [Finding("error", "bad_json", "a.json", "m"), Finding("warning", "clipped", "b.json", "m", shape=0)]
    data = surveyed([(640, 640)], MANY, classes=("a",), findings=findings)
    assert advice(data, leaks=1)[0].title == "1 error to fix before training"
    words = verdict(data, leaks=1, groups=3)
    assert words == (
        "1 image, 30 instances of 1 class; 1 error stops training; "
        "1 group of near-duplicates lies in more than one split; 1 warning."
    )
    assert verdict(surveyed([(9, 9)], [], classes=())) == (
        "1 image, 0 instances of 0 classes; no instances to train on."
    )

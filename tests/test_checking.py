import json
import re
import shutil

import pytest

from d2tune.annotations.splitting.lists import read_list
from d2tune.api import convert
from d2tune.checking import check
from d2tune.cli import main
from d2tune.data.splits import load_splits
from d2tune.errors import DataError
from d2tune.project import load_project
from tests.annotations.builders import SQUARE, TRIANGLE, labelme_file, labelme_value, photo, shape
from tests.shared_files import SHARED

PHOTOS = SHARED / "data" / "microcontrollers" / "test"


def table(page, number):
    """The cells of a table of the page's section on classes, row by row."""
    (section,) = re.findall(r'<section id="classes">(.*?)</section>', page.read_text("utf-8"), re.DOTALL)
    body = re.findall(r"<tbody>(.*?)</tbody>", section, re.DOTALL)[number]
    rows = re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)
    return [[re.sub("<[^>]+>", "", cell).strip() for cell in re.findall(r"<td.*?</td>", row)] for row in rows]


def test_a_fraction_of_the_training_photos_is_the_split_that_training_sets_aside(tmp_path):
    shutil.copytree(PHOTOS, tmp_path / "data" / "train")
    project = tmp_path / "mine.yaml"
    project.write_text("name: mine\ndata: {root: data, val: 0.3, split_seed: 3}\n", encoding="utf-8")
    (result,) = check(project, report=tmp_path / "check.html")
    splits = load_splits(load_project(project, hardware="cpu").project)
    assert (len(result.dataset.images), result.split) == (7, "")
    rows = table(tmp_path / "check.html", 1)
    assert [row[:2] for row in rows] == [["train", str(len(splits.train.images))], ["val", str(len(splits.val.images))]]
    text = (tmp_path / "check.html").read_text("utf-8")
    for name, dataset in (("train", splits.train), ("val", splits.val)):
        for image in dataset.images:
            assert re.search(rf'<bdi>{image.file_name}</bdi><br><span class="pill">{name}</span>', text)


def test_each_split_is_counted(tmp_path, capsys):
    for split, labels in (("train", "aab"), ("val", "a")):
        for number, label in enumerate(labels):
            folder = tmp_path / "data" / split
            folder.mkdir(parents=True, exist_ok=True)
            photo(folder / f"{split}{number}.png")
            value = labelme_value(shape(SQUARE, label=label), imagePath=f"{split}{number}.png")
            (folder / f"{split}{number}.json").write_text(json.dumps(value), "utf-8")
    assert main(["check", str(tmp_path / "data")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3:] == [
        "4 images, 4 instances (3 a, 1 b)",
        "train: 3 images, 3 instances (2 a, 1 b)",
        "val: 1 image, 1 instance (1 a, 0 b)",
    ]
    (tmp_path / "p.yaml").write_text("data: {root: data, train: ., val: 0.5}\n")
    main(["check", str(tmp_path / "p.yaml")])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines[-2:]] == ["train", "val"]
    assert sum(int(line.split(": ")[1].split()[0]) for line in lines[-2:]) == 4


def test_a_project_of_lists(tmp_path):
    data = tmp_path / "data"
    shutil.copytree(PHOTOS, data)
    names = sorted(path.name for path in data.glob("*.jpg"))
    for split, chosen in (("train", names[:4]), ("val", names[4:6])):
        (data / f"{split}.txt").write_text("\n".join(chosen), encoding="utf-8")
    project = tmp_path / "mine.yaml"
    project.write_text("name: mine\ndata: {root: data, train: train.txt, val: val.txt}\n", encoding="utf-8")
    train, val = check(project, report=tmp_path / "check.html")
    assert [image.file_name for image in train.dataset.images] == list(read_list(data / "train.txt"))
    assert (train.split, val.split, len(val.dataset.images)) == ("train", "val", 2)
    assert [row[:2] for row in table(tmp_path / "check.html", 1)] == [["train", "4"], ["val", "2"]]


def test_images_inside_of_annotation_files_are_on_the_page(tmp_path):
    source = SHARED / "data" / "labelme_zoo" / "52_v4.4.0_image_file_absent_imageData_only"
    (result,) = check(source, report=tmp_path / "check.html")
    text = (tmp_path / "check.html").read_text("utf-8")
    assert [finding.code for finding in result.findings] == ["image_restored_from_imageData"]
    assert text.count('<img src="data:image/jpeg;base64,') == 2, "the finding's and the contact sheet's"
    assert not any(image.path.exists() for image in result.dataset.images), "nothing is left behind"


@pytest.mark.parametrize(
    ("options", "words"),
    [({"splits": "nowhere"}, "the folder of splits has no list"), ({"report": "."}, "the report must be a file")],
)
def test_mistakes(tmp_path, options, words):
    chosen = {"report": tmp_path / "check.html"} | {key: tmp_path / value for key, value in options.items()}
    with pytest.raises(DataError, match=words):
        check(PHOTOS, **chosen)
    assert list(tmp_path.iterdir()) == []


def test_warnings_count_as_errors_where_that_was_asked_for(tmp_path):
    (result,) = check(SHARED / "conversion_cases" / "24_fully_outside", strict=True, report=tmp_path / "check.html")
    assert [finding.code for finding in result.findings] == ["outside_image", "not_labelme"]
    assert {finding.level for finding in result.findings} == {"error"}
    assert "2 errors stop training" in (tmp_path / "check.html").read_text("utf-8")


def shared_project(tmp_path, data):
    root = tmp_path / "data"
    for folder, names in (("", "ab"), ("val", "cd")):
        for name in names:
            labelme_file(root / folder / f"{name}.json", shape(TRIANGLE))
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: mine\ndata: {{root: data, {data}}}\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("data", "count"), [("train: ., val: val", 2), ("train: val, val: val", 2), ("train: val, val: copies", 2)]
)
def test_splits_that_share_images_are_refused_everywhere(tmp_path, data, count):
    path = shared_project(tmp_path, data)
    shutil.copytree(tmp_path / "data" / "val", tmp_path / "data" / "copies")
    train, val = check(path)
    assert [finding.code for finding in train.findings] == []
    assert [(finding.level, finding.code) for finding in val.findings] == [("error", "shared_image")] * count
    with pytest.raises(DataError, match=f"{count} of the 2 images of val in train"):
        load_splits(load_project(path, hardware="cpu").project)
    with pytest.raises(DataError, match=f"{count} of the 2 images of val in train"):
        convert(path, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_lists_that_share_an_image_are_refused(tmp_path):
    root = tmp_path / "data"
    for name in "abcd":
        labelme_file(root / f"{name}.json", shape(TRIANGLE))
    for split, names in (("train", "ab"), ("val", "c"), ("test", "da")):
        listed = root / "splits" / f"{split}.txt"
        listed.parent.mkdir(exist_ok=True)
        listed.write_text("".join(f"{name}.png\n" for name in names))
    with pytest.raises(DataError, match=r"a\.png is in .*train\.txt too, line 1"):
        check(root)


def test_lists_with_copies_of_an_image_are_an_error(tmp_path):
    root = tmp_path / "data"
    for name in "abc":
        labelme_file(root / f"{name}.json", shape(TRIANGLE))
    shutil.copy(root / "a.png", root / "c.png")
    for split, name in (("train", "a"), ("val", "b"), ("test", "c")):
        listed = root / "splits" / f"{split}.txt"
        listed.parent.mkdir(exist_ok=True)
        listed.write_text(f"{name}.png\n")
    (result,) = check(root)
    assert [(finding.level, finding.code, finding.also) for finding in result.findings] == [
        ("error", "shared_image", ("a.png",))
    ]

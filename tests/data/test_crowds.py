"""Objects that are marked as crowds: counted apart everywhere, and never a whole training on nothing."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from d2tune.annotations.convert import check as read
from d2tune.annotations.model.options import ReadOptions
from d2tune.annotations.splitting.splits import SplitOptions, make_split
from d2tune.checking import check
from d2tune.data.splits import load_splits
from d2tune.errors import DataError
from d2tune.project import load_project
from d2tune.report.split_table import split_report
from d2tune.tasks import task_of
from tests.annotations.builders import SQUARE, labelme_file, moved, shape
from tests.shared_files import SHARED

pytestmark = pytest.mark.usefixtures("without_plots")

CROWDS = SHARED / "strangers" / "20_coco_all_crowd"


@pytest.fixture
def project_file(tmp_path: Path) -> Path:
    shutil.copytree(CROWDS, tmp_path / "data")
    return tmp_path / "data" / "project.yaml"


def with_key(path: Path, line: str) -> Path:
    path.write_text(path.read_text().replace("val: val}", f"val: val, {line}}}"))
    return path


def mixed(folder: Path, name: str) -> None:
    """A car and a crowd of cars."""
    labelme_file(folder / name, shape(SQUARE, "car"), shape(moved(SQUARE, 20), "car", flags={"iscrowd": True}))


def test_a_project_with_crowds_alone_stops_with_the_way_out(project_file: Path) -> None:
    with pytest.raises(DataError) as raised:
        load_splits(load_project(project_file).project)
    line = raised.value.one_line()
    assert "training split" in line and "0 objects, 2 crowds" in line and "data.crowds" in line


def d2tune(*words: str | Path) -> tuple[int, str]:
    """The exit status and the output of a command, in a process of its own."""
    done = subprocess.run([sys.executable, "-m", "d2tune", *map(str, words)], capture_output=True, text=True)
    return done.returncode, done.stdout


def test_check_of_such_a_project_fails_and_counts_crowds_apart(project_file: Path) -> None:
    status, printed = d2tune("check", project_file)
    assert status == 1
    assert "only_crowds" in printed and "--crowds objects" in printed
    assert "train: 2 images, 0 objects, 2 crowds (0 car; crowds: 2 car)" in printed


@pytest.mark.parametrize("words", [[], ["--crowds", "objects"]])
def test_crowds_are_read_as_objects_on_request(project_file: Path, words: list[str]) -> None:
    path = project_file if words else with_key(project_file, "crowds: objects")
    status, printed = d2tune("check", path, *words)
    assert status == 0 and "train: 2 images, 2 instances (2 car)" in printed


def test_objects_of_crowds_have_polygons_where_they_are_exact(project_file: Path) -> None:
    splits = load_splits(load_project(with_key(project_file, "crowds: objects")).project)
    for dataset in (splits.train, splits.val):
        assert dataset.counts() == {"car": 2} and dataset.crowd_counts() == {"car": 0}
        assert [instance.coco_segmentation() for instance in dataset.instances] == [
            [[20, 20, 80, 20, 80, 60, 20, 60]]
        ] * 2
        assert [instance.bbox_xywh for instance in dataset.instances] == [(20, 20, 60, 40)] * 2


def test_a_validation_split_of_crowds_alone_stops_as_well(project_file: Path) -> None:
    table = project_file.parent / "train" / "_annotations.coco.json"
    value = json.loads(table.read_text())
    for row in value["annotations"]:
        row["iscrowd"] = 0
    table.write_text(json.dumps(value))
    with pytest.raises(DataError, match="validation split are marked as crowds"):
        load_splits(load_project(project_file).project)
    results = check(project_file)
    assert [[f.code for f in one.findings if f.level == "error"] for one in results] == [[], ["only_crowds"]]


def test_some_crowds_are_a_warning_with_their_number(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("train/a.json", "val/b.json"):
        mixed(tmp_path, name)
    (tmp_path / "p.yaml").write_text("data: {root: ., train: train, val: val}\nclasses: [car]\n")
    with caplog.at_level(logging.WARNING):
        splits = load_splits(load_project(tmp_path / "p.yaml").project)
    assert "1 annotation of the training split marked as crowds" in caplog.text
    assert splits.train.size_in_words() == "1 image, 1 object, 1 crowd"
    (result,) = check(tmp_path / "train")
    assert [(f.level, f.code, f.message) for f in result.findings] == [
        ("warning", "crowds", "1 of 2 annotations marked as crowds (iscrowd), which training excludes")
    ]


def test_the_plan_and_the_split_count_crowds_apart(tmp_path: Path) -> None:
    for number in range(4):
        mixed(tmp_path, f"{number}.json")
    dataset = read(tmp_path).dataset
    project = load_project_with(tmp_path)
    task = task_of(project)
    assert task.describe_data(dataset, dataset).startswith("4 training images with 4 objects, 4 crowds")
    assert task.count_rows(dataset, dataset) == (
        ["class", "train", "val", "train crowds", "val crowds"],
        [["car", "4", "4", "4", "4"]],
    )
    made = make_split(dataset, SplitOptions(duplicate_distance=None))
    counts = made.counts()
    assert (
        sum(split["crowds"] for split in counts.values()) == sum(split["class car"] for split in counts.values()) == 4
    )
    assert "4 images, 4 objects, 4 crowds" in split_report(made)


def load_project_with(folder: Path) -> Any:
    (folder / "p.yaml").write_text("data: {root: ., train: ., val: 0.5}\nclasses: [car]\n")
    return load_project(folder / "p.yaml").project


def test_the_check_page_counts_crowds_apart(project_file: Path, tmp_path: Path) -> None:
    check(project_file, report=tmp_path / "check.html")
    page = (tmp_path / "check.html").read_text()
    assert "0 objects, 4 crowds" in page and "4 annotations marked as crowds" in page


@pytest.mark.parametrize("option", ["crowds", "objects"])
def test_every_reader_knows_the_option(tmp_path: Path, option: Any) -> None:
    mixed(tmp_path, "a.json")
    dataset = read(tmp_path, options=ReadOptions(crowds=option)).dataset
    assert [instance.iscrowd for instance in dataset.instances] == [False, option == "crowds"]


def test_eval_of_files_counts_crowds_apart_and_reads_them_as_objects(tmp_path: Path) -> None:
    """Two crowds and the same two masks predicted: no metric as crowds, all right as objects."""
    from d2tune import api

    files = SHARED / "strangers" / "92_eval_files"
    arguments = files / "p_ok.json", files / "gt_crowd_all.json"
    apart = api.evaluate_files(*arguments, out=tmp_path / "apart", metrics=("segm",))
    assert "0 objects, 2 crowds" in apart.sentence
    written = json.loads((tmp_path / "apart" / "evaluation.json").read_text())
    assert "--crowds objects" in " ".join(written["warnings"])
    together = api.evaluate_files(*arguments, out=tmp_path / "objects", metrics=("segm",), crowds="objects")
    assert "mask AP 100.0" in together.sentence
    with pytest.raises(DataError, match="--crowds needs a COCO instances file"):
        api.evaluate_files(tmp_path, tmp_path, labels=tmp_path / "l.txt", crowds="objects")


def test_a_new_project_on_crowds_alone_says_so(project_file: Path, tmp_path: Path) -> None:
    project_file.unlink()
    status, printed = d2tune("new", "crowdy", "--data", project_file.parent, "--out", tmp_path / "crowdy.yaml")
    assert status == 0 and "2 images, 0 objects, 2 crowds to train on" in printed
    assert "4 annotations marked iscrowd" in printed and "data.crowds: objects" in printed
    assert load_project(tmp_path / "crowdy.yaml").project.class_names == ("car",)

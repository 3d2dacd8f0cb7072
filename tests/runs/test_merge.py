"""Shards of a prediction, and that joined they are what one process writes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage

import d2tune
from d2tune.cli import main
from d2tune.errors import DataError, ProjectError
from d2tune.inference.writers.base import Images
from d2tune.runs.prediction.shards import Shard
from tests.runs.random_runs import random_run
from tests.runs.test_predict_files import content

INSTANCE = "coco,labelme,rle,yolo-seg,measurements,masks,cutouts,overlays"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    dialect = {"csv_preset": "airbus", "background": "road"}
    return {
        "instance": random_run(folder / "instance", "instance"),
        "semantic": random_run(folder / "semantic", "semantic", **dialect),
        "panoptic": random_run(folder / "panoptic", "panoptic"),
        "raster": random_run(folder / "raster", "semantic", format="label_images"),
    }


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven images of three sizes in two folders, of which the network pads some to one size, and a torn one."""
    folder = tmp_path_factory.mktemp("photos")
    draw = np.random.default_rng(0)
    for number in range(7):
        path = folder / ("a", "b")[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        PilImage.fromarray(draw.integers(0, 256, (60 + 10 * (number % 3), 90, 3), dtype=np.uint8)).save(path)
    (folder / "torn.png").write_bytes((folder / "a" / "0.png").read_bytes()[:50])
    return folder


def options_of(task: str) -> dict[str, Any]:
    return {"min_score": 0.1} if task == "instance" else {}


def shards_of(run: Path, source: Any, folder: Path, count: int, **options: Any) -> list[Path]:
    """The output folders of all shards."""
    for number in range(1, count + 1):
        d2tune.predict(run, source, out=folder / f"shard{number}", shard=f"{number}/{count}", **options)
    return [folder / f"shard{number}" for number in range(1, count + 1)]


@pytest.mark.parametrize(
    ("task", "to", "count"),
    [
        pytest.param("instance", INSTANCE, 3, marks=pytest.mark.slow),
        pytest.param("instance", "rle", 6, marks=pytest.mark.extended),
        ("semantic", "label_maps,labelme,masks,measurements", 3),
        ("semantic", "csv", 2),
        ("panoptic", "coco_panoptic,labelme,masks,measurements", 3),
    ],
)
def test_joined_shards_are_what_one_process_writes(
    runs: dict[str, Path], photos: Path, tmp_path: Path, task: str, to: str, count: int
) -> None:
    options: dict[str, Any] = options_of(task) | {"to": to}
    whole = d2tune.predict(runs[task], photos, out=tmp_path / "whole", **options)
    folders = shards_of(runs[task], photos, tmp_path, count, **options)
    merged = d2tune.merge(folders[::-1], out=tmp_path / "merged")
    expected = content(tmp_path / "whole")
    assert content(tmp_path / "merged") == expected and len(expected) >= (1 if to in ("csv", "rle") else 8)
    assert (merged.images, merged.instances, merged.skipped) == (7, whole.instances, whole.skipped)
    assert len(merged.skipped) == 1 and "torn.png" in merged.skipped[0]
    assert whole.instances > 0 or task == "semantic"
    again = d2tune.merge(folders, out=tmp_path / "merged", force=True)
    assert again == merged and content(tmp_path / "merged") == expected


def test_rasters(runs: dict[str, Path], tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for number in range(4):
        np.save(tmp_path / "in" / f"{number}.npy", draw.integers(0, 256, (40, 50, 3), dtype=np.uint8))
    d2tune.predict(runs["raster"], tmp_path / "in", out=tmp_path / "whole")
    folders = shards_of(runs["raster"], tmp_path / "in", tmp_path, 2)
    assert [len(list(folder.rglob("*.tif"))) for folder in folders] == [2, 2]
    d2tune.merge(folders, out=tmp_path / "merged")
    assert content(tmp_path / "merged") == content(tmp_path / "whole")


def test_labelme_files_of_one_folder_that_all_shards_share(runs: dict[str, Path], photos: Path, tmp_path: Path) -> None:
    """The paths of images in Labelme files are those that they have from the output folder, wherever that is."""
    for number in (1, 2):
        d2tune.predict(runs["instance"], photos, out=tmp_path / "all", to="labelme", min_score=0.1, shard=f"{number}/2")
    d2tune.merge([tmp_path / "all"], out=tmp_path / "all")
    d2tune.merge([tmp_path / "all"], out=tmp_path / "deep" / "er")
    for out in (tmp_path / "all", tmp_path / "deep" / "er"):
        files = sorted(out.rglob("[0-9].json"))
        assert len(files) == 7
        for file in files:
            value = json.loads(file.read_text("utf-8"))
            image = photos / file.relative_to(out).with_suffix(".png")
            assert (file.parent / value["imagePath"]).resolve() == image.resolve() and value["shapes"]


def test_labelme_files_of_a_person_stay_beside_other_formats(
    runs: dict[str, Path], photos: Path, tmp_path: Path
) -> None:
    """Also those that are there when a shard is predicted, and when shards are joined in their folder."""
    options: dict[str, Any] = {"to": "labelme,coco", "min_score": 0.1}
    d2tune.predict(runs["instance"], photos, out=tmp_path / "whole", **options)
    mine = tmp_path / "all" / "a" / "2.json"
    mine.parent.mkdir(parents=True)
    mine.write_text("{}", "utf-8")
    for number in (1, 2):
        d2tune.predict(runs["instance"], photos, out=tmp_path / "all", shard=f"{number}/2", **options)
    d2tune.merge([tmp_path / "all"], out=tmp_path / "all")
    d2tune.merge([tmp_path / "all"], out=tmp_path / "other")
    assert mine.read_text("utf-8") == "{}"
    for folder in ("all", "other"):
        given = content(tmp_path / folder)
        assert given["predictions.json"] == content(tmp_path / "whole")["predictions.json"]
        assert ("a/2.json" in given, "b/1.json" in given) == (folder == "all", True)


def test_files_are_linked_where_that_is_possible(
    runs: dict[str, Path], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = shards_of(runs["semantic"], photos, tmp_path, 2)
    d2tune.merge(folders, out=tmp_path / "linked")
    maps = sorted((tmp_path / "linked" / "labels").rglob("*.png"))
    assert len(maps) == 7 and {path.stat().st_nlink for path in maps} == {2}

    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    d2tune.merge(folders, out=tmp_path / "copied")
    assert {path.stat().st_nlink for path in (tmp_path / "copied" / "labels").rglob("*.png")} == {1}
    assert content(tmp_path / "linked") == content(tmp_path / "copied")


@pytest.fixture(scope="module")
def shards(runs: dict[str, Path], photos: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("shards")
    return shards_of(runs["instance"], photos, folder, 3, min_score=0.1, to="coco,overlays,cutouts")


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | values), "utf-8")


def a_drawing(folder: Path) -> Path:
    return next(iter(folder.rglob("*.predicted.jpg")))


def a_cutout(folder: Path) -> Path:
    return next(iter(folder.rglob("cutouts/**/0001_*.png")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: one.pop(), r"1 shard is missing: 3/3. Give the folders of all shards"),
        (lambda one: [one.pop(), one.pop()], r"2 shards are missing: 2/3, 3/3"),
        (lambda one: one.append(one[0]), r"shard-1-of-3.json: shard 1/3 is given twice"),
        (lambda one: one.append(one[0].parent), r"the folder has no finished shard"),
        (
            lambda one: edit(one[1] / "shard-2-of-3.json", d2tune="0.0.1"),
            "written by another version of d2tune; found 0.0.1",
        ),
        (lambda one: edit(one[1] / "shard-2-of-3.json", format=2), "written by another version"),
        (lambda one: edit(one[1] / "shard-2-of-3.json", root="/x"), "shard-2-of-3.json: the file was changed after"),
        (lambda one: (one[1] / "shard-2-of-3.json").write_text("{"), "the description of the shard is not valid"),
        (lambda one: (one[2] / "shard-3-of-3.jsonl").write_text("{}\n"), "shard-3-of-3.jsonl: the file was changed"),
        (lambda one: (one[2] / "shard-3-of-3.jsonl").unlink(), "shard-3-of-3.jsonl: a file of the shard is missing"),
        (lambda one: a_drawing(one[0]).write_bytes(b"x"), r"predicted.jpg: the file was changed after the shard was"),
        (lambda one: a_drawing(one[0]).unlink(), r"predicted.jpg: a file of the shard is missing"),
        (lambda one: a_cutout(one[1]).unlink(), r"0001_\w+_0.\d\d.png: a file of the shard is missing"),
    ],
)
def test_incomplete_and_changed_shards(
    shards: list[Path], tmp_path: Path, change: Callable[[list[Path]], object], message: str
) -> None:
    copies = [Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in shards]
    change(copies)
    with pytest.raises(DataError, match=message) as caught:
        d2tune.merge(copies, out=tmp_path / "merged")
    assert "\n" not in caught.value.one_line()
    assert not (tmp_path / "merged").exists() or not list((tmp_path / "merged").rglob("*"))


def test_shards_of_other_predictions(runs: dict[str, Path], photos: Path, shards: list[Path], tmp_path: Path) -> None:
    other = random_run(tmp_path / "other", "instance")
    config = other / "detectron2.yaml"
    to = {"to": "coco,overlays,cutouts"}
    config.write_text(config.read_text("utf-8").replace("DETECTIONS_PER_IMAGE: 8", "DETECTIONS_PER_IMAGE: 7"), "utf-8")
    cases: list[tuple[Path, Any, dict[str, Any], str]] = [
        (other, photos, {"min_score": 0.1}, "different: the config of the model, the project"),
        (runs["instance"], photos, {"min_score": 0.2}, "different: the options"),
        (runs["instance"], photos, {"min_score": 0.1, "to": "rle"}, r"different: the formats \(--to\)"),
        (runs["instance"], photos / "a", {"min_score": 0.1}, "different: the images"),
    ]
    for number, (run, source, options, message) in enumerate(cases):
        out = tmp_path / f"out{number}"
        d2tune.predict(run, source, out=out, shard="3/3", **to | options)
        with pytest.raises(DataError, match=f"of another prediction than that in .*{message}"):
            d2tune.merge([*shards[:2], out], out=tmp_path / "merged")
    d2tune.predict(runs["instance"], photos, out=tmp_path / "four", shard="3/4", min_score=0.1, **to)
    with pytest.raises(DataError, match="not of one division; found 3/4, and 1/3 in"):
        d2tune.merge([*shards[:2], tmp_path / "four"], out=tmp_path / "merged")


def test_a_merge_replaces_no_other_files(shards: list[Path], tmp_path: Path) -> None:
    (tmp_path / "predictions.json").write_text("mine", "utf-8")
    with pytest.raises(DataError, match=r"predictions\.json: the file is already there and is not overwritten"):
        d2tune.merge(shards, out=tmp_path, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0/3", "there is no such shard; found 0/3; .*Shards count from 1"),
        ("4/3", "there is no such shard; found 4/3; expected NUMBER/COUNT"),
        ("1/0", "there is no such shard"),
        ("a/3", "the shard is not valid; found a/3"),
        ("-1/3", "the shard is not valid"),
        ("3", "the shard is not valid; found 3; expected NUMBER/COUNT with numbers from 1, such as 1/8 to 8/8"),
    ],
)
def test_invalid_shards(runs: dict[str, Path], photos: Path, tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ProjectError, match=f"--shard: {message}"):
        d2tune.predict(runs["instance"], photos, out=tmp_path / "out", shard=text)
    assert not (tmp_path / "out").exists()


def test_options_that_do_not_go_with_shards(runs: dict[str, Path], photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"--most-uncertain looks at all images in one process\. Remove --shard"):
        d2tune.predict(runs["instance"], photos, out=tmp_path, to="labelme", most_uncertain=2, shard="1/2")
    with pytest.raises(ProjectError, match=r"--out: a shard is written to a folder; found .*mine.csv"):
        d2tune.predict(runs["semantic"], photos, out=tmp_path / "mine.csv", to="csv", shard="1/2")


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_every_image_is_in_one_shard_and_shards_are_about_equal(count: int) -> None:
    sizes = np.random.default_rng(count).integers(1, 9, 200).tolist()
    ends = np.cumsum(sizes).tolist()
    batches = [list(range(end - size, end)) for end, size in zip(ends, sizes, strict=True)]

    def division(root: str) -> list[list[int]]:
        images = Images(Path(root), [Path(root) / f"{number}.jpg" for number in range(ends[-1])])
        return [Shard(number, count).of(batches, images) for number in range(1, count + 1)]

    shards = division("/one")
    assert sorted(index for shard in shards for index in shard) == list(range(ends[-1]))
    assert max(map(len, shards)) - min(map(len, shards)) <= 2
    assert division("/another/place") == shards
    for shard in shards:
        assert all(set(batch) <= set(shard) or not set(batch) & set(shard) for batch in batches)


def test_the_commands(runs: dict[str, Path], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["predict", str(runs["semantic"]), "--to", "csv", "--to", "labelme"]
    for number in (1, 2):
        out = str(tmp_path / f"shard{number}")
        assert (
            main([*words, "--shard", f"{number}/2", "--out", out, str(photos / "a"), str(photos / "*" / "*.png")]) == 0
        )
        printed = capsys.readouterr().out.splitlines()
        assert printed[0].startswith(f"shard {number}/2: ") and printed[-1] == "Join all shards with `d2tune merge`."
    merged = str(tmp_path / "merged")
    assert main(["merge", str(tmp_path / "shard2"), "--out", merged, str(tmp_path / "shard1")]) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith(f"regions on 7 images: {merged}")
    assert (tmp_path / "merged" / "submission.csv").is_file() and (tmp_path / "merged" / "b" / "1.json").is_file()
    assert main(["merge", str(tmp_path / "shard1"), "--out", merged]) == 1
    assert capsys.readouterr().err == "error: 1 shard is missing: 2/2. Give the folders of all shards.\n"

"""The images that are worth labeling first: which are written, why, and what an interrupted call leaves."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

import d2tune
from d2tune.errors import DataError, ProjectError
from d2tune.inference.uncertainty import DetectionUncertainty, PixelUncertainty
from d2tune.inference.writers.base import LabelmeFiles
from d2tune.runs import most_uncertain
from d2tune.runs.load import load_model
from tests.runs.test_load import photos, quick_run
from tests.runs.test_old_runs import old_run
from tests.runs.test_predict_files import content, copied, gray_images

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quick_run(tmp_path_factory.mktemp("runs"))


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "uncertainty.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_most_uncertain_images_get_files_and_then_the_next_ones(run: Path, tmp_path: Path) -> None:
    source = copied(tmp_path / "new", 5)
    with PilImage.open(photos(1)[0]) as image:
        image.resize((image.width // 2, image.height // 2)).save(source / "copy.jpg")
    (source / "broken.jpg").write_bytes(b"no image")
    first = d2tune.predict(run, source, out=source, to="labelme", most_uncertain=2)
    listed = rows(source)
    assert [row["rank"] for row in listed] == [str(rank) for rank in range(1, 7)]
    values = [float(row["value"]) for row in listed]
    assert values == sorted(values, reverse=True) and values[0] > values[-1]
    loaded = load_model(run)
    measure = DetectionUncertainty(d2tune.load_predictor(run, min_score=0.5), loaded.cfg)
    (expected,) = measure.scan([source / listed[0]["image"]], show_progress=False)
    assert expected.value == pytest.approx(values[0], abs=2e-4) and expected.reason == listed[0]["reason"]
    chosen = [row["image"] for row in listed if row["chosen"] == "yes"]
    written = sorted(path.stem for path in source.glob("*.json"))
    assert written == sorted(Path(name).stem for name in chosen) and len(chosen) == first.images == 2
    assert "2 of 6 images chosen, most uncertain first" in first.summary and "uncertainty.csv" in first.summary
    assert len(first.skipped) == 1 and "broken.jpg" in first.skipped[0]

    second = d2tune.predict(run, source, out=source, to="labelme", most_uncertain=9)
    assert second.images == 3, "five photos, and a copy that is passed over"
    assert sorted(row["image"] for row in rows(source)) == sorted({row["image"] for row in listed} - set(chosen))
    (passed,) = [row for row in rows(source) if row["chosen"] == "no"]
    assert passed["reason"].startswith("near-duplicate of ")
    assert {passed["image"], passed["reason"].split(";")[0].removeprefix("near-duplicate of ")} == {
        "copy.jpg",
        photos(1)[0].name,
    }
    assert sum("already has a Labelme file" in line for line in second.skipped) == 2
    with pytest.raises(DataError, match="no image is left to choose: 1 near-duplicate of images with a Labelme file"):
        d2tune.predict(run, source, out=source, to="labelme", most_uncertain=1)


def test_an_interrupted_call_chooses_the_same_images(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = copied(tmp_path / "new", 4)
    whole = tmp_path / "whole"
    d2tune.predict(run, source, out=whole, to="labelme", most_uncertain=2)
    out = tmp_path / "out"
    convert, calls = LabelmeFiles.convert, []

    def interrupted(self: LabelmeFiles, *arguments: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return convert(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(LabelmeFiles, "convert", interrupted)
        with pytest.raises(KeyboardInterrupt):
            d2tune.predict(run, source, out=out, to="labelme", most_uncertain=2)
    assert len(list(out.glob("*.json"))) == 1
    measured = []
    scan = DetectionUncertainty._result
    monkeypatch.setattr(DetectionUncertainty, "_result", lambda *words: measured.append(1) or scan(*words))
    d2tune.predict(run, source, out=out, to="labelme", most_uncertain=2)
    assert not measured, "the values of the interrupted call are used"
    assert content(out) == content(whole)


def test_a_call_that_was_killed_after_its_last_file_is_followed_by_the_next_images(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = copied(tmp_path / "new", 3)
    with monkeypatch.context() as patch:
        patch.setattr(most_uncertain.Journal, "remove", lambda self: None)
        first = d2tune.predict(run, source, out=source, to="labelme", most_uncertain=1)
        assert first.images == 1
        (source / ".d2tune-predict.jsonl").unlink()
    assert (source / ".d2tune-uncertainty.jsonl").is_file()
    assert d2tune.predict(run, source, out=source, to="labelme", most_uncertain=1).images == 1
    assert len(list(source.glob("*.json"))) == 2


def test_regions_of_a_semantic_run(tmp_path: Path) -> None:
    run, source = old_run("semantic", tmp_path / "runs"), gray_images(tmp_path / "new", 3)
    result = d2tune.predict(run, source, out=tmp_path / "out", to="labelme", most_uncertain=2)
    assert result.images == 2
    listed = rows(tmp_path / "out")
    measure = PixelUncertainty(d2tune.load_predictor(run), load_model(run).cfg)
    expected = [one.value for one in measure.scan([source / row["image"] for row in listed], show_progress=False)]
    assert [float(row["value"]) for row in listed] == pytest.approx(expected, abs=2e-4)
    assert all("% of the pixels are doubtful" in row["reason"] for row in listed)


def test_the_share_of_images_with_objects(run: Path, tmp_path: Path) -> None:
    loaded = load_model(run)
    counts = {"train_images": 4, "train_instances": {"balloon": 2}}
    loaded.record["data"].update(counts)
    assert most_uncertain.share_with_objects(loaded) == pytest.approx(1 - math.exp(-0.5))
    for name in counts:
        del loaded.record["data"][name]
    assert most_uncertain.share_with_objects(loaded) == 1
    empty = np.zeros((40, 50, 3), np.uint8)
    (result,) = DetectionUncertainty(d2tune.load_predictor(run, min_score=1), loaded.cfg, share_with_objects=0.02).scan(
        [empty], show_progress=False
    )
    assert result.reason.startswith("no detection")


def test_bad_input(run: Path, tmp_path: Path) -> None:
    source = copied(tmp_path / "new", 1)
    with pytest.raises(ProjectError, match="--most-uncertain: must be 1 or more; found 0"):
        d2tune.predict(run, source, to="labelme", most_uncertain=0)
    with pytest.raises(ProjectError, match="--most-uncertain chooses images to label; found coco; expected labelme"):
        d2tune.predict(run, source, to="coco", most_uncertain=3)
    mine = source / "uncertainty.csv"
    mine.write_text("mine", encoding="utf-8")
    with pytest.raises(DataError, match="d2tune did not write it as predictions"):
        d2tune.predict(run, source, out=source, to="labelme", most_uncertain=1)
    assert mine.read_text("utf-8") == "mine" and not list(source.glob("*.json"))
    mine.unlink()
    (source / f"{photos(1)[0].stem}.json").write_text(json.dumps({"mine": 1}), encoding="utf-8")
    with pytest.raises(DataError, match="all 1 images already have a Labelme file"):
        d2tune.predict(run, source, out=source, to="labelme", most_uncertain=1)
    (source / f"{photos(1)[0].stem}.json").unlink()
    for path in source.glob("*.jpg"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="no image could be read"):
        d2tune.predict(run, source, out=source, to="labelme", most_uncertain=1)

"""Windows on the command line and in Python: their size, what they change, and for whom they are refused."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage

import d2tune
from d2tune.annotations.formats.panoptic import from_colors
from d2tune.cli import main
from d2tune.errors import D2TuneError, ProjectError
from d2tune.inference.predictors.windowed import WindowedPredictor
from d2tune.inference.predictors.windowed_panoptic import WindowedPanopticPredictor
from d2tune.inference.windows import Windows
from d2tune.project import Data, Project
from d2tune.runs.load import load_model
from d2tune.runs.windows import WindowChoice, automatic_px, warn_of_large_images
from tests.runs.random_runs import random_run
from tests.runs.test_predict_files import content

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_plots")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_run(tmp_path_factory.mktemp("runs") / "instance", "instance")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    draw = np.random.default_rng(0)
    for number, size in enumerate([(90, 130, 3), (40, 50, 3), (64, 110, 3)]):
        PilImage.fromarray(draw.integers(0, 256, size, dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


def with_record(run: Path, folder: Path, **values: Any) -> Path:
    """A copy of a run whose record has other values of its input."""
    folder.mkdir()
    for path in run.iterdir():
        (folder / path.name).symlink_to(path)
    record = json.loads((run / "record.json").read_text(encoding="utf-8"))
    record["input"] |= values
    (folder / "record.json").unlink()
    (folder / "record.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def test_files_have_the_detections_of_the_predictor(run: Path, photos: Path, tmp_path: Path) -> None:
    windows: dict[str, Any] = {"window_px": 64, "overlap": 0.25}
    result = d2tune.predict(run, photos, out=tmp_path / "whole", to="rle", min_score=0.1, **windows)
    rows = json.loads((tmp_path / "whole" / "results.json").read_text(encoding="utf-8"))
    predictor = d2tune.load_predictor(run, min_score=0.1, **windows)
    expected = [predictor(path) for path in sorted(photos.iterdir())]
    assert len(rows) == result.instances == sum(map(len, expected)) > 24, "more than 8 on each image"
    assert [row["segmentation"]["counts"] for row in rows] == [rle.counts for one in expected for rle in one.rles or ()]
    for number in (1, 2):
        shard = tmp_path / f"shard{number}"
        d2tune.predict(run, photos, out=shard, to="rle", min_score=0.1, shard=f"{number}/2", **windows)
    d2tune.merge([tmp_path / "shard1", tmp_path / "shard2"], out=tmp_path / "merged")
    assert content(tmp_path / "merged") == content(tmp_path / "whole")
    d2tune.predict(run, photos, out=tmp_path / "other", to="rle", min_score=0.1, shard="2/2", window_px=80)
    with pytest.raises(D2TuneError, match="the config of the model"):
        d2tune.merge([tmp_path / "shard1", tmp_path / "other"], out=tmp_path / "mixed")


def test_files_have_the_segments_of_the_predictor(photos: Path, tmp_path: Path) -> None:
    run = random_run(tmp_path / "run", "panoptic")
    windows: dict[str, Any] = {"window_px": 64, "overlap": 0.25}
    out = tmp_path / "out"
    result = d2tune.predict(run, photos / "0.png", out=out, to="coco_panoptic", **windows)
    (row,) = json.loads((out / "panoptic.json").read_text(encoding="utf-8"))["annotations"]
    predictor = d2tune.load_predictor(run, **windows)
    expected = predictor(photos / "0.png")
    assert isinstance(predictor, WindowedPanopticPredictor)
    assert row["segments_info"] == expected.to_segments_info() and result.instances == len(expected.segments) > 2
    with PilImage.open(out / "panoptic" / row["file_name"]) as image:
        assert np.array_equal(from_colors(np.asarray(image)), expected.segment_ids)


def test_models_whose_windows_cannot_be_put_together(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = load_model(with_record(run, tmp_path / "recorded", image_short_side_px=64))
    tracking = Project(name="a", task="tracking", data=Data(root=tmp_path), classes=("bus", "road"))
    with pytest.raises(ProjectError) as error:
        WindowChoice(window_px="auto").check(replace(loaded, project=tracking))
    assert error.value.one_line() == (
        "--windows: predictions of a tracking model cannot be stitched from windows. "
        "Remove it; the whole image is resized for the model."
    )
    cfg = loaded.cfg.clone()
    cfg.defrost()
    cfg.MODEL.META_ARCHITECTURE = "ContiguousPanopticDeepLab"
    grouping = replace(loaded, cfg=cfg)
    with pytest.raises(ProjectError) as error:
        WindowChoice(window_px=64).applied(grouping)
    assert error.value.one_line() == (
        "--windows: objects of Panoptic-DeepLab, which are grouped around their centers, cannot be stitched from "
        "windows. Remove it; the whole image is resized for the model."
    )
    PilImage.new("RGB", (400, 300)).save(tmp_path / "large.png")
    with caplog.at_level(logging.WARNING):
        warn_of_large_images(grouping, [tmp_path / "large.png"])
    assert not caplog.messages


def test_the_bars_count_images_and_windows(run: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictor = d2tune.load_predictor(run, window_px=64)
    list(predictor.stream([photos / "0.png"], show_progress=True))
    shown = capsys.readouterr().err
    assert " images/s" in shown and " windows/s" in shown and shown.count("0/1 [") == 1
    assert "| 0/6 [" in shown, "three windows beside and two below each other"


def test_predictions_with_other_windows_are_other_predictions(run: Path) -> None:
    loaded = load_model(run)
    hashes = {
        WindowChoice(window_px=window_px, overlap=overlap).applied(loaded).config_sha256
        for window_px in (64, 96)
        for overlap in (0.2, 0.3)
    }
    assert len(hashes | {loaded.config_sha256}) == 5


def test_windows_are_as_large_as_the_training_images(run: Path, tmp_path: Path) -> None:
    plain = load_model(run)
    assert automatic_px(plain) == plain.cfg.INPUT.MIN_SIZE_TEST == 64, "of a run that did not record their size"
    recorded = with_record(run, tmp_path / "recorded", image_short_side_px=90)
    predictor = d2tune.load_predictor(recorded, window_px="auto", overlap=0.1, object_px=30)
    assert isinstance(predictor, WindowedPredictor)
    assert Windows.of_config(predictor._cfg) == Windows(window_px=90, overlap_px=30)
    assert not isinstance(d2tune.load_predictor(recorded), WindowedPredictor)
    rasters = random_run(tmp_path / "rasters", "semantic", format="label_images")
    loaded = load_model(rasters)
    loaded.cfg.defrost()
    loaded.cfg.TEST.WINDOW_PX = 128
    assert automatic_px(loaded) == 128


def test_a_package_keeps_the_size_of_the_training_images(run: Path, tmp_path: Path) -> None:
    recorded = with_record(run, tmp_path / "recorded", image_short_side_px=90)
    d2tune.package(recorded, tmp_path / "package")
    assert automatic_px(load_model(tmp_path / "package")) == 90


def test_an_image_that_is_much_larger_is_mentioned_once(
    run: Path, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """192 px are 3 times 64 px, 193 px are more; of a model without a record of its images nothing is known."""
    loaded = load_model(with_record(run, tmp_path / "recorded", image_short_side_px=64))
    usual, large = tmp_path / "usual.png", tmp_path / "large.png"
    PilImage.new("RGB", (400, 192)).save(usual)
    PilImage.new("RGB", (400, 193)).save(large)
    with caplog.at_level(logging.WARNING):
        warn_of_large_images(loaded, [usual, *sorted(photos.iterdir()), tmp_path / "missing.png"])
        warn_of_large_images(WindowChoice(window_px=64).applied(loaded), [large])
        warn_of_large_images(load_model(run), [large])
    assert not caplog.messages
    with caplog.at_level(logging.WARNING):
        warn_of_large_images(loaded, [large] * 200)
    (line,) = caplog.messages
    assert "large.png: 400 x 193 px are reduced to a short side of 64 px" in line and "--windows" in line


def test_the_command(run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["predict", str(run), str(photos / "2.png"), "--to", "rle", "--min-score", "0.1", "--out"]
    assert main([*base, str(tmp_path / "a"), "--windows", "--overlap", "0.3"]) == 0
    assert main([*base, str(tmp_path / "b"), "--window-px", "64", "--overlap", "0.3"]) == 0
    assert main([*base, str(tmp_path / "c")]) == 0
    results = [(tmp_path / name / "results.json").read_bytes() for name in "abc"]
    assert results[0] == results[1] != results[2]
    capsys.readouterr()
    assert main(["eval", str(run), "--window-px", "10"]) == 1
    assert "--window-px: the window is too small; found 10 px" in capsys.readouterr().err
    assert main(["eval", "--predictions", "a", "--ground-truth", "b", "--windows"]) == 1
    assert "with --predictions no model is run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"overlap": 0.3}, "--overlap goes with --windows or --window-px"),
        ({"object_px": 9}, "--object-px goes with --windows or --window-px"),
        ({"window_px": 64, "object_px": 64}, "must be smaller than it; found 64 px"),
        ({"window_px": "auto", "object_px": 64}, "must be smaller than it; found 64 px"),
        ({"window_px": 64, "object_px": -3}, "--object-px: the size of objects is below 0; found -3 px"),
        ({"window_px": 64, "overlap": 0.0}, "--overlap: what two windows see cannot be joined without a strip"),
        ({"window_px": 64, "overlap": -0.1}, "--overlap: the overlap is not a share of a window; found -0.1"),
        ({"window_px": 64, "overlap": 1.5}, "--overlap: windows that are so close cover each pixel too often"),
        ({"window_px": 64, "overlap": 0.76}, "found 0.76; expected above 0 and at most 0.75"),
    ],
)
def test_what_is_not_possible(run: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(D2TuneError) as error:
        d2tune.load_predictor(run, **options)
    assert words in error.value.one_line()


def test_a_model_that_is_made_for_windows_takes_their_overlap_alone(run: Path, tmp_path: Path) -> None:
    loaded = load_model(run)
    original = loaded.project.model_copy(
        update={"train": loaded.project.train.model_copy(update={"image_size": "original", "patch_size": 64})}
    )
    cfg = loaded.cfg.clone()
    cfg.defrost()
    cfg.TEST.WINDOW_PX = 64
    made = replace(loaded, project=original, cfg=cfg)
    assert WindowChoice().applied(made) is made
    changed = WindowChoice(overlap=0.5).applied(made)
    assert (changed.cfg.TEST.WINDOW_PX, changed.cfg.TEST.WINDOW_OVERLAP_PX) == (64, 32)
    assert changed.config_sha256 != made.config_sha256
    assert WindowChoice(object_px=40).applied(made).cfg.TEST.WINDOW_OVERLAP_PX == 40
    with pytest.raises(ProjectError, match="must be smaller than it; found 64 px"):
        WindowChoice(object_px=64).applied(made)
    with pytest.raises(ProjectError, match="--overlap goes with --windows or --window-px"):
        WindowChoice(overlap=0.5).applied(replace(loaded, project=original))


def test_windows_and_uncertainty_do_not_go_together(run: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(D2TuneError, match="--most-uncertain looks at whole images"):
        d2tune.predict(run, photos, out=tmp_path / "out", to="labelme", most_uncertain=2, window_px="auto")
    assert not (tmp_path / "out").exists()
